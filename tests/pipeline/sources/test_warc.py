from __future__ import annotations

import gzip
import io
import itertools
import random
import zlib
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.stream_io import BrotliWriter

from tuwen.pipeline.sources.http_body import content_type, is_page, parse, unwrap
from tuwen.pipeline.sources.warc import Broken, Record, next_record, records, warc_pairs

PAGE = "<html><body><img src=/{n}.jpg alt=第{n}张红色的图></body></html>"


def record(
    n: int, body: bytes | None = None, kind: str = "response", head: str = "Content-Type: text/html", status: int = 200
) -> bytes:
    block = PAGE.format(n=n).encode() if body is None else body
    if kind == "response":
        block = f"HTTP/1.1 {status} OK\r\n{head}\r\n\r\n".encode() + block
    fields = f"WARC-Type: {kind}\r\nWARC-Record-ID: <urn:x:{n}>\r\nWARC-Target-URI: <http://p.example/{n}.html>\r\n"
    if kind == "resource":
        fields += "Content-Type: text/html\r\n"
    return f"WARC/1.0\r\n{fields}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def archive(n: int, packed: bool) -> bytes:
    seeded = random.Random(3)
    pieces = []
    for i in range(n):
        noise = seeded.randbytes(seeded.randrange(1, 3000)).hex().encode()
        pieces.append(record(i, b"url=http://x/", "request"))
        pieces.append(record(i, PAGE.format(n=i).encode() + b"<!--" + noise + b"-->"))
    return b"".join(map(gzip.compress, pieces)) if packed else b"".join(pieces)


def brotli(data: bytes) -> bytes:
    out = io.BytesIO()
    writer = BrotliWriter(out)
    writer.write(data)
    writer.close()
    return out.getvalue()


def urls(data: bytes, start: int = 0, end: int = -1) -> list[str | None]:
    return [p.image_url or p.reason for p in warc_pairs(io.BytesIO(data), "a.warc", start, end, Counter())]


