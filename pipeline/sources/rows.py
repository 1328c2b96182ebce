"""Pairs as readers find them, and their way into batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import polars as pl

from ..columns import COLUMNS, SOURCE_COLUMNS
from ..units import BATCH_BYTES, BATCH_ROWS, pair_key

MAX_CAPTION = 4 * 2**20
"""Characters of a caption that are still read; a longer one fails, with its beginning kept."""

_UNSTORABLE = re.compile("[\ud800-\udfff\x00]")
_VERDICT = ("status", "stage", "reason", "detail")
_SCHEMA = {name: COLUMNS[name].dtype for name in (*SOURCE_COLUMNS, "image", *_VERDICT)}


class Pair(NamedTuple):
    """One input pair, or the place where one could not be read (``failure`` and ``detail`` say why)."""

    origin: str
    caption: str = ""
    caption_origin: str | None = None
    image_url: str | None = None
    image: bytes | None = None
    page_url: str | None = None
    failure: str | None = None
    detail: str | None = None


def storable(text: str) -> str:
    """``text`` with lone surrogates and NULs, which UTF-8 columns cannot hold or users cannot read, as U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def failure(origin: str, reason: str, detail: str, caption: str = "", **known: str | None) -> Pair:
    """An input pair that could not be read; it ends as ``failed`` with the stage ``read``."""
    return Pair(origin=origin, caption=caption, failure=reason, detail=detail, **known)  # type: ignore[arg-type]


def batches(pairs: Iterable[Pair]) -> Iterator[pl.DataFrame]:
    """Number the pairs from 0 and gather them into batches within the limits of rows and bytes."""
    held: list[tuple[object, ...]] = []
    size = 0
    for ordinal, pair in enumerate(pairs):
        row = _row(ordinal, pair)
        held.append(row)
        size += len(pair.image or b"") + len(pair.caption)
        if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
            yield pl.DataFrame(held, schema=_SCHEMA, orient="row")
            held, size = [], 0
    if held:
        yield pl.DataFrame(held, schema=_SCHEMA, orient="row")


def _row(ordinal: int, pair: Pair) -> tuple[object, ...]:
    caption = storable(pair.caption)
    reason, detail = pair.failure, pair.detail
    if reason is None and len(caption) > MAX_CAPTION:
        reason = "caption_too_large"
        detail = f"{len(caption)} characters given, at most {MAX_CAPTION} are read; is this a whole document?"
        caption = caption[:1000]
    url = storable(pair.image_url) if pair.image_url else None
    key = pair_key(url or pair.image or pair.origin, caption)
    values = {
        "key": key,
        "ordinal": ordinal,
        "origin": storable(pair.origin),
        "page_url": storable(pair.page_url) if pair.page_url else None,
        "image_url": url,
        "caption_origin": pair.caption_origin,
        "caption_raw": caption,
        "image": pair.image,
        "status": "failed" if reason else None,
        "stage": "read" if reason else None,
        "reason": reason,
        "detail": storable(detail) if detail else None,
    }
    return tuple(values.get(name) for name in _SCHEMA)
