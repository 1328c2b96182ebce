"""What kind of file some bytes are, by their content; names and Content-Type are never trusted.

Signatures are those of the formats' own specifications.
"""

from __future__ import annotations

import re

IMAGE = frozenset(("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heif", "jp2", "jxl", "ico", "psd", "svg"))
"""Kinds that are images, whether or not they can be decoded here."""

_PREFIXES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"8BPS", "psd"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"%!PS", "postscript"),
)
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MARKUP = re.compile(rb"<(?:!doctype|html|head|body|title|script|meta|div|p|h1|a|\?xml|!--|\w+:?\w*[\s>/])", re.I)
_TEXT_BYTES = bytes(range(32, 127)) + b"\t\n\r\f\x1b" + bytes(range(128, 256))


def sniff(data: bytes) -> str | None:
    """The kind of ``data``: an image kind, ``html``, ``text``, ``pdf``, …, or None where nothing fits.

    Bytes without a known signature that hold no control characters count as text: an image does.
    """
    for prefix, kind in _PREFIXES:
        if data.startswith(prefix):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _brand(data)
    if data[:2] == b"BM" and len(data) >= 18 and 12 <= int.from_bytes(data[14:18], "little") <= 256:
        return "bmp"
    if data[:4] == b"\0\0\1\0" and 0 < int.from_bytes(data[4:6], "little") < 256:
        return "ico"
    return _text(data[:1024])


def _brand(data: bytes) -> str:
    """The kind of an ISO base media file, by its major and compatible brands."""
    size = min(max(int.from_bytes(data[:4], "big"), 16), 256, len(data))
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, size - 3, 4))]
    if any(b in _AVIF for b in brands):
        return "avif"
    return "heif" if any(b in _HEIF for b in brands) else "video"


def _text(head: bytes) -> str | None:
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head or head.translate(None, _TEXT_BYTES):
        return None
    if b"<svg" in head[:1024].lower():
        return "svg"
    return "html" if _MARKUP.match(head) else "text"
