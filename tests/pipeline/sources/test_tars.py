from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuwen.pipeline.sources.tars import sample_cuts, tar_pairs

Read = Callable[..., list[dict[str, Any]]]


def tar(*members: tuple[str, bytes | str | None]) -> bytes:
    """A tar of (name, content); a content of None makes a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                writer.addfile(member)
                continue
            data = content if isinstance(content, bytes) else content.encode()
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_samples(tmp_path: Path, read: Read, png: bytes) -> None:
    path = tmp_path / "00000.tar"
    aside = json.dumps({"caption": "不用", "url": "https://a.example/1.png", "status": "success"})
    path.write_bytes(
        tar(
            *(("0001.png", png), ("0001.txt", "红色的车"), ("0001.json", aside)),
            *(("a/0002.jpg", png), ("a/0002.json", '{"caption": ["白色的猫", "猫"]}')),
            *(("0003.txt", "没有图"), ("0004.png", png), ("0005.png", b""), ("0005.txt", "空的图")),
            *(("__meta__.json", "{}"), ("0006.input.png", png), ("0006.target.png", png), ("0006.txt", "两张图")),
            *(("0007.cls", "3"), ("0008.png", png), ("0008.json", "{broken")),
        )
    )
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 what img2dataset writes beside its tar")
    (tmp_path / "00000_stats.json").write_text("{}")
    rows = read(tmp_path)
    assert [(r["origin"], r["caption_raw"], r["reason"]) for r in rows] == [
        ("00000.tar#0001#0", "红色的车", None),
        ("00000.tar#a/0002#0", "白色的猫", None),
        ("00000.tar#a/0002#1", "猫", None),
        ("00000.tar#0003#0", "没有图", "image_missing"),
        ("00000.tar#0004#0", None, "caption_missing"),
        ("00000.tar#0005#0", "空的图", "image_empty"),
        ("00000.tar#0006#0", "两张图", None),
        ("00000.tar#0006#1", "两张图", None),
        ("00000.tar#0007#0", None, "unsupported_file"),
        ("00000.tar#0008#0", None, "bad_sidecar"),
    ]
    assert rows[0]["image"] == png and rows[0]["image_url"] == "https://a.example/1.png"
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [r["key"] for r in read(packed) if not r["reason"]] == [r["key"] for r in rows if not r["reason"]]


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_members_that_climb_out_are_rows_and_stay_unread(tmp_path: Path, read: Read, png: bytes, name: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(
        tar(
            ("1.png", png),
            ("1.txt", "红色的车"),
            (name, png),
            (name[:-3] + "txt", "恶意"),
            ("2.png", png),
            ("2.txt", "湖"),
        )
    )
    rows = read(path)
    assert [(r["caption_raw"], r["reason"]) for r in rows] == [("红色的车", None), (None, "bad_member"), ("湖", None)]
    assert "climbs out" in rows[1]["detail"] and rows[1]["image"] is None


def test_links_are_rows(tmp_path: Path, read: Read, png: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar(("1.png", None), ("1.txt", "链接"), ("2.png", png), ("2.txt", "湖")))
    assert [r["reason"] for r in read(path)] == ["bad_member", None]


def test_a_cut_tar_gives_what_was_whole(tmp_path: Path, read: Read, png: bytes) -> None:
    whole = tar(*((f"{i}.{e}", png if e == "png" else f"第{i}张") for i in range(20) for e in ("png", "txt")))
    path = tmp_path / "x.tar"
    for cut in (len(png), 700, 5000, 20_000, 1024 * 38 + 520):
        path.write_bytes(whole[:cut])
        rows = read(path)
        assert rows[-1]["reason"] == "broken_archive"
        good = [r["caption_raw"] for r in rows if r["status"] is None]
        assert good == [f"第{i}张" for i in range(len(good))] and len(good) >= (cut - 520) // 2048


def test_ranges_of_samples_give_every_pair_once(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "x.tar"
    names = [f"{'很长的目录名' * 12}/{i:04d}" for i in range(50)]
    path.write_bytes(tar(*((f"{n}.{e}", png if e == "png" else n) for n in names for e in ("png", "txt"))))
    whole = list(tar_pairs(str(tmp_path), "x.tar", 0, -1, {}))
    assert len(whole) == 50
    for step in (1, 4000, 50_000, 10**7):
        with path.open("rb") as handle:
            edges = [0, *sample_cuts(handle, step), -1]
        parts = [tar_pairs(str(tmp_path), "x.tar", a, b, {}) for a, b in itertools.pairwise(edges)]
        assert list(itertools.chain(*parts)) == whole
        assert (len(edges) > 3) == (step < 10**6)
