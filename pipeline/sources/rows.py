"""What every reader yields, and how it becomes batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import polars as pl

from ..columns import COLUMNS, SOURCE_COLUMNS
from ..units import BATCH_BYTES, BATCH_ROWS, Unit, pair_key

Reason = Literal[
    "bad_line",
    "bad_member",
    "bad_sidecar",
    "bad_url",
    "broken_archive",
    "caption_missing",
    "caption_too_large",
    "data_url",
    "failed_to_download",
    "failed_to_resize",
    "file_too_large",
    "file_unreadable",
    "image_empty",
    "image_missing",
    "image_too_large",
    "relative_url",
    "unsupported_file",
]

REASONS: dict[Reason, str] = {
    "bad_line": "a line or record of a table does not parse",
    "bad_member": "a tar member climbs out of the archive, or is a link or a device",
    "bad_sidecar": "the json file beside an image does not parse",
    "bad_url": "the image's URL is not http or https, or has no host",
    "broken_archive": "a WARC, ARC or tar breaks here; what could be read before and after was read",
    "caption_missing": "an image came without any caption",
    "caption_too_large": "the caption has more than 4 Mi characters",
    "data_url": "the image is written into the page as a data: URL, mostly a placeholder",
    "failed_to_download": "img2dataset did not get the image; the detail is its own",
    "failed_to_resize": "img2dataset got the image and could not decode or resize it",
    "file_too_large": "a page or JSON file is larger than the reader takes (64 MiB, 512 MiB)",
    "file_unreadable": "a file of the input could not be opened or read",
    "image_empty": "the image has no bytes",
    "image_missing": "a caption came without an image, or its file is not there",
    "image_too_large": "an image file is larger than the reader takes (64 MiB)",
    "relative_url": "the image's URL is relative, the page's own URL is not known and no such file lies beside it",
    "unsupported_file": "a file of the input folder is of no kind that holds pairs",
}

MAX_CAPTION = 4 * 2**20
MAX_FILE = 64 * 2**20
_COLUMNS = (*SOURCE_COLUMNS, "status", "stage", "reason", "detail")
_SCHEMA = {name: COLUMNS[name].dtype for name in _COLUMNS}
_UNSTORABLE = re.compile("[\ud800-\udfff\0]")


class Pair(NamedTuple):
    """One pair as a reader found it; ``reason`` is set where it cannot be used.

    ``origin`` is ``file#record#ordinal``. Where bytes come with the input, ``image_url`` is only what a
    sidecar says of their source.
    """

    origin: str
    caption: str | None = None
    caption_origin: str | None = None
    image_url: str | None = None
    image: bytes | None = None
    page_url: str | None = None
    reason: Reason | None = None
    detail: str | None = None


def clean(text: str) -> str:
    """``text`` with what no UTF-8 file holds (lone surrogates) and what cuts strings (NUL) as U+FFFD.

    >>> clean("a" + chr(0) + "b")
    'a\ufffdb'
    """
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text) if _UNSTORABLE.search(text) else text


def batches(pairs: Iterable[Pair], unit: Unit) -> Iterator[pl.DataFrame]:
    """``pairs`` as frames of at most 256 rows and, but for a single larger row, 32 MiB.

    The frames hold all of ``SOURCE_COLUMNS`` and the verdict columns; ordinals run from 0 through the unit.
    """
    name, ordinal, size = unit.id, 0, 0
    rows: list[tuple[object, ...]] = []
    for pair in pairs:
        weight = len(pair.image or b"") + 4 * len(pair.caption or "")
        if rows and (len(rows) >= BATCH_ROWS or size + weight > BATCH_BYTES):
            yield _frame(rows)
            rows, size = [], 0
        rows.append(_row(pair, name, ordinal))
        ordinal, size = ordinal + 1, size + weight
    if rows:
        yield _frame(rows)


def _frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_ORDER, orient="row").select(_COLUMNS)


_ORDER = {
    name: _SCHEMA[name]
    for name in (
        *("key", "unit", "ordinal", "origin", "page_url", "image_url", "caption_origin", "caption_raw", "image"),
        *("status", "stage", "reason", "detail"),
    )
}


def _row(pair: Pair, unit: str, ordinal: int) -> tuple[object, ...]:
    """A row in ``_ORDER``; a pair without image or caption is judged here if its reader did not."""
    origin, caption, caption_origin, url, image, page_url, reason, detail = pair
    raw = None if caption is None else clean(caption)
    url = None if url is None else clean(url)
    if raw is not None and len(raw) > MAX_CAPTION:
        reason, detail = "caption_too_large", f"{len(raw)} characters, at most {MAX_CAPTION} are read: {raw[:80]}…"
        raw = None
    elif reason is None and raw is None:
        reason, detail = "caption_missing", "no caption came with this image"
    elif reason is None and url is None and image is None:
        reason, detail = "image_missing", "no image came with this caption"
    # A pair that failed in reading is known by its place: it may have no image, and no caption.
    key = pair_key(image or url or f"origin:{origin}", caption or "")
    verdict = (None, None, None, None) if reason is None else ("failed", "read", reason, clean(detail or "")[:1000])
    page = None if page_url is None else clean(page_url)
    return (key, unit, ordinal, clean(origin), page, url, caption_origin, raw, image, *verdict)
