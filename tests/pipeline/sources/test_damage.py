"""Damaged files of every kind: reading ends, raises nothing, and every row is sound."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tuwen.pipeline.errors import InputError

Read = Callable[..., list[dict[str, Any]]]
ROUNDS = int(os.environ.get("TUWEN_DAMAGE_ROUNDS", "12"))
"""Damaged copies per kind; raise it through the environment to look for more."""

PAGE = (
    "<html><figure><img srcset='a.jpg 2x' data-src='//a.example/b.jpg' alt=红色的车>"
    "<figcaption>路边</figcaption></figure>"
)


def _warc() -> bytes:
    out = b""
    for n in range(6):
        block = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n%x\r\n" % len(
            PAGE.encode()
        )
        block += PAGE.encode() + b"\r\n0\r\n\r\n"
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://p.example/{n}\r\nContent-Length: {len(block)}"
        )
        out += head.encode() + b"\r\n\r\n" + block + b"\r\n\r\n"
    return out


def _arc() -> bytes:
    page = PAGE.encode()
    first = b"filedesc://a 0 20200101000000 text/plain 2\nx\n\n"
    return first + b"http://p.example/ 1 20200101000000 text/html %d\n%s\n" % (len(page), page) * 5


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        for n in range(6):
            for ending, data in (("png", b"\x89PNG\r\n\x1a\n" + bytes(300)), ("json", b'{"caption": "red"}')):
                member = tarfile.TarInfo(f"{n}.{ending}")
                member.size = len(data)
                writer.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _parquet() -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"url": ["https://a.example/1.jpg"] * 50, "text": [f"第{i}张" for i in range(50)]}).write_parquet(out)
    return out.getvalue()


_ROWS = [{"url": f"https://a.example/{i}.jpg", "caption": f'第"{i}"张,红'} for i in range(30)]
_JSONL = "".join(json.dumps(r) + "\n" for r in _ROWS).encode()
_CSV = pl.DataFrame(_ROWS).write_csv().encode()
WHOLE: dict[str, Callable[[], bytes]] = {
    "a.warc": _warc,
    "a.warc.gz": lambda: gzip.compress(_warc()),
    "a.arc": _arc,
    "a.html": lambda: PAGE.encode("gb18030"),
    "a.tar": _tar,
    "a.tar.gz": lambda: gzip.compress(_tar()),
    "a.parquet": _parquet,
    "a.jsonl": lambda: _JSONL,
    "a.jsonl.gz": lambda: gzip.compress(_JSONL),
    "a.csv.bz2": lambda: bz2.compress(_CSV),
    "a.json.xz": lambda: lzma.compress(json.dumps(_ROWS).encode()),
    "a.json": lambda: json.dumps(_ROWS).encode(),
    "a.csv": lambda: _CSV,
    "a.txt": lambda: "".join(f"{r['url']}\t{r['caption']}\n" for r in _ROWS).encode(),
}


def damaged(data: bytes, seeded: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(seeded.randrange(1, 6)):
        at = seeded.randrange(len(out)) if out else 0
        size = seeded.choice((1, 2, 20, 200))
        match seeded.randrange(4):
            case 0:
                out[at : at + size] = seeded.randbytes(size)
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = (
                    seeded.choice((b"\0", b'"', b"\n", b"\r\n\r\n", b"\x1f\x8b\x08", b"\xff", b"{", b"<")) * size
                )
            case _:
                out = out[: max(at, 1)]
    return bytes(out)


@pytest.mark.parametrize("name", WHOLE)
def test_damage_raises_nothing(tmp_path: Path, read: Read, name: str) -> None:
    whole = WHOLE[name]()
    seeded = random.Random(name)
    (tmp_path / name).write_bytes(whole)
    assert read(tmp_path / name)
    for _ in range(ROUNDS):
        (tmp_path / name).write_bytes(damaged(whole, seeded))
        try:
            read(tmp_path / name)
        except InputError as error:
            assert name in str(error)
