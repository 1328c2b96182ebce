from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuwen.pipeline.sources import open_input

Read = Callable[..., list[dict[str, Any]]]


def test_captions_beside_images(tmp_path: Path, read: Read, png: bytes) -> None:
    for name in ("1.png", "2.JPG", "3.png", "4.png", "5.png", "6.png", "子/7.png", "8"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png)
    (tmp_path / "1.txt").write_text("红色的车\n\n 路边的车 \n")
    (tmp_path / "2.JPG.txt").write_bytes("这是蓝色的湖，风景很美".encode("gb18030"))
    (tmp_path / "3.json").write_text(json.dumps({"caption": ["白色的猫", "猫"], "url": "https://a.example/3.png"}))
    (tmp_path / "4.json").write_text("{broken")
    (tmp_path / "5.json").write_text('{"id": 5}')
    (tmp_path / "子" / "7.caption").write_text("绿色的树")
    (tmp_path / "notes.bin").write_bytes(b"\0\1\2")
    (tmp_path / "orphan.txt").write_text("没有图")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.md").write_text("about")
    rows = read(tmp_path)
    assert [(r["origin"], r["caption_raw"], r["reason"]) for r in rows] == [
        ("1.png#0#0", "红色的车", None),
        ("1.png#0#1", "路边的车", None),
        ("2.JPG#0#0", "这是蓝色的湖，风景很美", None),
        ("3.png#0#0", "白色的猫", None),
        ("3.png#0#1", "猫", None),
        ("4.png#0#0", None, "bad_sidecar"),
        ("5.png#0#0", None, "caption_missing"),
        ("6.png#0#0", None, "caption_missing"),
        ("8#0#0", None, "caption_missing"),
        ("子/7.png#0#0", "绿色的树", None),
        ("notes.bin#0#0", None, "unsupported_file"),
        ("orphan.txt#0#0", None, "unsupported_file"),
    ]
    assert rows[3]["image"] == png and rows[3]["image_url"] == "https://a.example/3.png"
    assert "it holds 'id'" in rows[6]["detail"] and "6.txt" in rows[7]["detail"]


def test_the_name_as_caption_where_there_is_no_sidecar(tmp_path: Path, read: Read, png: bytes) -> None:
    for name in ("红色_的车.png", "b.png", "空.png"):
        (tmp_path / name).write_bytes(png if name != "空.png" else b"")
    (tmp_path / "b.txt").write_text("蓝色的湖")
    found = {r["caption_raw"]: (r["caption_origin"], r["reason"]) for r in read(tmp_path, caption="filename")}
    assert found == {"红色 的车": ("filename", None), "蓝色的湖": ("sidecar", None), "空": ("filename", "image_empty")}


def test_one_image_and_many(tmp_path: Path, read: Read, png: bytes) -> None:
    for i in range(1001):
        (tmp_path / f"{i:04d}.png").write_bytes(png)
        (tmp_path / f"{i:04d}.txt").write_text(f"第{i}张")
    assert [len(u.files) for u in open_input(str(tmp_path))] == [2000, 2]
    assert len({r["key"] for r in read(tmp_path)}) == 1001
    assert [r["caption_raw"] for r in read(tmp_path / "0007.png")] == ["第7张"]


def test_files_that_vanish_or_may_not_be_linked(tmp_path: Path, read: Read, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "a.txt").write_text("红色的车")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "gone.dat").symlink_to("nowhere.dat")
    (tmp_path / "loop").symlink_to(".")
    found = {r["origin"]: r["reason"] for r in read(tmp_path)}
    assert found == {"a.png#0#0": None, "gone.png#0#0": "file_unreadable", "gone.dat#0#0": "file_unreadable"}
