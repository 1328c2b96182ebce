"""WebDataset tars, img2dataset's among them: KEY.jpg, KEY.txt and KEY.json side by side."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator

from .. import files
from ..units import Unit
from .images import MAX_IMAGE, sidecar_captions
from .names import URL_COLUMNS, pick
from .rows import MAX_CAPTION, Pair, failure

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2", "img")

Sample = dict[str, bytes]


def read(unit: Unit) -> Iterator[Pair]:
    """One row per sample and caption; members with a path that climbs out fail and are never opened as paths."""
    for name in unit.files:
        path = files.join(unit.root, name) if name else unit.root
        shown = name or unit.root.rstrip("/").rsplit("/", 1)[-1]
        key, sample = "", Sample()
        try:
            with files.open_read(path) as handle, tarfile.open(fileobj=handle, mode="r|*") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        told = f"member {member.name[:200]!r} climbs out of the archive; such members are not read"
                        yield failure(f"{shown}#{member.name[:200]}#0", "bad_member", told)
                        continue
                    folder, base = posixpath.split(member.name)
                    stem, _, suffix = base.partition(".")
                    at = posixpath.join(folder, stem)
                    if at != key:
                        yield from _sample(shown, key, sample)
                        key, sample = at, Sample()
                    limit = MAX_IMAGE if suffix.lower() in IMAGE_SUFFIXES else 4 * MAX_CAPTION
                    opened = tar.extractfile(member)
                    sample[suffix.lower()] = opened.read(limit + 1) if opened else b""
        except (tarfile.TarError, EOFError, OSError) as error:
            yield from _sample(shown, key, sample)
            told = f"the archive cannot be read on after {key or 'its start'!r}: {type(error).__name__}: {error}"
            yield failure(f"{shown}#{key}#broken", "broken_archive", told)
            continue
        yield from _sample(shown, key, sample)


def _sample(shown: str, key: str, sample: Sample) -> Iterator[Pair]:
    if not sample:
        return
    origin = f"{shown}#{key}"
    suffix = next((s for s in IMAGE_SUFFIXES if s in sample), None)
    told: dict[str, object] = {}
    if "json" in sample:
        try:
            loaded = json.loads(sample["json"])
            told = loaded if isinstance(loaded, dict) else {"caption": loaded}
        except ValueError as error:
            yield failure(f"{origin}#0", "bad_sidecar", f"{key}.json is not valid JSON: {error}")
            return
    captions = sidecar_captions(told)
    if "txt" in sample:
        captions = [sample["txt"].decode("utf-8", "replace").strip()]
    reason, detail = None, None
    image = sample[suffix] if suffix else None
    if image is None:
        reason, detail = "image_missing", f"the sample has {', '.join(sorted(sample))} and no image"
    elif not image or len(image) > MAX_IMAGE:
        reason, detail = "image_empty" if not image else "image_too_large", f"{len(image)} bytes, at most {MAX_IMAGE}"
        image = None
    if not captions:
        reason = reason or "caption_missing"
        detail = detail or "the sample has no .txt and no caption in its .json"
    url = pick(told, URL_COLUMNS)
    address = told[url] if url else None
    for k, caption in enumerate(captions or [""]):
        yield Pair(
            origin=f"{origin}#{k}",
            caption=caption,
            caption_origin="sidecar" if captions else None,
            image=image,
            image_url=address if isinstance(address, str) and address.startswith(("http://", "https://")) else None,
            failure=reason,
            detail=detail,
        )
