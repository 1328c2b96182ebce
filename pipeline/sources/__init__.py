"""Where pairs come from: WARC, pages, folders of images, tables, URL lists, tars."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from ..units import Unit
from . import images, pages, tables, tars, warc
from .recognise import open_input
from .rows import Pair, batches

__all__ = ["open_input", "read_unit"]

READERS: dict[str, Callable[[Unit], Iterator[Pair]]] = {
    "warc": warc.read,
    "pages": pages.read,
    "images": images.read,
    "jsonl": tables.read_jsonl,
    "csv": tables.read_csv,
    "parquet": tables.read_parquet,
    "urls": tables.read_urls,
    "tars": tars.read,
}


def read_unit(unit: Unit) -> Iterator[pl.DataFrame]:
    """The unit's pairs in batches of at most 256 rows or 32 MiB, numbered from 0.

    Columns: those of ``SOURCE_COLUMNS`` except ``unit``, ``image``, and status, stage, reason and detail, which
    are set for pairs that could not be read.
    """
    return batches(READERS[unit.reader](unit))
