"""Pairs of the pages in a WARC file, compressed per record or not, whole or a range of its bytes.

A record belongs to the range in which its first byte lies; where a range begins, the next record is
found by what a record looks like. Records are named by the offset of that byte, so that a pair's
origin is the same however the file is cut. Where the file breaks, the readable records before and
after are used and the gap becomes one failed row.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from .http_body import MAX_BODY, is_page, parse
from .pages import page_pairs
from .rows import Pair

_WINDOW = 2**20
_OVERLAP = 4096
_MEMBER, _LINE = rb"\x1f\x8b\x08", rb"WARC/1\.[01]\r?\n"
_STARTS = {b"\x1f\x8b": re.compile(_MEMBER), b"WA": re.compile(_LINE)}
_ANY_START = re.compile(_MEMBER + b"|" + _LINE)
_MARK = b"WARC/1."


class Broken(NamedTuple):
    """A place where the file cannot be read on."""

    offset: int
    error: str


class Record(NamedTuple):
    """A record that can hold a page: offset, type, target URL, declared media type, block, whether it is whole."""

    offset: int
    kind: WarcRecordType
    url: str
    media_type: str
    block: bytes
    whole: bool


def warc_pairs(handle: IO[bytes], file: str, start: int, end: int, counts: Counter[str]) -> Iterator[Pair]:
    """The pairs of the records that begin in bytes ``start`` to ``end`` (-1: to the end) of ``file``."""
    for item in records(handle, start, end):
        if isinstance(item, Broken):
            detail = f"cannot be read on after byte {item.offset}: {item.error}. Fetch the file again if it was cut"
            yield Pair(f"{file}#{item.offset}#broken", reason="broken_archive", detail=detail)
        else:
            yield from _record_pairs(item, file, counts)


def records(handle: IO[bytes], start: int = 0, end: int = -1) -> Iterator[Record | Broken]:
    """Response and resource records that begin within the range, and the places where the file breaks."""
    at = 0 if start == 0 else next_record(handle, start)
    while at is not None and (end < 0 or at < end):
        good: int | None = None
        error = ""
        try:
            for offset, item in _run(handle, at, end):
                if isinstance(item, Broken):
                    yield item
                    good = offset
                    error = ""
                    break
                good = offset
                if item is not None:
                    yield item
            else:
                return
        except (OSError, ValueError) as raised:
            error = str(raised) or type(raised).__name__
        following = next_record(handle, (at if good is None else good) + 1)
        if error and (good is None or following is None or _begins_well(handle, following)):
            yield Broken(at if good is None else good, error)
        at = following


def next_record(handle: IO[bytes], at: int, within: int = sys.maxsize) -> int | None:
    """The offset of the first record that begins in the ``within`` bytes from ``at`` on; None if there is none."""
    handle.seek(0)
    # A compressed file may hold plain records within a member, and a plain one a compressed file as payload.
    start = _STARTS.get(handle.read(2), _ANY_START)
    position = at
    while position - at < within:
        handle.seek(position)
        window = handle.read(_WINDOW + _OVERLAP)
        for found in start.finditer(window, 0, min(len(window), _WINDOW + len(_MARK) + 3)):
            if found.start() < _WINDOW and _is_record(handle, window, found.start(), position):
                return position + found.start()
        if len(window) < _WINDOW + _OVERLAP:
            return None
        position += _WINDOW
    return None


def _is_record(handle: IO[bytes], window: bytes, index: int, position: int) -> bool:
    """Whether a record begins at ``window[index]``: a gzip member that opens with one, or a header after a line."""
    head = window[index : index + _OVERLAP]
    if head[:1] == b"\x1f":
        try:
            head = zlib.decompressobj(31).decompress(head, 1024)
        except zlib.error:
            return False
        return head.startswith(_MARK)
    if index:
        before = window[index - 1 : index]
    elif position:
        handle.seek(position - 1)
        before = handle.read(1)
    else:
        before = b"\n"
    lines = head.lower().split(b"\n\r\n")[0].split(b"\n\n")[0]
    return before == b"\n" and b"\nwarc-type:" in lines and b"\ncontent-length:" in lines


def _run(handle: IO[bytes], at: int, end: int) -> Iterator[tuple[int, Record | Broken | None]]:
    """Offset and record, from ``at`` on, until the file or the range ends or something breaks."""
    handle.seek(at)
    wanted = WarcRecordType.response | WarcRecordType.resource
    for record in ArchiveIterator(handle, parse_http=False):
        offset = int(record.stream_pos)
        if end >= 0 and offset >= end:
            return
        if record.record_type == WarcRecordType.unknown and not record.content_length:
            yield offset, Broken(offset, "the header of the record is cut off")
            return
        pages = bool(record.record_type & wanted)
        block = record.reader.read(MAX_BODY) if pages else b""
        read = len(block) + record.reader.consume()
        whole = read >= record.content_length
        yield offset, _record(record, offset, block, whole) if pages else None
        if not whole:
            missing = f"the record has {read} of {record.content_length} bytes"
            yield offset, Broken(offset, missing)
            return


def _record(record: WarcRecord, offset: int, block: bytes, whole: bool) -> Record:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    return Record(offset, record.record_type, url, record.headers.get("Content-Type") or "", block, whole)


def _begins_well(handle: IO[bytes], at: int) -> bool:
    try:
        return next(_run(handle, at, -1), None) is not None
    except (OSError, ValueError):
        return False


def _record_pairs(record: Record, file: str, counts: Counter[str]) -> Iterator[Pair]:
    origin = f"{file}#{record.offset}"
    counts["records"] += 1
    body, media_type, charset = record.block, record.media_type.split(";")[0].strip().lower(), None
    if record.kind == WarcRecordType.response:
        response = parse(record.block)
        if response is None and not record.whole:
            return
        if response is None:
            detail = "the HTTP header of the record does not end"
            yield Pair(f"{origin}#0", page_url=record.url, reason="broken_archive", detail=detail)
            return
        if response.status and not 200 <= response.status < 300:
            counts["not_ok"] += 1
            return
        body, media_type, charset = response.body, response.media_type, response.charset
    if is_page(media_type, body):
        yield from page_pairs(body, record.url or None, charset, origin, counts)
