"""HTTP responses as archives keep them: header and body apart, body decoded.

Archives disagree with their headers often (payloads kept decoded under ``Content-Encoding: gzip``,
chunked bodies without chunks, bodies cut at a size limit), so that content goes before header and
what can be read of a damaged body is used.
"""

from __future__ import annotations

import io
import re
from email.message import Message
from typing import NamedTuple, Protocol

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader, ZstdReader

MAX_BODY = 64 * 2**20
_BLANK = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}[ \t]*(?:;[^\r\n]*)?\r?\n")
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    rb"<(?:!doctype\s+html|html|head|body|meta|title|link|script|base|style|table|div|center|p|img|figure)\b",
    re.I | re.S,
)
_STEP = 2**18


class _Reader(Protocol):
    def read(self, size: int = -1) -> bytes: ...


class Response(NamedTuple):
    """An HTTP response: status (0 where there is no status line), media type and charset as sent, decoded body."""

    status: int
    media_type: str
    charset: str | None
    body: bytes


def parse(raw: bytes) -> Response | None:
    """The response of a record's block, or None where the header does not end."""
    blank = _BLANK.search(raw, 0, 2**18)
    if blank is None:
        return None
    first, *lines = raw[: blank.start()].decode("latin-1").split("\n")
    status = re.match(r"HTTP/[\d.]+\s+(\d{3})", first)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    media_type, charset = content_type(headers.get("content-type", ""))
    body = unwrap(raw[blank.end() :], headers.get("transfer-encoding", ""), headers.get("content-encoding", ""))
    return Response(int(status[1]) if status else 0, media_type, charset, body)


def content_type(value: str) -> tuple[str, str | None]:
    """Media type and charset of a Content-Type header.

    >>> content_type('text/html; charset="GB2312"')
    ('text/html', 'GB2312')
    """
    message = Message()
    message["content-type"] = value.replace("\r", " ").replace("\n", " ")
    charset = message.get_param("charset")
    return value.split(";")[0].strip().lower(), charset if isinstance(charset, str) and charset else None


def unwrap(body: bytes, transfer: str, content: str) -> bytes:
    """``body`` without chunks and compression; at most 64 MiB, and as far as it can be read."""
    if "chunked" in transfer.lower() and _CHUNK.match(body):
        body = _drain(ChunkedReader(io.BytesIO(body))) or body
    for coding in reversed([c.strip().lower() for c in content.split(",")]):
        if body[:2] == b"\x1f\x8b":
            body = _drain(GzipReader(io.BytesIO(body))) or body
        elif body[:4] == b"\x28\xb5\x2f\xfd":
            body = _drain(ZstdReader(io.BytesIO(body))) or body
        elif coding == "deflate" and body[:1] == b"\x78":
            body = _drain(GzipReader(io.BytesIO(body), zlib=True)) or body
        elif coding == "br" and not looks_like_html(body):
            body = _drain(BrotliReader(io.BytesIO(body))) or body
    return body


def looks_like_html(body: bytes) -> bool:
    """Whether the first bytes open a page."""
    return bool(_HTML.match(body[:4096])) or body[:2] in (b"\xff\xfe", b"\xfe\xff")


def is_page(media_type: str, body: bytes) -> bool:
    """Whether a body is HTML: by its content, or by its header where the content is text that shows tags."""
    if looks_like_html(body):
        return True
    return media_type in ("text/html", "application/xhtml+xml", "") and b"\0" not in body[:512] and b"<" in body[:65536]


def _drain(reader: _Reader) -> bytes:
    """All bytes of ``reader`` until it ends, breaks, or has given 64 MiB."""
    pieces: list[bytes] = []
    size = 0
    while size < MAX_BODY:
        try:
            piece = reader.read(_STEP)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
