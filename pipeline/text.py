"""The text stages alone, on captions without images: how a rule is tried, and how rules are measured.

One JSON line per input line, in order::

    {"caption": given, "text": result, "status": "kept", "stage": null, "reason": null,
     "spans": [{"start": 3, "end": 6, "stage": "names", "category": "chinese", "word": "王志强"}]}

``start`` and ``end`` are character offsets into ``caption`` as given, half open, whatever earlier stages cut. A line
without a caption comes out failed at the stage ``read`` under its reason, with the same keys: ``caption`` is then
the line as it stands in the file and ``text`` is null.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import IO, Any

import fsspec
import polars as pl
import pyarrow.parquet as pq

from . import files
from .columns import SPAN, with_missing
from .errors import InputError, UsageError, nearest
from .recipe import Recipe
from .registry import STAGES, stage_class
from .sources.rows import MAX_CAPTION, clean
from .sources.tablecols import CAPTIONS
from .stage import StageModel, Tally, apply_stages

BATCH = 2048
KINDS = {
    **dict.fromkeys(("jsonl", "ndjson", "json"), "jsonl"),
    **{name: name for name in ("csv", "tsv", "txt", "parquet")},
}
"""File endings to what is in them."""

Given = tuple[str, str | None]
"""A caption, or the line as given and the reason why it holds none."""


def chosen_stages(recipe: Recipe, names: Sequence[str]) -> list[StageModel]:
    """The text stages of ``recipe``, or those named, in the order given, with the recipe's fields where it has them.

    Raises ``UsageError`` for a stage that needs images or is not there.
    """
    held = {s.name: s for s in recipe.stages}
    if not names:
        return [s for s in recipe.phase("measure") if not s.on_images]
    chosen = []
    for name in names:
        if name not in STAGES:
            raise UsageError(f"--stage {name!r}: no such stage; {nearest(name, STAGES)}")
        stage = held[name] if name in held else stage_class(name)()
        if stage.on_images or stage.phase != "measure":
            texts = [n for n in STAGES if not stage_class(n).on_images and stage_class(n).phase == "measure"]
            raise UsageError(f"--stage {name!r} does not look at one caption alone; those that do: {', '.join(texts)}")
        chosen.append(stage)
    return chosen


def run_text(source: str, out: str, stages: Sequence[StageModel], column: str = "") -> dict[str, int]:
    """Write one line per caption of ``source`` to ``out`` (``-``: standard streams); counts by status.

    ``column`` names the caption column where it is not recognised. Memory does not grow with the input.
    """
    counts: dict[str, int] = {"inputs": 0, "kept": 0, "dropped": 0, "failed": 0}
    with ExitStack() as stack:
        given = captions(source, stack, column)
        first = next(given, None)
        if first is None:
            raise InputError(f"{source} holds no captions")
        target = _writer(out, stack)
        for told in records(_chain(first, given), stages):
            counts["inputs"] += 1
            counts[told["status"]] += 1
            target.write(json.dumps(told, ensure_ascii=False) + "\n")
    return counts


def records(given: Iterable[Given], stages: Sequence[StageModel]) -> Iterator[dict[str, Any]]:
    """The stages' results on captions, in order."""
    source = iter(given)
    while piece := list(islice(source, BATCH)):
        yield from _batch(piece, stages)


def captions(source: str, stack: ExitStack, column: str = "") -> Iterator[Given]:
    """The captions of a jsonl, csv, tsv, txt or parquet file (compressed or not, local or any fsspec URL).

    A jsonl line is a string or an object with a caption. Standard input (``-``) is jsonl where it begins with
    ``{`` or ``"``, else a caption a line. Raises ``InputError`` where the file is missing or of no known kind.
    """
    if source == "-":
        text: IO[str] = io.TextIOWrapper(sys.stdin.buffer, "utf-8", errors="surrogateescape")
        first = text.readline()
        kind = "jsonl" if first.lstrip()[:1] in ("{", '"') else "txt"
        return _lines(_chain(first, text) if first else iter(()), kind, column)
    if not files.exists(source):
        raise InputError(f"{source} is not there; expected a jsonl, csv, tsv, txt or parquet file of captions")
    name = source.rsplit("/", 1)[-1].lower()
    endings = name.removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2").removesuffix(".xz").split(".")
    ending = KINDS.get(endings[-1])
    if ending is None:
        raise InputError(f"{source}: captions are read from .jsonl, .csv, .tsv, .txt or .parquet")
    if ending == "parquet":
        return _parquet(stack.enter_context(files.open_read(source)), source, column)
    opened = fsspec.open(source, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="", compression="infer")
    return _lines(stack.enter_context(opened), ending, column)


