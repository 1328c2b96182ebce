"""Units: deterministic slices of the input, the grain of retry and resume."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

BATCH_ROWS = 256
BATCH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Unit:
    """One slice of one input.

    ``reader`` names the reader that opens it; ``root`` is the input as the user gave it and
    ``files`` are paths relative to it (empty string: the root itself). ``start`` and ``end``
    bound the slice in the reader's own measure (bytes of a jsonl or WARC, rows of a parquet);
    ``end`` of -1 means to the end. ``index`` is the input's place on the command line: it keeps two
    inputs of the same name apart.
    """

    reader: str
    root: str
    files: tuple[str, ...] = ("",)
    start: int = 0
    end: int = -1
    options: tuple[tuple[str, str], ...] = ()
    index: int = 0

    @property
    def id(self) -> str:
        """16 hex digits that name this slice; equal for equal slices on any machine.

        ``root`` stays out, so that a moved folder keeps its units; its last part stays in.
        """
        fields: dict[str, Any] = asdict(self) | {"root": self.root.rstrip("/").rsplit("/", 1)[-1]}
        return hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8).hexdigest()


def pair_key(image: str | bytes, caption_raw: str) -> str:
    """The key of a pair: from the image's URL (or, without one, its bytes) and the raw caption.

    The image goes in as a digest of fixed length under its own tag, so that no URL, bytes and
    caption can be cut in another place and give the same key.
    """
    if isinstance(image, str):
        of_image = hashlib.blake2b(image.encode("utf-8", "surrogatepass"), digest_size=16, person=b"url")
    else:
        of_image = hashlib.blake2b(image, digest_size=16, person=b"bytes")
    return hashlib.blake2b(
        of_image.digest() + caption_raw.encode("utf-8", "surrogatepass"), digest_size=16, person=b"pair"
    ).hexdigest()
