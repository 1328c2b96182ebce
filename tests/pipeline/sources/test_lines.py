from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pytest
from fastwarc.stream_io import ZstdWriter

from tuwen.pipeline.sources.lines import MAX_LINE, Line, compression, csv_records, decompressed, lines, plan


def read_ranges(data: bytes, delimiter: str, rows: int, skip: int = 0) -> list[tuple[int, bytes]]:
    handle = io.BytesIO(data)
    found = []
    for start, end, line in plan(handle, delimiter, skip, rows):
        handle.seek(start)
        source = csv_records(handle, line, end, delimiter) if delimiter else lines(handle, end, line)
        found += [(r.number, r.data) for r in source]
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_ranges_of_lines(end: bytes) -> None:
    data = b"\n".join(b"line %d" % i for i in range(1003)) + end
    whole = read_ranges(data, "", 10**6)
    assert len(whole) == 1003 and whole[-1][0] == 1003
    for rows in (1, 7, 100, 1002, 1003, 1004):
        assert read_ranges(data, "", rows) == whole
    assert len(plan(io.BytesIO(data), "", 0, 100)) == 11


def test_the_header_belongs_to_no_range() -> None:
    assert read_ranges(b"url,caption\na,1\nb,2\n", ",", 1, skip=12) == [(2, b"a,1\n"), (3, b"b,2\n")]
    assert plan(io.BytesIO(b"url,caption\n"), ",", 12) == []


def test_quoted_line_breaks_stay_in_their_record() -> None:
    data = b'a,"x\ny\n""z"""\nb,1\nc,"5 ""\n"\n"d",2\ne,he said "hi\nf,3\n'
    expected = [
        *((1, b'a,"x\ny\n""z"""\n'), (4, b"b,1\n"), (5, b'c,"5 ""\n"\n'), (7, b'"d",2\n')),
        *((8, b'e,he said "hi\n'), (9, b"f,3\n")),
    ]
    for rows in (1, 2, 3, 100):
        assert read_ranges(data, ",", rows) == expected
    assert read_ranges(data.replace(b",", b";"), ";", 2) == [(n, d.replace(b",", b";")) for n, d in expected]


def test_a_quote_that_does_not_close_costs_one_line() -> None:
    data = b'a,1\nb,"open\n' + b"".join(b"c%d,2\n" % i for i in range(2500))
    found = list(csv_records(io.BytesIO(data), 1, -1, ","))
    assert [f.number for f in found if f.error] == [2]
    assert len(found) == 2502
    assert read_ranges(data, ",", 100) == [(f.number, f.data) for f in found]


def test_a_line_without_end_is_passed_over() -> None:
    data = b"a\n" + b"x" * (MAX_LINE + 10) + b"\nb\n"
    first, long, last = lines(io.BytesIO(data), len(data), 1)
    assert (first.data, last.data, last.number) == (b"a\n", b"b\n", 3)
    assert long == Line(2, b"", long.error, MAX_LINE + 11) and "at most" in long.error


def test_compressions() -> None:
    text = b"one\ntwo\n" * 1000
    for pack, kind in ((gzip.compress, "gzip"), (bz2.compress, "bz2"), (lzma.compress, "xz")):
        packed = pack(text)
        assert compression(packed) == kind
        assert decompressed(io.BytesIO(packed), kind).read() == text
    out = io.BytesIO()
    writer = ZstdWriter(out)
    writer.write(text)
    writer.close()
    packed = out.getvalue()
    assert compression(packed) == "zstd"
    assert len(list(lines(decompressed(io.BytesIO(packed), "zstd"), -1, 1))) == 2000
    assert compression(b"BZ Berlin") == compression(b"") == ""
