"""Inputs: what an input is, the units it is cut into, and the pairs of each unit.

``open_input`` recognises an input by its content and plans its units; ``read_unit`` reads one. Every
pair of the input is a row: what cannot be used comes as ``failed`` with a reason of ``REASONS`` and a
detail that says what to do.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping

import polars as pl

from ..units import Unit
from . import where
from .arc import arc_pairs
from .img2dataset import failed_pairs
from .pages import html_pairs
from .plan import OPTIONS, plan_input
from .rows import REASONS, Pair, batches
from .sidecars import image_pairs
from .tables import json_pairs, line_pairs, parquet_pairs
from .tars import tar_pairs
from .warc import warc_pairs

__all__ = ["OPTIONS", "REASONS", "open_input", "read_unit"]

log = logging.getLogger(__name__)


def open_input(path_or_url: str, index: int = 0, options: Mapping[str, str] | None = None) -> list[Unit]:
    """The units of an input: a file, a folder or an fsspec URL, recognised by what it is.

    ``index`` is its place among the inputs of a run. ``options`` say how to read it:

    - ``caption``, ``image`` (or ``url``), ``page``: a table's columns (numbers from 1 where it has no header);
      ``caption`` names the field of json sidecars too; ``caption=filename`` takes the caption of an image
      in a folder, or of a bare URL, from its file name;
    - ``images``: the folder that a table's paths are relative to (default: the table's own);
    - ``base``: the URL at which the folder (or the single page) stood, for the relative references of pages;
    - ``kind``, ``encoding``: what the file is and its character set, where that is not recognised.

    Raises ``InputError`` where the input is missing, empty or of no known kind, and ``UsageError`` for
    an unknown option.
    """
    return plan_input(path_or_url, index, options or {})


def read_unit(unit: Unit, counts: Counter[str] | None = None) -> Iterator[pl.DataFrame]:
    """The pairs of ``unit`` in batches of at most 256 rows and 32 MiB, with all source and verdict columns.

    ``counts`` gains what are no pairs: ``pages``, ``images``, ``images_without_caption``, ``records`` and
    ``not_ok`` (archived responses with another status than 2xx). A file that is gone or may not be read
    becomes a failed row; other I/O errors (a lost connection) are raised, so that the unit is retried.
    """
    told: Counter[str] = Counter() if counts is None else counts
    yield from batches(_guarded(unit, told), unit)
    if told:
        log.info("unit %s: %s", unit.id, ", ".join(f"{n} {word}" for word, n in sorted(told.items())))


def _guarded(unit: Unit, counts: Counter[str]) -> Iterator[Pair]:
    try:
        yield from _pairs(unit, counts)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        name = (unit.files[0] if unit.files else "") or where.last(unit.root)
        yield Pair(f"{name}#{unit.start}#gone", reason="file_unreadable", detail=where.explain(error))


def _pairs(unit: Unit, counts: Counter[str]) -> Iterator[Pair]:
    root, options = unit.root, dict(unit.options)
    if unit.reader == "html":
        yield from html_pairs(root, unit.files, options.get("base"), counts)
    elif unit.reader == "images":
        yield from image_pairs(root, unit.files, options)
    elif unit.reader == "problems":
        for file, reason, detail in json.loads(options["problems"]):
            yield Pair(f"{file}#0#0", reason=reason, detail=detail)
    elif unit.reader in ("warc", "arc"):
        name = unit.files[0] or where.last(root)
        with where.open_binary(where.join(root, unit.files[0])) as handle:
            if unit.reader == "warc":
                yield from warc_pairs(handle, name, unit.start, unit.end, counts)
            else:
                yield from arc_pairs(handle, name, counts)
    elif unit.reader == "lines":
        yield from line_pairs(root, unit.files[0], unit.start, unit.end, options)
    elif unit.reader == "json":
        yield from json_pairs(root, unit.files[0], options)
    elif unit.reader == "parquet":
        yield from parquet_pairs(root, unit.files[0], unit.start, unit.end, options)
    elif unit.reader == "failures":
        yield from failed_pairs(root, unit.files[0])
    elif unit.reader == "tar":
        yield from tar_pairs(root, unit.files[0], unit.start, unit.end, options)
    else:
        raise ValueError(f"unit {unit.id} names the reader {unit.reader!r}, which does not exist")
