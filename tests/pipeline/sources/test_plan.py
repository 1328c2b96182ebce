from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from tuwen.pipeline.errors import InputError, UsageError
from tuwen.pipeline.sources import open_input, plan, read_unit
from tuwen.pipeline.sources.recognise import recognise
from tuwen.pipeline.units import Unit

Read = Callable[..., list[dict[str, Any]]]
PAGE = "<html><img src=/a.jpg alt=红色的车></html>"
ROW = json.dumps({"url": "https://a.example/1.jpg", "caption": "红色的车"})
WARC = b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Type: text/html\r\nWARC-Target-URI: http://p.example/\r\n" + (
    b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(PAGE.encode()), PAGE.encode())
)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a", WARC, "warc"),
        ("a.bin", gzip.compress(WARC, mtime=0), "warc"),
        ("a.warc", b"garbage", "warc"),
        ("a", b"filedesc://a 0 20200101000000 text/plain 5\n", "arc"),
        ("page.php", b"\n\n<!DOCTYPE html><p>", "html"),
        ("page.txt", b"<!-- saved --><html lang=zh>", "html"),
        ("page.htm", b"text <b>and</b>", "html"),
        ("a", b"\xff\xd8\xff\xe0" + bytes(20), "image"),
        ("a", b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        ("a.parquet", b"PAR1....", "parquet"),
        ("a", ROW.encode(), "jsonl"),
        ("a.json", (ROW + "\n" + ROW).encode(), "jsonl"),
        ("a.jsonl", b"broken\n" + ROW.encode(), "jsonl"),
        ("a.json", b'{"manifest": 1}', ""),
        ("a.json", f"[{ROW}]".encode(), "json"),
        ("a.txt", b"https://a.example/1.jpg\nhttps://a.example/2.jpg\n", "urls"),
        ("a.txt", b"url\tcaption\nhttps://a.example/1.jpg\tred\n", "tsv"),
        ("a", b"caption,url\nred,https://a.example/1.jpg\n", "csv"),
        ("a.csv.gz", gzip.compress(b"caption,url\n", mtime=0), "csv"),
        ("a.txt", "只是一段话。\n第二段。".encode(), ""),
        ("a.zip", b"PK\3\4" + bytes(60), ""),
        ("a", b"", ""),
    ],
)
def test_kinds_by_content(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert recognise(str(tmp_path / name), name).word == word


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("captons.jsonl", None, r"no such file or folder.*Did you mean .*captions\.jsonl\?"),
        ("none/at/all.jsonl", None, r"is there, what follows is not"),
        ("empty.jsonl", b"", r"the file is empty; expected"),
        ("folder", "folder", r"the folder holds no files; expected"),
        ("a.zip", b"PK\3\4" + bytes(60), r"cannot tell what this file is.*--input kind="),
        ("a.csv", b"x,y\n1,2\n", r"no caption column; the columns are 'x', 'y'.*--input caption=COLUMN"),
        ("a.jsonl", b"broken\nbroken\n", r"no line parses as a JSON object"),
        ("a.csv", b"url,caption\n", r"holds no pairs"),
        ("a.csv", "url,caption\n1,红\n".encode("utf-16"), r"UTF-16; save it as UTF-8"),
        ("", None, r"name is empty"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, name: str, data: bytes | str | None, message: str) -> None:
    (tmp_path / "captions.jsonl").write_text(ROW)
    if data == "folder":
        (tmp_path / name).mkdir()
    elif isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=re.compile(message, re.S)) as raised:
        open_input(str(tmp_path / name) if name else "")
    assert raised.value.exit_code == 3


def test_unknown_options_and_protocols(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    with pytest.raises(UsageError, match="Did you mean 'caption'"):
        open_input(str(tmp_path / "a.jsonl"), 0, {"captoin": "x"})
    with pytest.raises(InputError, match="nosuch"):
        open_input("nosuch://bucket/a.jsonl")
    with pytest.raises(InputError, match="none of its 2 files is of a known kind"):
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "a.bin").write_bytes(b"\1\2")
        (tmp_path / "f" / "README.md").write_text("x")
        open_input(str(tmp_path / "f"))


def test_a_mixed_folder_reads_each_file_by_its_kind(tmp_path: Path, read: Read, png: bytes) -> None:
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(WARC))
    (tmp_path / "b.jsonl").write_text(ROW)
    (tmp_path / "labels.csv").write_text("x,y\n1,2\n")
    (tmp_path / "site" / "img").mkdir(parents=True)
    (tmp_path / "site" / "1.html").write_text("<img src=img/a.png?v=2 alt=红色的车><img src=/b.png alt=蓝色的湖>")
    (tmp_path / "site" / "img" / "a.png").write_bytes(png)
    (tmp_path / "c.png").write_bytes(png)
    (tmp_path / "c.txt").write_text("白色的猫")
    (tmp_path / "style.css").write_text("body {}")
    rows = read(tmp_path)
    assert sorted((r["origin"], r["reason"] or r["caption_raw"]) for r in rows) == [
        ("a.warc.gz#0#0", "红色的车"),
        ("b.jsonl#1#0", "红色的车"),
        ("c.png#0#0", "白色的猫"),
        ("labels.csv#0#0", "unsupported_file"),
        ("site/1.html#0#0", "红色的车"),
        ("site/1.html#0#1", "relative_url"),
    ]
    beside = next(r for r in rows if r["origin"] == "site/1.html#0#0")
    assert beside["image"] == png and beside["image_url"] is None
    based = {r["origin"]: r["image_url"] for r in read(tmp_path, base="https://own.example.cn/x/")}
    assert based["site/1.html#0#1"] == "https://own.example.cn/b.png"


