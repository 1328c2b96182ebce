from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tuwen.pipeline.errors import InputError
from tuwen.pipeline.sources import open_input, read_unit
from tuwen.pipeline.sources.tablecols import Columns, choose, guess

Read = Callable[..., list[dict[str, Any]]]
URL = "https://img.example.cn/{}.jpg"


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


def told(rows: list[dict[str, Any]]) -> list[tuple[str | None, str | None]]:
    return [(r["caption_raw"], r["reason"]) for r in rows]


def test_bad_lines_fail_alone(tmp_path: Path, read: Read) -> None:
    path = jsonl(
        tmp_path / "pairs.jsonl",
        {"url": URL.format(1), "caption": "红色的车"},
        '{"url": "https://img.example.cn/2.jpg", "caption": "没有结束',
        "[1, 2]",
        "",
        {"url": URL.format(3)},
        {"caption": "没有图"},
        {"url": "http:///4.jpg", "caption": "没有主机"},
        {"url": 7, "caption": "数字"},
        '{"url": "https://img.example.cn/5.jpg", "caption": "半个\\ud800字和\\u0000零"}',
        {"url": URL.format(6), "caption": "长" * 1_000_000},
        "[" * 100_000,
        {"url": URL.format(7), "caption": "x" * (4 * 2**20)},
        {"url": "data:image/png;base64,AA", "caption": "内嵌"},
    )
    rows = read(path)
    assert told(rows) == [
        *(("红色的车", None), (None, "bad_line"), (None, "bad_line"), (None, "caption_missing")),
        *(("没有图", "image_missing"), ("没有主机", "bad_url"), ("数字", "image_missing")),
        *(("半个\ufffd字和\ufffd零", None), ("长" * 1_000_000, None), (None, "bad_line"), (None, "bad_line")),
        ("内嵌", "data_url"),
    ]
    assert rows[1]["origin"] == "pairs.jsonl#2#0" and "line 2" in rows[1]["detail"] and "mend" in rows[1]["detail"]
    assert len({r["key"] for r in rows}) == len(rows)


def test_many_lines_make_units_that_add_up(tmp_path: Path, read: Read) -> None:
    path = jsonl(tmp_path / "p.jsonl", *({"url": URL.format(i), "caption": f"第{i}张"} for i in range(20_001)))
    units = open_input(str(path))
    assert len(units) == 3
    assert [f.height for u in units for f in read_unit(u)][:3] == [256, 256, 256]
    rows = read(path)
    assert [r["origin"] for r in rows] == [f"p.jsonl#{i}#0" for i in range(1, 20_002)]
    packed = tmp_path / "q.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [r["key"] for r in read(packed)] == [r["key"] for r in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_csv_and_tsv(tmp_path: Path, read: Read, encoding: str, ending: str, mark: str) -> None:
    lines = [
        "ID,标题,图片链接",
        f"1,红色的车停在路边,{URL.format(1)}",
        f'2,"这是一个蓝色的湖，""很美""",{URL.format(2)}',
        "3",
    ]
    path = tmp_path / f"t.{ending}"
    path.write_bytes("\r\n".join(line.replace(",", mark) for line in lines).encode(encoding))
    rows = read(path)
    assert told(rows) == [("红色的车停在路边", None), ('这是一个蓝色的湖，"很美"', None), (None, "bad_line")]
    assert [r["origin"] for r in rows] == ["t.csv#2#0", "t.csv#3#0", "t.csv#4#0"] or ending == "tsv"