@pytest.mark.parametrize("packed", [True, False])
def test_ranges_give_every_record_once(packed: bool) -> None:
    data = archive(40, packed)
    whole = list(warc_pairs(io.BytesIO(data), "a.warc", 0, -1, Counter()))
    assert [p.image_url for p in whole] == [f"http://p.example/{i}.jpg" for i in range(40)]
    assert whole[7].page_url == "http://p.example/7.html"
    for step in (1000, 7777, len(data) // 2, len(data) + 5):
        edges = [*range(0, len(data), step), -1]
        parts = [list(warc_pairs(io.BytesIO(data), "a.warc", a, b, Counter())) for a, b in itertools.pairwise(edges)]
        assert list(itertools.chain(*parts)) == whole


@pytest.mark.parametrize("packed", [True, False])
def test_ranges_agree_on_a_damaged_file(packed: bool) -> None:
    data = bytearray(archive(30, packed))
    third = len(data) // 3
    at = next_record(io.BytesIO(data), third)
    assert at is not None
    data[at : at + 40] = b"\xaa" * 40
    data = data[:-700]
    whole = urls(bytes(data))
    assert whole.count("broken_archive") == 2
    assert len(whole) >= 28
    for step in (900, 5000, at, at + 1):
        edges = [*range(0, len(data), step), -1]
        assert [u for a, b in itertools.pairwise(edges) for u in urls(bytes(data), a, b)] == whole


@pytest.mark.parametrize("packed", [True, False])
def test_a_cut_tail_is_one_row_and_loses_nothing_before(packed: bool) -> None:
    data = archive(5, packed)
    start = next_record(io.BytesIO(data), len(data) - 1500)
    last = len(data) if start is None else start
    for cut in range(last, len(data), 97):
        found = urls(data[:cut])
        assert [u for u in found if u != "broken_archive"][:4] == [f"http://p.example/{i}.jpg" for i in range(4)]
        assert found.count("broken_archive") <= 1
    assert urls(data[:-30]).count("broken_archive") == 1


def test_garbage_is_one_row() -> None:
    (pair,) = warc_pairs(io.BytesIO(b"no archive at all\n" * 30), "a.warc", 0, -1, Counter())
    assert (pair.origin, pair.reason) == ("a.warc#0#broken", "broken_archive")
    (broken,) = records(io.BytesIO(gzip.compress(b"no archive at all")))
    assert isinstance(broken, Broken)


def test_a_header_in_a_payload_is_no_record() -> None:
    inner = b"<p>\nWARC/1.0\r\nis a format</p>" + PAGE.format(n=1).encode()
    data = record(1, inner) + record(2)
    assert next_record(io.BytesIO(data), 1) == len(record(1, inner))
    assert urls(data) == ["http://p.example/1.jpg", "http://p.example/2.jpg"]


def test_what_is_no_page_is_counted_and_no_row() -> None:
    data = b"".join(
        [
            record(1, status=404),
            record(2, b"\x89PNG\r\n\x1a\n\0\0<html>", head="Content-Type: image/png"),
            record(3, b"%PDF-1.4 <html>", head="Content-Type: application/pdf"),
            record(4, kind="resource"),
            record(5, head="Content-Type: application/octet-stream"),
            record(6, b"plain < text", head="Content-Type: text/plain"),
        ]
    )
    counts: Counter[str] = Counter()
    found = list(warc_pairs(io.BytesIO(data), "a.warc", 0, -1, counts))
    assert [p.image_url for p in found] == ["http://p.example/4.jpg", "http://p.example/5.jpg"]
    assert (counts["records"], counts["not_ok"], counts["pages"]) == (6, 1, 2)


def test_a_large_record_is_read_whole() -> None:
    body = b"<html>" + b"<p>x</p>" * 600_000 + PAGE.format(n=1).encode()
    (found,) = [r for r in records(io.BytesIO(gzip.compress(record(1, body)))) if isinstance(r, Record)]
    assert found.block.endswith(body)


def test_header_without_end() -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html"
    head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n" % len(block)
    assert urls(head + block + b"\r\n\r\n") == ["broken_archive"]


def test_body_codings() -> None:
    page = PAGE.format(n=1).encode() * 50
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (page[:100], page[100:])) + b"0\r\n\r\n"
    assert unwrap(chunked, "chunked", "") == page
    assert unwrap(page, "chunked", "gzip") == page  # the archive decoded it already
    assert unwrap(gzip.compress(page), "", "gzip") == page
    assert unwrap(zlib.compress(page), "", "deflate") == page
    assert unwrap(brotli(page), "", "br") == page
    assert unwrap(page, "", "br") == page
    assert unwrap(brotli(gzip.compress(page)), "", "gzip, br") == page
    assert page.startswith(unwrap(gzip.compress(page)[:60], "", "gzip")[:10])
    assert unwrap(chunked[:150], "chunked", "") != b""


def test_http_heads() -> None:
    found = parse(b"HTTP/1.0 200\nContent-Type: text/html; charset=gb2312\nX\n\n<html>")
    assert found is not None and found == (200, "text/html", "gb2312", b"<html>")
    assert parse(b"HTTP/1.1 200 OK\r\n") is None
    assert content_type("text/html;charset='") == ("text/html", "'")
    assert is_page("", b"<!-- x --><HTML>") and not is_page("application/json", b'{"a": "<b>"}')


def test_archives_of_other_writers(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with (tmp_path / "w.warc.gz").open("wb") as out:
        writer = WARCWriter(out, gzip=True)
        for n in range(3):
            head = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
            body = io.BytesIO(PAGE.format(n=n).encode("gb18030"))
            writer.write_record(
                writer.create_warc_record(f"http://w.example/{n}", "response", payload=body, http_headers=head)
            )
    rows = read(tmp_path / "w.warc.gz")
    assert [r["caption_raw"] for r in rows] == [f"第{n}张红色的图" for n in range(3)]
