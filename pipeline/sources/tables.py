"""Tables of pairs: jsonl, csv, tsv, parquet and URL lists.

A row names its image by URL, by path (relative to the table's folder or to the option ``images``) or
holds its bytes. A caption column may hold a list: one pair per caption. Lines are read by byte
range, a line belonging to the range in which it starts.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from .. import files
from ..errors import InputError, nearest
from ..units import Unit
from . import html
from .images import MAX_IMAGE, read_image
from .names import BYTES_COLUMNS, CAPTION_COLUMNS, PAGE_COLUMNS, PATH_COLUMNS, URL_COLUMNS, pick
from .rows import Pair, failure

MAX_LINE = 16 * 2**20
"""Bytes of a line that are read; a longer one fails."""

Row = tuple[str, Mapping[str, Any] | Pair]


def read_jsonl(unit: Unit) -> Iterator[Pair]:
    """The pairs of the lines that start in the unit's byte range."""
    return _pairs(unit, _json_rows(unit))


def read_csv(unit: Unit) -> Iterator[Pair]:
    """The pairs of a csv or tsv file with a header line."""
    return _pairs(unit, _csv_rows(unit))


def read_parquet(unit: Unit) -> Iterator[Pair]:
    """The pairs of the unit's rows."""
    return _pairs(unit, _parquet_rows(unit))


def read_urls(unit: Unit) -> Iterator[Pair]:
    """The pairs of a URL list: an address a line, optionally a tab (or space) and its caption; # begins a comment.

    Without a caption the pair is read with an empty one (and the text stages drop it), unless the option
    ``caption=filename`` takes the last part of the address.
    """
    from_name = dict(unit.options).get("caption") == "filename"
    for number, line in _lines(unit):
        origin = f"{_shown(unit)}#{number}#0"
        text = line.decode("utf-8", "replace").strip()
        if not text or text.startswith("#"):
            continue
        address, _, caption = text.replace("\t", " ").partition(" ")
        if from_name and not caption:
            caption = address.split("?")[0].rstrip("/").rsplit("/", 1)[-1].rpartition(".")[0].replace("_", " ")
        url, reason, detail = html.resolve(address, None)
        if reason == "relative_url":
            reason, detail = "bad_url", f"given {address[:200]!r}: expected an address as in https://host/image.jpg"
        yield Pair(origin, caption.strip(), "column", url, failure=reason, detail=detail)


def columns_of(unit: Unit, names: Iterable[str]) -> tuple[str, str]:
    """The caption column and the image column among ``names``, as given in the options or recognised."""
    names, options = list(names), dict(unit.options)
    found = []
    for what, known in (("caption", CAPTION_COLUMNS), ("image", (*URL_COLUMNS, *PATH_COLUMNS, *BYTES_COLUMNS))):
        given = options.get(what)
        column = given if given in names else None if given else pick(names, known)
        if column is None:
            raise InputError(
                f"{_shown(unit)}: no {what} column"
                + (f" {given!r}; {nearest(given, names)}" if given else f" was recognised among: {', '.join(names)}.")
                + f" Say which it is with --input {what}=COLUMN; recognised names: {', '.join(known[:8])}, …"
            )
        found.append(column)
    return found[0], found[1]


def _pairs(unit: Unit, rows: Iterator[Row]) -> Iterator[Pair]:
    held: tuple[str, str] | None = None
    for place, row in rows:
        if isinstance(row, Pair):
            yield row
            continue
        if held is None or held[0] not in row or held[1] not in row:
            try:
                held = columns_of(unit, row)
            except InputError as error:
                yield failure(f"{place}#0", "column_missing", str(error))
                continue
        yield from _row_pairs(unit, place, row, *held)


def _row_pairs(unit: Unit, place: str, row: Mapping[str, Any], caption: str, image: str) -> Iterator[Pair]:
    told = row[caption]
    captions = [c for c in told if isinstance(c, str)] if isinstance(told, list | tuple) else [told]
    data, url, reason, detail = _image(unit, row[image])
    page = pick(row, PAGE_COLUMNS)
    for k, text in enumerate(captions or [None]):
        missing = text is None or (isinstance(text, float) and text != text)
        if not missing and not isinstance(text, str):
            text = str(text)
        yield Pair(
            origin=f"{place}#{k}",
            caption="" if missing else text,
            caption_origin="column",
            image_url=url,
            image=data,
            page_url=str(row[page]) if page and row[page] else None,
            failure=reason or ("caption_missing" if missing else None),
            detail=detail or (f"column {caption!r} is empty in this row" if missing else None),
        )


