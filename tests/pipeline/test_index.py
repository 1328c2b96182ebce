from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tuwen.filters.duplicates import PairDuplicates
from tuwen.filters.split import Split
from tuwen.pipeline import index
from tuwen.pipeline.beam_run import pipeline_options
from tuwen.pipeline.columns import COLUMNS, with_missing
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.pipeline.relate import relate
from tuwen.pipeline.stage import VERDICT

PHOTOS = [0x0F3C55AA99661234, 0xF0C3AA5566994321, 0x123456789ABCDEF0, 0x5A5A12EDCBA93C3C]
WORDS = ["雪地里的狗在奔跑", "平静的湖面和远山", "路边停着一辆汽车", "孩子们在操场上踢足球"]


def unit(folder: Path, name: str, pairs: list[dict[str, Any]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"unit": name, "ordinal": i, "score": 0.5, "width": 9, "height": 9, **p} for i, p in enumerate(pairs)]
    frame = pl.DataFrame(rows, schema={c: COLUMNS[c].dtype for c in rows[0]})
    with_missing(frame, ("image_grid", "page_url", *VERDICT)).write_parquet(folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Copies of four photos under their captions, among photos of their own."""
    drawn = random.Random(seed)
    made = []
    for _ in range(count):
        which = drawn.randrange(6)
        image = PHOTOS[which] ^ (1 << drawn.randrange(64)) if which < 4 else drawn.getrandbits(64)
        caption = WORDS[which] + drawn.choice(["", "！", "高清图片"]) if which < 4 else f"第{drawn.random()}张照片"
        key = f"{drawn.getrandbits(128):032x}"
        made.append({"key": key, "origin": f"x#{key}", "caption": caption, "phash": image})
    return made


def run(folder: Path, units: dict[str, list[dict[str, Any]]], at: str = "", spread: bool = False) -> pl.DataFrame:
    parts = [unit(folder, name, rows) for name, rows in units.items()]
    stages = [PairDuplicates(index=at), Split(val=0.3, test=0.3, index=at)]
    relate(parts, stages, str(folder), pipeline_options(), spread=spread)
    keys = pl.concat(pl.read_parquet(p, columns=["unit", "ordinal", "key"]) for p in parts)
    return keys.join(pl.concat(pl.read_parquet(_related(p)) for p in parts), on=["unit", "ordinal"]).sort("key")


def _related(part: str) -> str:
    return part.replace(".parquet", ".relate.parquet")


def put(at: str, name: str, folder: Path) -> int:
    parts = sorted(str(p) for p in folder.glob("*.parquet") if ".relate." not in p.name)
    return index.add(at, name, parts, [_related(p) for p in parts])


@pytest.mark.parametrize("spread", [False, True])
def test_a_second_run_finds_what_a_joint_run_finds(tmp_path: Path, spread: bool) -> None:
    old, new = pairs(80, 1), pairs(80, 2)
    # Scores fall from run to run, so that the joint run keeps what the first run keeps.
    new = [{**p, "score": 0.4} for p in new]
    joint = run(tmp_path / "joint", {"a": old, "b": new})
    first = run(tmp_path / "first", {"a": old})
    at = str(tmp_path / "index")
    held = put(at, "first", tmp_path / "first")
    assert held == first.filter(pl.col("reason").is_null() | (pl.col("reason") == "pair_duplicate")).height
    second = run(tmp_path / "second", {"b": new}, at, spread)
    expected = joint.filter(pl.col("unit") == "b")
    columns = ["key", "status", "reason", "duplicate_of", "split", "cluster"]
    told = second.filter(pl.col("reason") == "pair_duplicate", pl.col("detail").str.contains("an earlier run kept it"))
    assert told.height > 20
    assert second.select(columns[:4]).rows() == expected.select(columns[:4]).rows()
    kept = second.filter(pl.col("status").is_null()).select(columns)
    clusters = dict(first.filter(pl.col("status").is_null()).select("cluster", "split").rows())
    assert all(clusters[c] == s for s, c in kept.select("split", "cluster").rows() if c in clusters)
    assert sorted(p.name for p in (tmp_path / "second").iterdir()) == ["b.parquet", "b.relate.parquet"]


def test_new_pairs_take_the_split_of_their_cluster_and_none_bridges_two(tmp_path: Path) -> None:
    near, far = PHOTOS[0], PHOTOS[0] ^ 0b111111
    old = [
        {"key": f"{i:032x}", "origin": str(i), "caption": f"{WORDS[i]}的照片", "phash": h}
        for i, h in enumerate((near, far))
    ]
    between = {"key": "e" * 32, "origin": "n", "caption": "另外一句完全不同的话", "phash": PHOTOS[0] ^ 0b111}
    beside = {"key": "f" * 32, "origin": "m", "caption": "又一句毫不相干的说明", "phash": near ^ (0b11 << 60)}
    first = run(tmp_path / "first", {"a": old})
    put(str(tmp_path / "index"), "first", tmp_path / "first")
    file = tmp_path / "index" / "pairs-first.parquet"
    held = pl.read_parquet(file).with_columns(split=pl.Series(["test", "train"]))
    held.write_parquet(file)
    assert first["cluster"].n_unique() == 2
    second = run(tmp_path / "second", {"b": [between]}, str(tmp_path / "index"))
    assert second.select("status", "reason", "split").rows() == [("dropped", "straddles_splits", None)]
    third = run(tmp_path / "third", {"b": [beside]}, str(tmp_path / "index"))
    assert third.select("status", "cluster", "split").rows() == [(None, f"{0:032x}", "test")]


def test_a_pair_of_an_earlier_run_goes_by_its_key(tmp_path: Path) -> None:
    rows = pairs(5, 3)
    run(tmp_path / "first", {"a": rows})
    put(str(tmp_path / "index"), "first", tmp_path / "first")
    again = run(tmp_path / "second", {"b": [{**p, "origin": "!"} for p in rows]}, str(tmp_path / "index"))
    assert set(again["reason"]) == {"same_pair"}
    assert again["detail"].str.contains("as first/x#").all()


def test_indexes_merge_and_bad_ones_are_refused(tmp_path: Path) -> None:
    for name, seed in (("one", 4), ("two", 5)):
        run(tmp_path / name, {"a": pairs(6, seed)})
        put(str(tmp_path / f"index-{name}"), name, tmp_path / name)
    one, two = str(tmp_path / "index-one"), str(tmp_path / "index-two")
    assert index.merge(one, two) == index.merge(one, two) == 1
    assert [Path(f).name for f in index.pair_files(one)] == ["pairs-one.parquet", "pairs-two.parquet"]
    put(two, "one", tmp_path / "two")
    with pytest.raises(UsageError, match="both hold a run 'one'"):
        index.merge(one, two)
    with pytest.raises(UsageError, match="given 'a/b'"):
        index.add(one, "a/b", [], [])
    with pytest.raises(InputError, match="no index at"):
        index.pair_files(str(tmp_path))
    (tmp_path / "index-two" / "index.json").write_text('{"version": 9}')
    with pytest.raises(InputError, match="version 9, this program reads version 1"):
        index.pair_files(two)
