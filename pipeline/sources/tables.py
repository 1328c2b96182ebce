"""Pairs of tables: jsonl, csv, tsv and URL lists by lines; a JSON array; parquet by rows.

A value of the image column is an http(s) URL, a path (relative to the table's folder, or to
``--input images=FOLDER``), a URL of another file system (``s3://…``), or the bytes themselves as
Hugging Face datasets keep them. A caption column that holds lists gives one pair per caption.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from . import where
from .lines import Line, csv_records, decompressed, lines
from .rows import MAX_FILE, Pair, Reason
from .sidecars import from_name
from .urls import resolve

MAX_JSON = 512 * 2**20


def line_pairs(root: str, file: str, start: int, end: int, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of a byte range of a jsonl, csv, tsv or URL list; ``options`` are those of its plan."""
    path, name = where.join(root, file), file or where.last(root)
    delimiter = options.get("delimiter", "")
    with where.open_binary(path) as handle:
        stream = decompressed(handle, options.get("packed", ""))
        if end < 0:
            stream.read(start)
        else:
            handle.seek(start)
        number = int(options.get("line", "1"))
        quoted = options["kind"] == "csv"
        found = csv_records(stream, number, end, delimiter) if quoted else lines(stream, end, number)
        yield from _records(found, name, where.folder(path), options)


def _records(found: Iterator[Line], name: str, folder: str, options: Mapping[str, str]) -> Iterator[Pair]:
    kind, encoding = options["kind"], options.get("encoding", "utf-8")
    header = json.loads(options.get("header", "[]"))
    for line in found:
        if not line.error and not line.data.strip():
            continue
        origin = f"{name}#{line.number}"
        error, values = line.error, None
        if not error:
            try:
                text = line.data.decode(encoding)
                if kind == "urls" and text.startswith("#"):
                    continue
                values = _values(text, kind, header, options.get("delimiter", ","))
            except UnicodeDecodeError as raised:
                error = f"its bytes are not {encoding} ({raised.reason} at byte {raised.start} of the line)"
            except (ValueError, RecursionError, csv.Error) as raised:
                error = f"{raised}"
        if values is None:
            shown = line.data[:80].decode(encoding, "replace").strip()
            detail = f"line {line.number} of {name} does not parse: {error}. It begins {shown!r}; mend or delete it"
            yield Pair(f"{origin}#0", reason="bad_line", detail=detail)
        else:
            yield from record_pairs(values, origin, folder, options)


def _values(text: str, kind: str, header: list[str], delimiter: str) -> dict[str, Any]:
    """A record's values by column; ValueError where it is not one."""
    if kind == "jsonl":
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected an object in braces, found {type(values).__name__}")
        return values
    if kind == "urls":
        url, _, caption = text.strip().replace("\t", " ").partition(" ")
        return {"url": url, "caption": caption.strip() or None}
    fields = _fields(text, delimiter)
    if len(fields) < len(header):
        raise ValueError(f"it has {len(fields)} fields, expected {len(header)} ({', '.join(header)[:80]})")
    return dict(zip(header, fields, strict=False))