def test_pages_never_read_files_outside_the_input(tmp_path: Path, read: Read, png: bytes) -> None:
    (tmp_path / "secret.png").write_bytes(png)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "1.html").write_text(
        f"<img src=../secret.png alt=红色的车><img src={tmp_path}/secret.png alt=红色的车>"
        "<img src=out.png alt=红色的车><img src='file:///etc/passwd' alt=红色的车>"
    )
    for path in (tmp_path / "in", tmp_path / "in" / "1.html"):
        assert all(r["image"] is None for r in read(path))


def test_what_is_no_pair_is_counted(tmp_path: Path, read: Read) -> None:
    (tmp_path / "1.html").write_text(PAGE + "<img src=b.jpg><img src=c.jpg alt=''>")
    counts: Counter[str] = Counter()
    assert len(read(tmp_path, counts)) == 1
    assert counts == {"pages": 1, "images": 3, "images_without_caption": 2}


def test_units_do_not_depend_on_where_the_input_lies(tmp_path: Path) -> None:
    found = []
    for place in ("x", "y"):
        folder = tmp_path / place / "data"
        folder.mkdir(parents=True)
        for i in range(250):
            (folder / f"{i}.html").write_text(PAGE)
        found.append(open_input(str(folder)))
    assert [u.id for u in found[0]] == [u.id for u in found[1]]
    assert [len(u.files) for u in found[0]] == [100, 100, 50]
    again = open_input(str(tmp_path / "x" / "data"), 1)
    assert not {u.id for u in again} & {u.id for u in found[0]}


@pytest.mark.parametrize("packed", [True, False])
def test_large_archives_are_cut(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes((gzip.compress(WARC) if packed else WARC) * 40)
    whole = read(path)
    assert len(whole) == 40 and len(open_input(str(path))) == 1
    monkeypatch.setattr(plan, "WARC_STEP", 1500)
    assert len(open_input(str(path))) > 3
    assert [r["key"] for r in read(path)] == [r["key"] for r in whole]
    path.write_bytes(gzip.compress(WARC * 400, 0))  # one member: it cannot be entered in the middle
    assert len(open_input(str(path))) == 1


def test_large_tars_are_cut(tmp_path: Path, read: Read, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        for name, data in ((f"{i}.{e}", png if e == "png" else b"red") for i in range(30) for e in ("png", "txt")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    whole = read(path)
    monkeypatch.setattr(plan, "TAR_STEP", 5000)
    assert len(open_input(str(path))) > 3
    assert [r["origin"] for r in read(path)] == [r["origin"] for r in whole]


def test_pipes_are_refused(tmp_path: Path, read: Read, png: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="expected a plain file"):
        open_input(str(tmp_path / "pipe"))
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "a.txt").write_text("红色的车")
    assert sorted(str(r["reason"]) for r in read(tmp_path)) == ["None", "file_unreadable", "file_unreadable"]


def test_a_file_that_is_gone_is_a_row(tmp_path: Path) -> None:
    (frame,) = read_unit(Unit("lines", str(tmp_path), ("gone.jsonl",), 0, 10, (("kind", "jsonl"),)))
    assert frame["reason"].to_list() == ["file_unreadable"]


def test_other_file_systems(read: Read, png: bytes) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/in/a.jsonl", b'{"image": "p/1.png", "caption": "a"}\n')
    memory.pipe("/in/c.jsonl", ROW.encode())
    memory.pipe("/in/p/1.png", png)
    memory.pipe("/in/b.warc.gz", gzip.compress(WARC) * 3)
    memory.pipe("/in/p/2.png", png)
    memory.pipe("/in/p/2.txt", "白色的猫".encode())
    table = io.BytesIO()
    pl.DataFrame({"url": ["https://a.example/9.jpg"], "text": ["绿色的树"]}).write_parquet(table)
    memory.pipe("/in/t.parquet", table.getvalue())
    rows = read("memory://in")
    assert sorted(r["caption_raw"] for r in rows) == [
        "a",
        "白色的猫",
        "红色的车",
        "红色的车",
        "红色的车",
        "红色的车",
        "绿色的树",
    ]
    assert [r["status"] for r in rows] == [None] * 7
    assert [r["caption_raw"] for r in read("memory://in/b.warc.gz")] == ["红色的车"] * 3
    with pytest.raises(InputError, match="no such file"):
        open_input("memory://in/none.jsonl")
