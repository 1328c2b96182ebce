"""The WARC files of a crawl, which are also its memory.

Each exchange is written as one piece: request, response and metadata record (WARC 1.1, a gzip member each).
A kill can cut off the last piece only; opening the folder again cuts the file back to its last whole exchange
and finds what is there, so that a crawl goes on without asking for it again: links come from the stored pages.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

FILE_BYTES = 1 << 30
"""A file that has grown to this is followed by another (1 GiB, as the WARC guidelines and Common Crawl have it)."""

Headers = Sequence[tuple[str, str]]


@dataclass
class Exchange:
    """One request and its response, as they went over the wire; ``notes`` go into the metadata record."""

    url: str
    method: str
    sent: Headers
    status: int
    got: Headers
    body: bytes
    address: str | None = None
    notes: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    reserved: bool = False
    """The page reserved itself: its response is not written, the evidence in ``notes`` is."""


class Archive:
    """A folder of ``crawl-000000.warc.gz`` and so on, one writer at a time."""

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        self.folder, self.about = folder, about
        self.stored: dict[str, tuple[Path, int]] = {}
        self.reserved: set[str] = set()
        self.pages = 0
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._files():
            self._recover(path)
        self._handle: Any = None

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._files())

    def write(self, exchange: Exchange) -> None:
        """Append an exchange, unless its response is there already; whole before this returns."""
        url = exchange.url
        if url in self.stored or url in self.reserved:
            return
        piece = io.BytesIO()
        writer = WARCWriter(piece, gzip=True, warc_version="1.1")
        records: list[Any] = []
        offset = 0
        if not exchange.reserved:
            records += _http_records(writer, exchange)
        for record in records:
            if record.rec_type == "response":
                offset = piece.tell()
            writer.write_record(record)
        writer.write_record(_metadata(writer, exchange, records[-1] if records else None))
        handle, path = self._open()
        start = handle.tell()
        handle.write(piece.getvalue())
        handle.flush()
        if exchange.reserved:
            self.reserved.add(url)
            return
        self.stored[url] = (path, start + offset)
        self.pages += _is_page(exchange.status, exchange.got)

    def read(self, url: str) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Status, headers and body (as sent, compressed or not) of a stored response; None where there is none."""
        if url not in self.stored:
            return None
        path, offset = self.stored[url]
        if self._handle is not None:
            self._handle.flush()
        with path.open("rb") as handle:
            handle.seek(offset)
            record = next(iter(ArchiveIterator(handle)))
            headers = [(k, v) for k, v in record.http_headers.headers]
            return int(record.http_headers.get_statuscode()), headers, record.raw_stream.read()

    def close(self) -> None:
        """Close the file that is being written."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("crawl-*.warc.gz"))

    def _open(self) -> tuple[Any, Path]:
        held = self._files()
        if self._handle is None or held[-1].stat().st_size >= FILE_BYTES:
            self.close()
            path = self.folder / f"crawl-{len(held):06d}.warc.gz"
            self._handle = path.open("xb")
            writer = WARCWriter(self._handle, gzip=True, warc_version="1.1")
            writer.write_record(writer.create_warcinfo_record(path.name, dict(self.about)))
            held.append(path)
        return self._handle, held[-1]

    def _recover(self, path: Path) -> None:
        """Note the exchanges of ``path`` and cut off what follows the last whole one."""
        end, waiting = 0, None
        for offset, after, data in _members(path):
            try:
                record = next(iter(ArchiveIterator(io.BytesIO(data))), None)
            except (ArchiveLoadFailed, ValueError):
                break
            if record is None:
                break
            url = record.rec_headers.get_header("WARC-Target-URI")
            if record.rec_type == "response":
                waiting = (url, offset, _is_page(*_seen(record)))
            elif record.rec_type == "metadata":
                if waiting is not None:
                    self.stored[waiting[0]] = (path, waiting[1])
                    self.pages += waiting[2]
                else:
                    self.reserved.add(url)
                waiting = None
            if record.rec_type in ("metadata", "warcinfo"):
                end = after
        if end == 0:
            path.unlink()
        elif end < path.stat().st_size:
            with path.open("r+b") as handle:
                handle.truncate(end)


def _members(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Offset, end and decompressed content of the whole gzip members of ``path``, up to the first that is not."""
    with path.open("rb") as handle:
        start, held = 0, b""
        while True:
            member, pieces, used = zlib.decompressobj(31), [], 0
            try:
                while not member.eof:
                    held = held or handle.read(1 << 16)
                    if not held:
                        return
                    pieces.append(member.decompress(held))
                    used += len(held) - len(member.unused_data)
                    held = member.unused_data
            except zlib.error:
                return
            yield start, start + used, b"".join(pieces)
            start += used


def _seen(record: Any) -> tuple[int, list[tuple[str, str]]]:
    return int(record.http_headers.get_statuscode()), record.http_headers.headers


def _is_page(status: int, headers: Headers) -> bool:
    """Whether a response is a page and no redirect, robots.txt or error."""
    kind = next((v for k, v in headers if k.lower() == "content-type"), "")
    return 200 <= status < 300 and "html" in kind.lower()


def _http_records(writer: WARCWriter, exchange: Exchange) -> list[Any]:
    # The crawler hands over the body without its chunks, so a header that announces them would be untrue.
    got = [(k, v) for k, v in exchange.got if k.lower() not in ("transfer-encoding", "content-length")]
    got.append(("Content-Length", str(len(exchange.body))))
    address = {"WARC-IP-Address": exchange.address} if exchange.address else {}
    response = writer.create_warc_record(
        exchange.url,
        "response",
        payload=io.BytesIO(exchange.body),
        http_headers=StatusAndHeaders(f"{exchange.status} ", got, protocol="HTTP/1.1"),
        warc_headers_dict=address,
    )
    path = "/" + exchange.url.split("://", 1)[-1].partition("/")[2]
    request = writer.create_warc_record(
        exchange.url,
        "request",
        http_headers=StatusAndHeaders(f"{exchange.method} {path} HTTP/1.1", list(exchange.sent), is_http_request=True),
        warc_headers_dict={
            **address,
            "WARC-Concurrent-To": response.rec_headers.get_header("WARC-Record-ID"),
            "WARC-Date": response.rec_headers.get_header("WARC-Date"),
        },
    )
    return [request, response]


def _metadata(writer: WARCWriter, exchange: Exchange, response: Any) -> Any:
    """``application/warc-fields`` with what was noted of the exchange; ends it."""
    lines = []
    for name, values in exchange.notes.items():
        for value in [values] if isinstance(values, str) else values:
            lines.append(f"{name}: {' '.join(value.split())}")
    linked = {"WARC-Concurrent-To": response.rec_headers.get_header("WARC-Record-ID")} if response else {}
    return writer.create_warc_record(
        exchange.url,
        "metadata",
        payload=io.BytesIO(("\r\n".join(lines) + "\r\n").encode()),
        warc_content_type="application/warc-fields",
        warc_headers_dict=linked,
    )
