"""Pairs of the pages in an ARC file (the Internet Archive's format before WARC), compressed or not.

A record is a line ``URL IP date media-type length`` (version 2: more fields, length last) and that
many bytes. Where a line does not hold, reading goes on at the next line that does.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO

from .http_body import MAX_BODY, content_type, is_page, parse
from .lines import decompressed
from .pages import page_pairs
from .rows import Pair

_HEADER = re.compile(rb"(\S+:\S*) (\S+) (\d{8,}) (.+?) (\d+)\r?\n")


def arc_pairs(handle: IO[bytes], file: str, counts: Counter[str]) -> Iterator[Pair]:
    """The pairs of an ARC file; records are named by their offset in the uncompressed bytes."""
    compressed = handle.read(2) == b"\x1f\x8b"
    handle.seek(0)
    stream = decompressed(handle, "gzip") if compressed else handle
    offset = 0
    broken_at: int | None = None
    try:
        while line := stream.readline(65536):
            at, offset = offset, offset + len(line)
            if not line.strip():
                continue
            header = _HEADER.fullmatch(line)
            if header is None:
                if broken_at is None:
                    broken_at = at
                    yield _broken(file, at, f"expected 'URL IP date type length', found {line[:80]!r}")
                continue
            broken_at = None
            url, media_type, length = header[1].decode("utf-8", "replace"), header[4].decode("latin-1"), int(header[5])
            block = stream.read(min(length, MAX_BODY))
            left = length - len(block)
            while left > 0 and (skipped := len(stream.read(min(left, MAX_BODY)))):
                left -= skipped
            offset += length - left
            if not url.startswith(("filedesc:", "dns:")):
                yield from _record_pairs(block, url, media_type, f"{file}#{at}", counts)
            if left > 0:
                yield _broken(file, at, f"the record has {length - left} of {length} bytes")
    except (EOFError, OSError, zlib.error) as error:
        yield _broken(file, offset, str(error))


def _record_pairs(block: bytes, url: str, declared: str, origin: str, counts: Counter[str]) -> Iterator[Pair]:
    counts["records"] += 1
    media_type, charset = content_type(declared)
    body = block
    if block.startswith(b"HTTP/") and (response := parse(block)) is not None:
        if not 200 <= response.status < 300:
            counts["not_ok"] += 1
            return
        body, media_type, charset = response.body, response.media_type or media_type, response.charset
    if is_page(media_type, body):
        yield from page_pairs(body, url, charset, origin, counts)


def _broken(file: str, offset: int, why: str) -> Pair:
    detail = f"cannot be read at byte {offset}: {why}. Fetch the file again if it was cut"
    return Pair(f"{file}#{offset}#broken", reason="broken_archive", detail=detail)