def _image(unit: Unit, value: Any) -> tuple[bytes | None, str | None, str | None, str | None]:
    """Bytes, URL, reason, detail of what an image column holds."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return (value, None, None, None) if value else (None, None, "image_empty", "the row holds no image bytes")
    if not isinstance(value, str) or not value.strip():
        return None, None, "image_missing", f"the row names no image (given {value!r})"
    value = value.strip()
    if "://" in value[:12] or value.startswith(("//", "data:", "http:", "https:")):
        url, reason, detail = html.resolve(value, None)
        return None, url, reason, detail
    folder = (files.join(unit.root, unit.files[0]) if unit.files[0] else unit.root).rpartition("/")[0] or "."
    root = dict(unit.options).get("images")
    tried = [files.join(folder, root), root] if root else [folder]
    for base in tried:
        data, reason, detail = read_image(value if value.startswith("/") else files.join(base, value), MAX_IMAGE)
        if reason != "image_missing":
            break
    if reason == "image_missing":
        detail = f"no file {value!r} in {' or '.join(tried)}; name the images' folder with --input images=FOLDER"
    return data, None, reason, detail


def _shown(unit: Unit) -> str:
    return unit.files[0] or unit.root.rstrip("/").rsplit("/", 1)[-1]


def _open(unit: Unit) -> IO[bytes]:
    return files.open_read(files.join(unit.root, unit.files[0]) if unit.files[0] else unit.root)


def _lines(unit: Unit) -> Iterator[tuple[int, bytes]]:
    """(offset, line) for each line that starts in the unit's byte range; over-long lines come cut."""
    with _open(unit) as handle:
        if unit.start:
            handle.seek(unit.start - 1)
            handle.readline()
        while True:
            at = handle.tell()
            if 0 <= unit.end <= at:
                return
            line = handle.readline(MAX_LINE + 1)
            if not line:
                return
            whole = line
            while len(whole) > MAX_LINE and not whole.endswith(b"\n"):
                whole = handle.readline(MAX_LINE + 1) or b"\n"
                whole = whole if whole.endswith(b"\n") or len(whole) > MAX_LINE else whole + b"\n"
            yield at, line


def _json_rows(unit: Unit) -> Iterator[Row]:
    for at, line in _lines(unit):
        place = f"{_shown(unit)}#{at}"
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            yield place, failure(f"{place}#0", "bad_line", f"the line at byte {at} is longer than {MAX_LINE} bytes")
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield place, failure(f"{place}#0", "bad_line", f"the line at byte {at} is not JSON: {error}", _head(line))
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            yield (
                place,
                failure(f"{place}#0", "bad_line", f"expected an object, given {type(row).__name__}", _head(line)),
            )


def _head(line: bytes) -> str:
    return line[:200].decode("utf-8", "replace").strip()


def _csv_rows(unit: Unit) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    tabs = dict(unit.options).get("separator") == "\t"
    with _open(unit) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
        # A quote inside a tab-separated caption is a quote; only commas need quoting to be told apart.
        reader = csv.reader((line.replace("\0", "\ufffd") for line in text), dialect="excel-tab" if tabs else "excel",
                            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)  # fmt: skip
        header: list[str] | None = None
        number = 0
        while True:
            number += 1
            place = f"{_shown(unit)}#{number}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, failure(f"{place}#0", "bad_line", f"row {number} is not csv: {error}")
                continue
            if header is None:
                header = cells
            elif len(cells) == len(header):
                yield place, dict(zip(header, cells, strict=True))
            elif cells:
                told = f"row {number} has {len(cells)} cells, the header has {len(header)}"
                yield place, failure(f"{place}#0", "bad_line", told, " ".join(cells)[:200])


def _parquet_rows(unit: Unit) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with _open(unit) as handle:
        table = pq.ParquetFile(handle)
        caption, image = columns_of(unit, table.schema_arrow.names)
        page = pick(table.schema_arrow.names, PAGE_COLUMNS)
        wanted = list(dict.fromkeys(c for c in (caption, image, page) if c))
        at = 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if at + rows > unit.start and (unit.end < 0 or at < unit.end):
                number = at
                for piece in table.iter_batches(64, row_groups=[group], columns=wanted):
                    for row in piece.to_pylist():
                        if unit.start <= number and (unit.end < 0 or number < unit.end):
                            yield f"{_shown(unit)}#{number}", row
                        number += 1
            at += rows
