"""How a table is to be read: its encoding, header, columns, where its image files lie, its ranges."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import where
from .img2dataset import bytes_column
from .lines import UNIT_ROWS, UNPACKING, csv_records, decompressed, plan
from .recognise import Kind, head_text
from .tablecols import Columns, choose, guess
from .tables import MAX_JSON

_TRIED_ROWS = 500
_TRIED_FOLDERS = 50


@dataclass(frozen=True)
class TablePlan:
    """``options`` for the reader; ``ranges`` of (start, end, first line); whether images are local files."""

    options: dict[str, str]
    ranges: list[tuple[int, int, int]]
    paths: bool = field(default=False)


def plan_table(path: str, kind: Kind, given: Mapping[str, str]) -> TablePlan | str:
    """The plan of the table at ``path``, or a sentence that says why it is none and what to do."""
    if not kind.head:
        return "the file is empty or cannot be unpacked; fetch it again"
    if kind.word == "parquet":
        return _plan_parquet(path, given)
    if kind.word == "json":
        return _plan_json(path, kind, given)
    text, encoding = head_text(kind.head)
    if encoding.startswith("utf-16"):
        return "the table is UTF-16; save it as UTF-8"
    encoding = given.get("encoding") or encoding
    mark = 3 if kind.head.startswith(b"\xef\xbb\xbf") else 0
    options = {"kind": kind.word, "encoding": encoding}
    if kind.packed:
        options["packed"] = kind.packed
    skip = mark
    if kind.word == "urls":
        options |= {"caption": "caption", "image": "url"}
        if given.get("caption") == "filename":
            options["from_name"] = "1"
        samples: list[dict[str, Any]] = []
    elif kind.word == "jsonl":
        samples = _objects(text)
        if not samples:
            return "no line parses as a JSON object; expected one object in braces per line"
        columns = choose(list(dict.fromkeys(k for s in samples for k in s)), given)
        if isinstance(columns, str):
            return columns
        options |= _named(columns)
    else:
        told = _header(kind, mark, encoding, given)
        if isinstance(told, str):
            return told
        more, skip, samples = told
        options |= more
    paths = _place(samples, path, options, given)
    if kind.packed:
        return TablePlan(options, [(skip, -1, 2 if skip > mark else 1)], paths)
    with where.open_binary(path) as handle:
        delimiter = options["delimiter"] if kind.word == "csv" else ""
        ranges = plan(handle, delimiter, skip)
    return TablePlan(options, ranges, paths)


def _named(columns: Columns) -> dict[str, str]:
    named = {"caption": columns.caption, "image": columns.image}
    return named | ({"page": columns.page} if columns.page else {})


def _objects(text: str) -> list[dict[str, Any]]:
    found = []
    for row in text.splitlines()[:_TRIED_ROWS]:
        try:
            values = json.loads(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict):
            found.append(values)
    return found


def _header(
    kind: Kind, mark: int, encoding: str, given: Mapping[str, str]
) -> tuple[dict[str, str], int, list[dict[str, Any]]] | str:
    """Options, bytes to skip and sample rows of a csv or tsv; columns without a header are called 1, 2, …"""
    delimiter = "\t" if kind.word == "tsv" else _delimiter(head_text(kind.head)[0])
    source = io.BytesIO(kind.head[mark:])
    cells, sizes = [], []
    for record in csv_records(source, 1, -1, delimiter):
        if record.error or not record.data.strip():
            continue
        text = record.data.decode(encoding, "replace").rstrip("\r\n")
        cells.append(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
        sizes.append(source.tell() if not cells[:-1] else 0)
        if len(cells) > _TRIED_ROWS:
            break
    if not cells:
        return "the table holds no rows"
    names, skip, rows = [c.strip() for c in cells[0]], mark + sizes[0], cells[1:]
    columns = choose(names, given)
    if isinstance(columns, str):
        numbered = [str(i + 1) for i in range(len(cells[0]))]
        found = guess(cells[:20] if len(cells) < 20 else cells[:19])
        by_number = choose(numbered, given)
        if isinstance(by_number, Columns):
            columns, names, skip, rows = by_number, numbered, mark, cells
        elif found is not None and not (given.get("caption") or given.get("image") or given.get("url")):
            columns = Columns(numbered[found[0]], numbered[found[1]])
            names, skip, rows = numbered, mark, cells
        else:
            return columns
    options = {"delimiter": delimiter, "header": json.dumps(names), **_named(columns)}
    return options, skip, [dict(zip(names, row, strict=False)) for row in rows]


def _delimiter(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return max(",;|\t", key=lambda d: (first.count(d), d == ","))


def _place(samples: Sequence[Mapping[str, Any]], path: str, options: dict[str, str], given: Mapping[str, str]) -> bool:
    """Find where local image files lie and note it under ``images``; whether there are such files at all.

    Without ``--input images=FOLDER`` that is the table's folder or, if none of the first files is there
    and a folder beside the table holds them, that folder.
    """
    values = [v for s in samples for v in _flat(s.get(options["image"])) if isinstance(v, str)]
    local = [v for v in values if v and not where.is_remote(v) and not v.startswith(("//", "data:", "http"))]
    folder = where.folder(path)
    if given.get("images"):
        images = given["images"]
        if not where.is_remote(images) and Path(images).is_dir():
            images = where.normal(images) if where.is_remote(folder) else os.path.relpath(images, folder)
        options["images"] = images
        return bool(local)
    relative = [v for v in local if not v.startswith("/")]
    if relative and not where.is_remote(folder):
        inner = sorted(p.name for p in Path(folder).iterdir() if p.is_dir() and not p.name.startswith("."))
        choices = ["", *inner[:_TRIED_FOLDERS]]
        hits = {c: sum(Path(folder, c, v).is_file() for v in relative) for c in choices}
        best = max(choices, key=lambda c: (hits[c], -choices.index(c)))
        if best and hits[best]:
            options["images"] = best
    return bool(local)


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plan_json(path: str, kind: Kind, given: Mapping[str, str]) -> TablePlan | str:
    with where.open_binary(path) as handle:
        try:
            data = decompressed(handle, kind.packed).read(MAX_JSON + 1)
        except UNPACKING as error:
            return f"the file cannot be unpacked: {where.explain(error)}. Fetch it again if it was cut"
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"the JSON does not parse: {error}; expected an array of objects, or one object per line (jsonl)"
    samples = [i for i in items if isinstance(i, dict)]
    columns = choose(list(dict.fromkeys(k for s in samples[:_TRIED_ROWS] for k in s)), given)
    if isinstance(columns, str):
        return columns
    options = {"kind": "json", **_named(columns)} | ({"packed": kind.packed} if kind.packed else {})
    paths = _place(samples[:_TRIED_ROWS], path, options, given)
    return TablePlan(options, [(0, -1, 1)], paths)


def _plan_parquet(path: str, given: Mapping[str, str]) -> TablePlan | str:
    with where.open_binary(path) as handle:
        try:
            table = pq.ParquetFile(handle)
            held = bytes_column(table.schema_arrow) if not given.get("image") and not given.get("url") else ""
            columns = choose(table.schema_arrow.names, {**given, "image": held} if held else given)
            if isinstance(columns, str):
                return columns
            rows = table.metadata.num_rows
            if rows != sum(table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)):
                return "the parquet file's row counts do not add up; fetch it again"
        except (pa.ArrowException, OSError) as error:
            return f"the parquet file cannot be read: {error}. Fetch it again if it was cut"
        try:
            batch = next(table.iter_batches(256, columns=[columns.image]), None)
            samples = batch.to_pylist() if batch is not None else []
        except (pa.ArrowException, OSError, ValueError):
            samples = []  # the reader tells which rows
    options = {"kind": "parquet", **_named(columns)} | ({"img2dataset": "1"} if held else {})
    paths = _place(samples, path, options, given)
    ranges = [(a, min(a + UNIT_ROWS, rows), 0) for a in range(0, rows, UNIT_ROWS)]
    return TablePlan(options, ranges, paths)