def _fields(text: str, delimiter: str) -> list[str]:
    """The fields of a csv record or a tsv line.

    Most tsv files of pairs quote nothing, so that a quote there is a letter unless the whole line is
    properly quoted.
    """
    text = text.rstrip("\r\n")
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        if delimiter == "\t":
            return text.split(delimiter)
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def json_pairs(root: str, file: str, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of a file that is one JSON array of objects."""
    path, name = where.join(root, file), file or where.last(root)
    with where.open_binary(path) as handle:
        data = decompressed(handle, options.get("packed", "")).read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        detail = f"a JSON array of more than {MAX_JSON} bytes; write one object per line (jsonl)"
        yield Pair(f"{name}#0#0", reason="file_too_large", detail=detail)
        return
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        yield Pair(f"{name}#0#0", reason="bad_line", detail=f"{name} does not parse: {error}; mend it or use jsonl")
        return
    for n, values in enumerate(items):
        if isinstance(values, dict):
            yield from record_pairs(values, f"{name}#{n}", where.folder(path), options)
        else:
            detail = f"item {n} of {name} is {type(values).__name__}; expected an object in braces"
            yield Pair(f"{name}#{n}#0", reason="bad_line", detail=detail)


def parquet_pairs(root: str, file: str, start: int, end: int, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of rows ``start`` to ``end`` of a parquet file."""
    path, name = where.join(root, file), file or where.last(root)
    names = [options[role] for role in ("caption", "image", "page") if options.get(role)]
    with where.open_binary(path) as handle:
        try:
            table = pq.ParquetFile(handle)
            for at, batch in _row_batches(table, start, end, names):
                for n, values in enumerate(batch.to_pylist()):
                    yield from record_pairs(values, f"{name}#{at + n}", where.folder(path), options)
        except (pa.ArrowException, OSError) as error:
            detail = f"{name} cannot be read in rows {start} to {end}: {error}"
            yield Pair(f"{name}#{start}#broken", reason="file_unreadable", detail=detail)


def _row_batches(table: pq.ParquetFile, start: int, end: int, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of at most 256 rows within the range, with the number of their first row."""
    first = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if first < end and first + rows > start:
            at = first
            for batch in table.iter_batches(256, row_groups=[group], columns=names):
                a, b = max(start - at, 0), min(end - at, batch.num_rows)
                if a < b:
                    yield at + a, batch.slice(a, b - a)
                at += batch.num_rows
                if at >= end:
                    break
        first += rows


def record_pairs(values: Mapping[str, Any], origin: str, folder: str, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of one record: each of its images with each of its captions."""
    page = values.get(options.get("page", "")) or None
    blank = Pair(origin, caption_origin="column", page_url=page if isinstance(page, str) else None)
    images = [_with_image(blank, v, folder, options) for v in _listed(values.get(options["image"]))]
    captions = [_with_caption(c, options["caption"]) for c in _listed(values.get(options["caption"]))]
    if options["kind"] == "urls" and captions[0][0] is None:
        captions = [_bare(values["url"], options)]
    n = 0
    for pair in images:
        for caption, why in captions:
            if caption is None and pair.reason is None:
                pair = pair._replace(reason="caption_missing", detail=why)
            yield pair._replace(origin=f"{origin}#{n}", caption=caption)
            n += 1


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value or [None]
    return [value]


def _with_caption(value: Any, column: str) -> tuple[str | None, str]:
    if isinstance(value, str):
        return value, ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), ""
    held = "nothing" if value is None else type(value).__name__
    return None, f"column {column!r} holds {held} here; expected a text"


def _bare(url: str, options: Mapping[str, str]) -> tuple[str | None, str]:
    """The caption of a URL that came without one: its file name, if that was asked for."""
    if options.get("from_name"):
        return from_name(unquote(url.split("?")[0].split("#")[0])), ""
    return None, (
        "a bare URL has no caption. Write lines of 'URL caption', or take the caption from the file's name with "
        "--input caption=filename; to get pairs from pages, use `curate crawl`"
    )


def _with_image(blank: Pair, value: Any, folder: str, options: Mapping[str, str]) -> Pair:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("url") or value.get("path")
    if isinstance(value, bytes):
        return blank._replace(image=value) if len(value) <= MAX_FILE else _too_large(blank, len(value))
    if not isinstance(value, str) or not value.strip():
        held = "nothing" if value is None or value == "" else repr(value)[:40]
        detail = f"column {options['image']!r} holds {held} here; expected a URL or a path"
        return blank._replace(reason="image_missing", detail=detail)
    text = value.strip()
    if text.lower().startswith(("http:", "https:", "//", "data:")):
        found = resolve(text)
        return blank._replace(image_url=found.url, reason=found.reason, detail=found.detail)
    return _from_file(blank, text, folder, options.get("images", ""))


def _from_file(blank: Pair, value: str, folder: str, images: str) -> Pair:
    base = images if images.startswith("/") or where.is_remote(images) else where.join(folder, images)
    path = where.normal(value) if value.startswith(("/", "file://")) or where.is_remote(value) else f"{base}/{value}"
    reason: Reason = "image_missing"
    try:
        data = where.read_at_most(path, MAX_FILE)
        return blank._replace(image=data) if data is not None else _too_large(blank, where.size(path))
    except FileNotFoundError:
        shown = f"{images}/{value}" if images else value
        detail = f"{shown} is not there; paths are read relative to the table, or to --input images=FOLDER"
    except (OSError, ValueError) as error:
        reason = "file_unreadable"
        detail = f"{value}: {where.explain(error)}"
    return blank._replace(reason=reason, detail=detail)


def _too_large(blank: Pair, size: int) -> Pair:
    return blank._replace(reason="image_too_large", detail=f"the image has {size} bytes, at most {MAX_FILE} are read")
