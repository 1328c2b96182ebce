from __future__ import annotations

import gzip
import io
from collections import Counter

from tuwen.pipeline.sources.arc import arc_pairs

PAGE = "<html><img src=/{n}.jpg alt=第{n}张红色的图></html>"


def record(n: int) -> bytes:
    body = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE.format(n=n).encode()
    return b"http://p.example/%d 10.0.0.1 20140216050221 text/html %d\n" % (n, len(body)) + body + b"\n"


def first() -> bytes:
    body = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n\n"
    return b"filedesc://a.arc 127.0.0.1 20140216050221 text/plain %d\n" % len(body) + body


def found(data: bytes) -> list[str | None]:
    return [p.image_url or p.reason for p in arc_pairs(io.BytesIO(data), "a.arc", Counter())]


def test_plain_and_compressed() -> None:
    pieces = [first(), record(1), record(2)]
    expected = ["http://p.example/1.jpg", "http://p.example/2.jpg"]
    assert found(b"".join(pieces)) == expected
    assert found(b"".join(map(gzip.compress, pieces))) == expected


def test_damage_is_a_row_each_and_reading_goes_on() -> None:
    bad = b"http://p.example/x 10.0.0.1 20140216050221 text/html abc\nmore of it\n"
    assert found(first() + record(1) + bad + record(2)) == [
        *("http://p.example/1.jpg", "broken_archive", "http://p.example/2.jpg")
    ]
    assert found(first() + record(1)[:-10])[-1] == "broken_archive"
    packed = gzip.compress(first()) + gzip.compress(record(1))
    assert found(packed[:-12])[-1] == "broken_archive"
    refused = record(1).replace(b"200 OK", b"404 NO")
    assert found(first() + refused) == []