def test_tsv_quotes_are_letters(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(f'url\tcaption\n{URL.format(1)}\t"红色"的车\n{URL.format(2)}\t"没有关上\n{URL.format(3)}\t湖\n')
    assert told(read(path)) == [('"红色"的车', None), ('"没有关上', None), ("湖", None)]


def test_tables_without_a_header(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "cc.tsv"
    path.write_text(f"红色的车\t{URL.format(1)}\n蓝色的湖\t{URL.format(2)}\n")
    assert [(r["caption_raw"], r["image_url"]) for r in read(path)] == [
        ("红色的车", URL.format(1)),
        ("蓝色的湖", URL.format(2)),
    ]
    path.write_text(f"0.3\t{URL.format(1)}\tred car\t红色的车\n")
    assert [r["caption_raw"] for r in read(path)] == ["红色的车"]
    assert [r["caption_raw"] for r in read(path, caption="3", image="2")] == ["red car"]


def test_url_lists(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        f"# a list\n{URL.format(1)}\n{URL.format(2)}\t蓝色 的湖\n{URL.format(3)} 白猫\nhttps://\nnonsense\n\n"
    )
    assert told(read(path)) == [
        *((None, "caption_missing"), ("蓝色 的湖", None), ("白猫", None), (None, "bad_url"), (None, "image_missing"))
    ]
    path.write_text("https://img.example.cn/%E7%BA%A2%E8%89%B2_%E8%BD%A6.jpg?x=1\n")
    assert told(read(path, caption="filename")) == [("红色 车", None)]


def test_local_images_and_lists_of_captions(tmp_path: Path, read: Read, png: bytes) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(png)
    (tmp_path / "photos" / "空.png").write_bytes(b"")
    path = jsonl(
        tmp_path / "captions.jsonl",
        {"image": "1.png", "zh": ["红色的车", "路边的车"]},
        {"image": "2.png", "zh": ["没有文件"]},
        {"image": "1.png", "zh": []},
        {"image": "photos", "zh": ["a\0b"]},
        {"image": "a\0b.png", "zh": ["零"]},
        {"image": "nosuch://bucket/a.png", "zh": ["别处"]},
        {"image": "1.png", "zh": [None, "红色的车"]},
        {"image": "空.png", "zh": "空的"},
    )
    rows = read(path)
    assert told(rows) == [
        *(("红色的车", None), ("路边的车", None), ("没有文件", "image_missing"), (None, "caption_missing")),
        *(("a\ufffdb", "image_missing"), ("零", "file_unreadable")),
        *(("别处", "file_unreadable"), (None, "caption_missing"), ("红色的车", None), ("空的", "image_empty")),
    ]
    assert rows[0]["image"] == png and rows[0]["image_url"] is None
    assert str(tmp_path) not in str([r["detail"] for r in rows])
    assert told(read(path, images=str(tmp_path / "photos")))[:2] == told(rows)[:2]
    moved = jsonl(tmp_path / "more.jsonl", {"image": str(tmp_path / "photos" / "1.png"), "text": "绝对路径"})
    assert told(read(moved)) == [("绝对路径", None)]
    assert [u.id for u in open_input(str(path))] == [u.id for u in open_input(str(tmp_path / "." / "captions.jsonl"))]


def test_parquet(tmp_path: Path, read: Read, png: bytes) -> None:
    path = tmp_path / "t.parquet"
    n = 10_300
    pl.DataFrame({"URL": [URL.format(i) for i in range(n)], "TEXT": [f"第{i}张" for i in range(n)]}).write_parquet(
        path, row_group_size=3000
    )
    assert [(u.start, u.end) for u in open_input(str(path))] == [(0, 10_000), (10_000, n)]
    assert [r["caption_raw"] for r in read(path)] == [f"第{i}张" for i in range(n)]
    held = [{"bytes": png, "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    pl.DataFrame({"image": held, "text": ["红色的车", "蓝色的湖", None]}).write_parquet(path)
    rows = read(path)
    assert told(rows) == [("红色的车", None), ("蓝色的湖", "image_missing"), (None, "image_missing")]
    assert rows[0]["image"] == png
    broken = tmp_path / "b.parquet"
    broken.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"b\.parquet: the parquet file cannot be read"):
        open_input(str(broken))


def test_json_arrays(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps([{"url": URL.format(1), "caption": "红色的车"}, 3, {"url": URL.format(2)}]))
    assert told(read(path)) == [("红色的车", None), (None, "bad_line"), (None, "caption_missing")]


def test_columns_are_chosen_by_name_or_as_given(tmp_path: Path) -> None:
    assert choose(["key", "Caption", "IMG_URL", "page_url"], {}) == Columns("Caption", "IMG_URL", "page_url")
    assert choose(["text", "zh", "image", "url"], {}) == Columns("zh", "url")
    assert choose(["a", "b"], {"caption": "a", "url": "b"}) == Columns("a", "b")
    assert "Did you mean 'captions'" in str(choose(["captions", "url"], {"caption": "capton"}))
    assert guess([["1", "x"], ["2", "y"]]) is None
    assert guess([["a.jpg", "红色"], ["b.png", "蓝色"]]) == (1, 0)
    path = jsonl(tmp_path / "p.jsonl", {"headline": "红色的车", "where": URL.format(1)})
    with pytest.raises(InputError, match=r"no caption column; the columns are 'headline', 'where'.*--input caption="):
        open_input(str(path))
    assert len(open_input(str(path), 0, {"caption": "headline", "image": "where"})) == 1
