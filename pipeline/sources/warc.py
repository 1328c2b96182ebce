"""WARC (and old ARC) files: the HTML responses in them, page by page.

Records are streamed by fastwarc; a file that breaks off gives all pairs before the break and one
failed row that says where it broke. A large file is cut into byte ranges; a record belongs to the
range in which it starts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from .. import files
from ..units import Unit
from . import charset, html
from .rows import Pair, failure

SPLIT_BYTES = 256 * 2**20
MAX_PAGE = 32 * 2**20
"""Bytes of one page that are read: more is no page that a person reads."""

_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|meta|title|div|p|img|table|a)[\s>/]", re.IGNORECASE)
_MEMBER = b"\x1f\x8b\x08"


def read(unit: Unit) -> Iterator[Pair]:
    """The pairs of the records that start in the unit's byte range."""
    for name in unit.files:
        path = files.join(unit.root, name) if name else unit.root
        shown = name or unit.root.rstrip("/").rsplit("/", 1)[-1]
        with files.open_read(path) as raw:
            if _is_arc(raw):
                yield from _pages(_arc_records(raw, shown), shown)
                continue
            start = first_record(raw, unit.start)
            if start is None or (unit.end >= 0 and start >= unit.end):
                continue
            raw.seek(start)
            yield from _pages(_records(raw, shown, start, unit.end), shown)


def first_record(raw: IO[bytes], start: int) -> int | None:
    """Offset of the first record at or after ``start``; None where there is none.

    In a compressed file that is a gzip member whose contents begin with ``WARC/``, else a line that does.
    """
    if start == 0:
        return 0
    raw.seek(0)
    compressed = raw.read(3) == _MEMBER
    mark = _MEMBER if compressed else b"\r\n\r\nWARC/1."
    at, held = start if compressed else max(0, start - 4), b""
    while True:
        raw.seek(at + len(held))
        more = raw.read(1 << 20)
        held += more
        where = held.find(mark)
        while where >= 0:
            if not compressed:
                return at + where + 4
            if _begins_record(raw, at + where):
                return at + where
            where = held.find(mark, where + 1)
        if not more:
            return None
        at, held = at + max(0, len(held) - len(mark)), held[-len(mark) :]


def _begins_record(raw: IO[bytes], at: int) -> bool:
    raw.seek(at)
    try:
        return zlib.decompressobj(31).decompress(raw.read(4096), 16).startswith(b"WARC/")
    except zlib.error:
        return False


def _is_arc(raw: IO[bytes]) -> bool:
    raw.seek(0)
    head = raw.read(512)
    raw.seek(0)
    if head.startswith(_MEMBER):
        try:
            head = zlib.decompressobj(31).decompress(head, 64)
        except zlib.error:
            return False
    return head.startswith(b"filedesc://")


def _records(raw: IO[bytes], shown: str, start: int, end: int) -> Iterator[tuple[str, str, bytes] | Pair]:
    """(page URL, content type, body) of each HTML response, or a failed row where the file breaks."""
    place, count = start, 0
    try:
        for record in ArchiveIterator(raw, record_types=WarcRecordType.any_type, parse_http=True, strict_mode=False):
            place = start + int(record.stream_pos)
            if 0 <= end <= place:
                return
            count += 1
            page = _html_response(record)
            if page:
                yield page
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        yield failure(f"{shown}#{place}#0", "broken_archive", _broken(str(error), place, count))
        return
    # The parser takes the end of the file for the end of the archive; whether it was is seen at the last record.
    broken = _tail(raw, place)
    if broken:
        yield failure(f"{shown}#{place}#0", "broken_archive", _broken(broken, place, count))


def _html_response(record: Any) -> tuple[str, str, bytes] | None:
    if record.record_type not in (WarcRecordType.response, WarcRecordType.resource):
        return None
    http = record.http_headers
    if http is not None and http.status_code and not 200 <= http.status_code < 300:
        return None
    kind = (record.http_content_type if http is not None else record.headers.get("Content-Type")) or ""
    if kind and "html" not in kind and not kind.startswith(("text/plain", "application/octet-stream")):
        return None
    body = record.reader.read(MAX_PAGE)
    if not _HTML.search(body[:4096]):
        return None
    header = http.get("Content-Type", "") if http is not None else ""
    return record.headers.get("WARC-Target-URI", "").strip("<>"), header, body


def _tail(raw: IO[bytes], place: int) -> str | None:
    """What is wrong with the record at ``place``, taken to be the file's last; None where it is whole."""
    raw.seek(place)
    head = raw.read(1 << 16)
    if head.startswith(_MEMBER):
        member = zlib.decompressobj(31)
        try:
            while head and not member.eof:
                member.decompress(head)
                head = member.unused_data if member.eof else raw.read(1 << 20)
        except zlib.error as error:
            return str(error)
        if not member.eof:
            return "the file ends inside a compressed record"
        return None if not head.strip(b"\0\r\n") else f"{len(head)} bytes follow that are no record"
    length = re.search(rb"\r\nContent-Length:\s*(\d+)", head, re.IGNORECASE)
    body = head.find(b"\r\n\r\n")
    raw.seek(0, 2)
    if not head.startswith(b"WARC/") or length is None or body < 0:
        return f"given {head[:40]!r}"
    short = place + body + 4 + int(length.group(1)) - raw.tell()
    return f"the file ends {short} bytes before the end of the record" if short > 0 else None


def _arc_records(raw: IO[bytes], shown: str) -> Iterator[tuple[str, str, bytes] | Pair]:
    from warcio.archiveiterator import ArchiveIterator as Warcio
    from warcio.exceptions import ArchiveLoadFailed

    count = 0
    try:
        for record in Warcio(raw, arc2warc=True):
            count += 1
            if record.rec_type != "response" or record.http_headers is None:
                continue
            header = record.http_headers.get_header("Content-Type") or ""
            body = record.content_stream().read(MAX_PAGE)
            if "html" in header and _HTML.search(body[:4096]):
                yield record.rec_headers.get_header("WARC-Target-URI") or "", header, body
    except (ArchiveLoadFailed, OSError, EOFError, ValueError) as error:
        yield failure(f"{shown}#{count}#0", "broken_archive", _broken(str(error), 0, count))


def _broken(error: str, place: int, count: int) -> str:
    return (
        f"the archive cannot be read on after byte {place} ({count} records before it were): {error}; "
        "expected a WARC record there. What came before is used; fetch the file again for the rest."
    )


def _pages(records: Iterator[tuple[str, str, bytes] | Pair], shown: str) -> Iterator[Pair]:
    for number, record in enumerate(records):
        if isinstance(record, Pair):
            yield record
            continue
        url, header, body = record
        yield from page_pairs(body, f"{shown}#{number}", url or None, header)


def page_pairs(body: bytes, origin: str, url: str | None, header: str = "") -> Iterator[Pair]:
    """The pairs of one page; ``origin`` names file and record."""
    text, _ = charset.decode(body, header)
    found, page = html.extract(text, url)
    for k, one in enumerate(found):
        yield Pair(
            origin=f"{origin}#{k}",
            caption=one.caption,
            caption_origin=one.caption_origin,
            image_url=one.url or None,
            page_url=page,
            failure=one.failure,
            detail=one.detail,
        )
