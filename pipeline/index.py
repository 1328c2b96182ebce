"""What earlier runs kept, so that new data is checked against it: an index directory.

```
INDEX/index.json              format version, the runs with their counts
INDEX/pairs-RUN.parquet       the pairs of one run, with what comparing them needs
```

A recipe names the directory in ``pair_duplicates.index`` or ``split.index``. The pairs of the index then take
part in ``relate`` as further units that are never dropped or written: a new pair that matches one goes,
and one that falls into an indexed cluster takes its split. Pairs that a run dropped as duplicates stand in
the index too, with what they are duplicates of: a copy of a copy is found as in one joint run. Two indexes
merge by putting their files together (``merge``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from . import files
from .columns import COLUMNS, with_missing
from .errors import InputError, UsageError

VERSION = 1
PREFIX = "index:"
"""Begins the unit of every indexed pair."""

_FOR_COMPARING = (
    *("caption", "phash", "phash_mirrored", "phash_inside", "image_grid", "image_grid_inside"),
    *("score", "width", "height", "page_url"),
)
_KNOWN = ("duplicate_of", "cluster", "split")
COLUMNS_HELD = ("unit", "ordinal", "key", "origin", *_FOR_COMPARING, *_KNOWN)


def indexed() -> pl.Expr:
    """True for rows that come from an index."""
    return pl.col("unit").str.starts_with(PREFIX).fill_null(False)


def add(index: str, run: str, parts: Sequence[str], related: Sequence[str]) -> int:
    """Put the kept and the duplicate pairs of a run into ``index`` (made where it is not); how many they are.

    ``parts`` and ``related`` are the run's part files and their ``.relate.parquet``, in the same order. Adding a
    run again replaces it. Raises ``UsageError`` for a name that cannot be a file's.
    """
    if not re.fullmatch(r"[\w.-]{1,100}", run):
        raise UsageError(f"an index names its runs by letters, digits, '.', '_' and '-'; given {run!r}")
    frames = [_pairs(part, other) for part, other in zip(parts, related, strict=True)]
    empty = pl.DataFrame(schema={c: COLUMNS[c].dtype for c in COLUMNS_HELD})
    return put(index, run, pl.concat([empty, *frames]))


def put(index: str, run: str, rows: pl.DataFrame) -> int:
    """Put ``rows`` (with the columns of ``COLUMNS_HELD``) into ``index`` as the pairs of ``run``; how many they are."""
    told = _told(index) if files.exists(_head(index)) else _new()
    rows = with_missing(rows, COLUMNS_HELD).select(COLUMNS_HELD).sort("key", "origin")
    rows = rows.with_columns(
        unit=pl.lit(PREFIX + run),
        ordinal=pl.int_range(pl.len(), dtype=pl.UInt32),
        origin=pl.format("{}/{}", pl.lit(run), "origin"),
    )
    files.write_parquet(_file(index, run), rows)
    told["runs"][run] = {"pairs": rows.height, "kept": rows["duplicate_of"].null_count()}
    files.write_bytes(_head(index), json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True).encode())
    return rows.height


def pair_files(index: str) -> list[str]:
    """The files of pairs of ``index``, in order of run; ``InputError`` where it is no index of this version."""
    if not files.exists(_head(index)):
        raise InputError(f"no index at {index} (no index.json there); make one by adding a finished run to it")
    return [_file(index, run) for run in sorted(_told(index)["runs"])]


def merge(index: str, other: str) -> int:
    """Take the runs of ``other`` into ``index``; how many there are. A run that both hold must be the same."""
    ours = _told(index) if files.exists(_head(index)) else _new()
    theirs = _told(other)["runs"]
    for run, counts in sorted(theirs.items()):
        data = files.read_bytes(_file(other, run))
        if run in ours["runs"] and files.read_bytes(_file(index, run)) != data:
            raise UsageError(
                f"{index} and {other} both hold a run {run!r}, with other pairs; add it under another name"
            )
        files.write_bytes(_file(index, run), data)
        ours["runs"][run] = counts
    files.write_bytes(_head(index), json.dumps(ours, ensure_ascii=False, indent=1, sort_keys=True).encode())
    return len(theirs)


def _pairs(part: str, related: str) -> pl.DataFrame:
    """Kept and duplicate pairs of one unit, with the columns that are held."""
    found = files.read_parquet(related)
    wanted = (pl.col("status").is_null()) | (pl.col("duplicate_kind") == "pair")
    changed = [c for c in ("caption",) if c in found.columns]  # by a stage of the relate phase
    found = found.filter(wanted).select("ordinal", *_KNOWN, *changed)
    with files.open_read(part) as handle:
        there = set(pl.read_parquet_schema(handle))
    rows = files.read_parquet(part, [c for c in COLUMNS_HELD if c in there and c not in (*_KNOWN, *changed)])
    return with_missing(rows.join(found, on="ordinal"), COLUMNS_HELD).select(COLUMNS_HELD)


def _head(index: str) -> str:
    return files.join(index, "index.json")


def _file(index: str, run: str) -> str:
    return files.join(index, f"pairs-{run}.parquet")


def _new() -> dict[str, Any]:
    return {"version": VERSION, "runs": {}}


def _told(index: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(files.read_bytes(_head(index)))
        version = told["version"]
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise InputError(f"{_head(index)} is not the head of an index ({type(error).__name__}: {error})") from None
    if version != VERSION:
        raise InputError(
            f"{index} is an index of version {version}, this program reads version {VERSION}; "
            "make it anew by adding the runs to a new directory"
        )
    return told