def _lines(lines: Iterable[str], kind: str, column: str) -> Iterator[Given]:
    if kind == "txt":
        return ((line.rstrip("\r\n"), None) for line in lines)
    if kind == "jsonl":
        return (_json(line, column) for line in lines if line.strip())
    return _table(lines, "\t" if kind == "tsv" else ",", column)


def _json(line: str, column: str) -> Given:
    given = line.rstrip("\r\n")
    try:
        value = json.loads(line)
    except ValueError:
        return given, "bad_line"
    if isinstance(value, dict):
        name = column or next((c for c in CAPTIONS if isinstance(value.get(c), str)), "")
        return (value[name], None) if isinstance(value.get(name), str) else (given, "caption_missing")
    return (value, None) if isinstance(value, str) else (given, "bad_line")


def _table(lines: Iterable[str], delimiter: str, column: str) -> Iterator[Given]:
    rows = csv.reader(lines, delimiter=delimiter)
    header = next(rows, [])
    name = column or next((c for c in CAPTIONS if c in header), "")
    if name not in header:
        raise InputError(
            f"no caption column; the columns are {', '.join(header)}. Name one with --input caption=COLUMN"
        )
    at = header.index(name)
    for row in rows:
        yield (row[at], None) if at < len(row) else (delimiter.join(row), "bad_line")


def _parquet(handle: IO[bytes], source: str, column: str) -> Iterator[Given]:
    table = pq.ParquetFile(handle)
    name = column or next((c for c in CAPTIONS if c in table.schema_arrow.names), "")
    if name not in table.schema_arrow.names:
        names = ", ".join(table.schema_arrow.names)
        raise InputError(f"{source}: no caption column; the columns are {names}. Name one with --input caption=COLUMN")
    for batch in table.iter_batches(BATCH, columns=[name]):
        for value in batch.column(0).to_pylist():
            yield (value, None) if isinstance(value, str) else ("" if value is None else str(value), "caption_missing")


def _batch(piece: list[Given], stages: Sequence[StageModel]) -> Iterator[dict[str, Any]]:
    raw = [clean(text) for text, _ in piece]
    problems = [problem or ("caption_too_large" if len(text) > MAX_CAPTION else None) for text, problem in piece]
    whole = [text if problem is None else None for text, problem in zip(raw, problems, strict=True)]
    rows = pl.DataFrame({"caption_raw": whole}, schema={"caption_raw": pl.String}).with_row_index("ordinal")
    rows = rows.with_columns(caption="caption_raw").filter(pl.col("caption").is_not_null())
    rows = with_missing(rows, ("caption_offsets", "status", "stage", "reason"))
    rows = apply_stages(stages, rows, {s.name: Tally() for s in stages})
    marks = [(s.name, c) for s in stages for c in s.adds if rows.schema.get(c) == pl.List(SPAN)]
    found = {row["ordinal"]: row for row in rows.iter_rows(named=True)}
    for number, problem in enumerate(problems):
        if problem is not None:
            yield {
                "caption": raw[number],
                "text": None,
                "status": "failed",
                "stage": "read",
                "reason": problem,
                "spans": [],
            }
            continue
        row = found[number]
        spans = [
            {"start": s["start"], "end": s["end"], "stage": name, "category": s["category"], "word": s["word"]}
            for name, column in marks
            for s in row[column] or ()
        ]
        yield {
            "caption": row["caption_raw"],
            "text": row["caption"],
            "status": row["status"] or "kept",
            "stage": row["stage"],
            "reason": row["reason"],
            "spans": sorted(spans, key=lambda s: (s["start"], s["end"])),
        }


def _writer(out: str, stack: ExitStack) -> IO[str]:
    if out == "-":
        return sys.stdout
    path = stack.enter_context(files.publish(out))
    return stack.enter_context(path.open("w", encoding="utf-8"))


def _chain(first: Any, rest: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rest
