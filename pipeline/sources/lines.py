"""Files of lines in byte ranges: jsonl, csv, tsv and URL lists, plain or compressed.

A range begins and ends at a record, so that ranges are read alone and together give every record
once. One pass over the file plans them: line breaks are counted in blocks, and only csv files with
quotes are looked at line by line, since a quoted field may hold line breaks.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np
from fastwarc.stream_io import ZstdReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

UNIT_ROWS = 10_000
MAX_LINE = 4 * 2**20
MAX_RECORD_LINES = 1000
_BLOCK = 4 * 2**20
csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged compressed file raises."""
_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bz2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class Line(NamedTuple):
    """A record of a file: the number of its first line (from 1), its bytes, what is wrong with it, its size."""

    number: int
    data: bytes
    error: str = ""
    size: int = 0


def compression(head: bytes) -> str:
    """``gzip``, ``bz2``, ``xz``, ``zstd`` or an empty string, by a file's first bytes."""
    kind = _MAGIC.get(head[:2], "")
    whole = {"gzip": b"\x1f\x8b\x08", "bz2": b"BZh", "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd"}
    return kind if kind and head.startswith(whole[kind]) else ""


def decompressed(handle: IO[bytes], kind: str) -> IO[bytes]:
    """``handle`` read through its compression."""
    if kind == "gzip":
        return cast(IO[bytes], gzip.open(handle))
    if kind == "bz2":
        return cast(IO[bytes], bz2.open(handle))
    if kind == "xz":
        return cast(IO[bytes], lzma.open(handle))
    return cast(IO[bytes], io.BufferedReader(_Raw(ZstdReader(handle)), 2**16)) if kind == "zstd" else handle


class _Raw(io.RawIOBase):
    """A reader that has only ``read(n)`` as a raw stream."""

    def __init__(self, inner: ZstdReader) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        into = memoryview(buffer)
        piece = self._inner.read(len(into))
        into[: len(piece)] = piece
        return len(piece)


def plan(handle: IO[bytes], delimiter: str, skip: int = 0, rows: int = UNIT_ROWS) -> list[tuple[int, int, int]]:
    """(first byte, end byte, number of the first line) of ranges of ``rows`` records each.

    ``skip`` bytes at the start (a mark, a header line) belong to no range. ``delimiter`` is that of a
    csv file, whose quoted fields may hold line breaks; else empty.
    """
    handle.seek(0)
    first = handle.read(skip).count(b"\n") + 1
    cuts = _quoted_cuts(handle, skip, first, rows, delimiter) if delimiter and _has_quote(handle, skip) else None
    if cuts is None:
        handle.seek(skip)
        cuts = _cuts(handle, skip, first, rows)
    size = handle.seek(0, io.SEEK_END)
    edges = [(skip, first), *[c for c in cuts if c[0] < size], (size, 0)]
    return [(a, b, line) for (a, line), (b, _) in pairwise(edges) if b > a]


def _has_quote(handle: IO[bytes], skip: int) -> bool:
    handle.seek(skip)
    while block := handle.read(_BLOCK):
        if b'"' in block:
            return True
    return False


def _cuts(handle: IO[bytes], at: int, line: int, rows: int) -> list[tuple[int, int]]:
    cuts, within = [], 0
    while block := handle.read(_BLOCK):
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
        for i in range(rows - within - 1, len(ends), rows):
            cuts.append((at + int(ends[i]) + 1, line + i + 1))
        within = (within + len(ends)) % rows
        at, line = at + len(block), line + len(ends)
    return cuts


def _quoted_cuts(handle: IO[bytes], at: int, line: int, rows: int, delimiter: str) -> list[tuple[int, int]]:
    handle.seek(at)
    cuts, offset = [], at
    for n, record in enumerate(csv_records(handle, line, -1, delimiter)):
        if n and n % rows == 0:
            cuts.append((offset, record.number))
        offset += record.size
    return cuts


def lines(handle: IO[bytes], end: int, number: int) -> Iterator[Line]:
    """The lines from where ``handle`` stands to byte ``end`` (-1: to the end), with their line breaks.

    A line of more than 4 MiB is passed over and told as an error.
    """
    at = handle.tell() if end >= 0 else 0
    while end < 0 or at < end:
        data = handle.readline(MAX_LINE + 1)
        if not data:
            return
        size = len(data)
        error = ""
        if size > MAX_LINE:
            while not data.endswith(b"\n") and (data := handle.readline(MAX_LINE)):
                size += len(data)
            data, error = b"", f"the line has {size} bytes, at most {MAX_LINE} are read"
        yield Line(number, data, error, size)
        at, number = at + size, number + 1


def csv_records(handle: IO[bytes], number: int, end: int, delimiter: str) -> Iterator[Line]:
    """Records of a csv file: lines, joined while a quoted field is open.

    Where a quote does not close within 1,000 lines or 4 MiB, its first line is told as an error and
    reading goes on at the next line.
    """
    source = lines(handle, end, number)
    waiting: list[Line] = []
    while True:
        line = waiting.pop(0) if waiting else next(source, None)
        if line is None:
            return
        if line.error or b'"' not in line.data or not _open_quote(line.data, delimiter):
            yield line
            continue
        held, data, closed = [line], line.data, False
        while len(held) < MAX_RECORD_LINES and len(data) <= MAX_LINE:
            more = waiting.pop(0) if waiting else next(source, None)
            if more is None:
                break
            held.append(more)
            data += more.data
            if more.error:
                break
            # Only a line with a quote in it can close the field.
            if b'"' in more.data and not _open_quote(data, delimiter):
                closed = True
                break
        if closed:
            yield Line(line.number, data, size=len(data))
        else:
            waiting = held[1:] + waiting
            yield Line(line.number, line.data, "a quoted field opens here and does not close", line.size)


def _open_quote(record: bytes, delimiter: str) -> bool:
    """Whether a quoted field is still open at the end of ``record``; latin-1 keeps any bytes apart.

    Python's csv in strict mode tells an open quote from other faults; a quote within an unquoted field
    is a letter like any other.
    """
    try:
        next(csv.reader(io.StringIO(record.decode("latin-1"), newline=""), delimiter=delimiter, strict=True), None)
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False
