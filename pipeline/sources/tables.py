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
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from . import where
from .img2dataset import failed
from .lines import UNPACKING, Line, csv_records, decompressed, lines
from .rows import MAX_FILE, Pair, Reason
from .sidecars import from_name
from .urls import resolve

MAX_JSON = 512 * 2**20


def line_pairs(root: str, file: str, start: int, end: int, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of a byte range of a jsonl, csv, tsv or URL list; ``options`` are those of its plan."""
    path, name = where.join(root, file), file or where.last(root)
    delimiter, packed = options.get("delimiter", ""), options.get("packed", "")
    with where.open_binary(path) as handle:
        number = int(options.get("line", "1"))
        stream = decompressed(handle, packed)
        quoted = options["kind"] == "csv"
        found = csv_records(stream, number, end, delimiter) if quoted else lines(stream, end, number)
        try:
            if packed:
                stream.read(start)
            else:
                handle.seek(start)
            yield from _records(found, name, where.folder(path), options)
        except UNPACKING as error:
            if not packed:
                raise
            detail = f"{name} cannot be unpacked to its end: {where.explain(error)}. Fetch it again if it was cut"
            yield Pair(f"{name}#{start}#broken", reason="broken_archive", detail=detail)


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
        try:
            data = decompressed(handle, options.get("packed", "")).read(MAX_JSON + 1)
        except UNPACKING as error:
            detail = f"{name} cannot be unpacked: {where.explain(error)}. Fetch it again if it was cut"
            yield Pair(f"{name}#0#broken", reason="broken_archive", detail=detail)
            return
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
    made = bool(options.get("img2dataset"))
    names += [name for name in ("url", "key", "status", "error_message") if made and name not in names]
    read = start
    with where.open_binary(path) as handle:
        try:
            for at, batch in _row_batches(pq.ParquetFile(handle), start, end, names):
                for n, values in enumerate(_row_values(batch)):
                    if isinstance(values, str):
                        yield Pair(f"{name}#{at + n}#0", reason="bad_line", detail=f"the row does not parse: {values}")
                    elif made and values["status"] != "success":
                        yield failed(values, f"{name}#{at + n}#0", names)
                    else:
                        source = resolve(values["url"]).url if made and values["url"] else None
                        for pair in record_pairs(values, f"{name}#{at + n}", where.folder(path), options):
                            yield pair._replace(image_url=source) if made else pair
                read = at + batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            for row in range(read, end):
                detail = f"row {row} of {name} cannot be read: {error}. Fetch the file again if it was cut"
                yield Pair(f"{name}#{row}#0", reason="file_unreadable", detail=detail)


def _row_values(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """The rows of a batch; for a row that does not convert (text that is not UTF-8) the error's message."""
    try:
        return list(batch.to_pylist())
    except (pa.ArrowException, ValueError) as error:
        if batch.num_rows == 1:
            return [str(error)]
    return [values for row in range(batch.num_rows) for values in _row_values(batch.slice(row, 1))]


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


class _Image(NamedTuple):
    """An image as a table names it: its URL or its bytes, or why it has neither."""

    url: str | None = None
    data: bytes | None = None
    reason: Reason | None = None
    detail: str | None = None


def record_pairs(values: Mapping[str, Any], origin: str, folder: str, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of one record: each of its images with each of its captions."""
    told = values.get(options["page"]) if "page" in options else None
    page = told if isinstance(told, str) and told else None
    images = [_image(v, folder, options) for v in _listed(values.get(options["image"]))]
    captions = [_caption(c, options["caption"]) for c in _listed(values.get(options["caption"]))]
    if options["kind"] == "urls" and captions[0][0] is None:
        captions = [_bare(values["url"], options)]
    n = 0
    for url, data, reason, detail in images:
        for caption, why in captions:
            missing = caption is None and reason is None
            verdict: tuple[Reason | None, str | None] = ("caption_missing", why) if missing else (reason, detail)
            yield Pair(f"{origin}#{n}", caption, "column", url, data, page, *verdict)
            n += 1


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value or [None]
    return [value]


def _caption(value: Any, column: str) -> tuple[str | None, str]:
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


def _image(value: Any, folder: str, options: Mapping[str, str]) -> _Image:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("url") or value.get("path")
    if isinstance(value, bytes):
        return _Image(data=value) if len(value) <= MAX_FILE else _too_large(len(value))
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        held = "nothing" if value is None or isinstance(value, str) else repr(value)[:40]
        return _Image(
            reason="image_missing",
            detail=f"column {options['image']!r} holds {held} here; expected a URL or a path",
        )
    if text[:6].lower().startswith(("http:", "https:", "//", "data:")):
        url, reason, detail = resolve(text)
        return _Image(url, None, reason, detail)
    return _file(text, folder, options.get("images", ""))


def _file(value: str, folder: str, images: str) -> _Image:
    base = images if images.startswith("/") or where.is_remote(images) else where.join(folder, images)
    path = where.normal(value) if value.startswith(("/", "file://")) or where.is_remote(value) else f"{base}/{value}"
    try:
        data = where.read_at_most(path, MAX_FILE)
    except FileNotFoundError:
        shown = f"{images}/{value}" if images else value
        detail = f"{shown} is not there; paths are read relative to the table, or to --input images=FOLDER"
        return _Image(reason="image_missing", detail=detail)
    except (OSError, ValueError, InputError) as error:
        return _Image(reason="file_unreadable", detail=f"{value}: {where.explain(error)}")
    if data is None:
        return _too_large(where.size(path))
    return _Image(data=data) if data else _Image(reason="image_empty", detail=f"{value} has no bytes; fetch it again")


def _too_large(size: int) -> _Image:
    return _Image(reason="image_too_large", detail=f"the image has {size} bytes, at most {MAX_FILE} are read")
