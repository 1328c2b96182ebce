from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tuwen.filters.duplicates import PairDuplicates
from tuwen.filters.repeats import CaptionRepeats, ImageRepeats
from tuwen.filters.semantic import SemanticDuplicates
from tuwen.filters.split import Split
from tuwen.filters.templates import Templates
from tuwen.pipeline.beam_run import pipeline_options
from tuwen.pipeline.columns import COLUMNS, with_missing
from tuwen.pipeline.relate import relate
from tuwen.pipeline.stage import VERDICT, StageModel

CAR, LAKE, DOG = 0x0F3C_55AA_9966_1234, 0xF0C3_AA55_6699_4321, 0x1234_5678_9ABC_DEF0

MORE = ("pair_duplicate", "image_repeated", "caption_repeated")


def pair(key: str, caption: str, phash: int | None, **more: Any) -> dict[str, Any]:
    return {"key": key, "origin": f"f#{key}", "caption": caption, "phash": phash, "score": 0.5, **more}


def write_unit(folder: Path, unit: str, pairs: Sequence[dict[str, Any]]) -> str:
    rows = [{"unit": unit, "ordinal": i, "width": 300, "height": 200, **p} for i, p in enumerate(pairs)]
    names = dict.fromkeys([*(n for r in rows for n in r), "unit", "ordinal", "key", *VERDICT])
    schema = {n: COLUMNS[n].dtype for r in rows for n in r}
    path = folder / f"{unit}.parquet"
    with_missing(pl.DataFrame(rows, schema=schema), tuple(names)).write_parquet(path)
    return str(path)


def related(folder: Path, unit: str) -> dict[str, list[Any]]:
    return pl.read_parquet(folder / f"{unit}.relate.parquet").to_dict(as_series=False)


def test_keeps_the_best_of_each_duplicate_and_all_images_under_one_caption(tmp_path: Path) -> None:
    parts = [
        write_unit(
            tmp_path,
            "u1",
            [
                pair("a", "一辆红色的汽车停在路边", CAR, score=0.4),
                pair("b", "一辆红色的汽车停在路边", LAKE),
                pair("c", "夕阳下平静的湖面", LAKE, status="dropped", stage="score", reason="low_score", detail="0.1"),
            ],
        ),
        write_unit(tmp_path, "u2", [pair("d", "一輛紅色的汽車，停在路邊！", CAR ^ 1, score=0.6)]),
        write_unit(tmp_path, "u3", []),
    ]
    result = relate(parts, [PairDuplicates(), Split()], str(tmp_path))
    u1, u2 = related(tmp_path, "u1"), related(tmp_path, "u2")
    assert u1["status"] == ["dropped", None, "dropped"]
    assert u1["reason"] == ["pair_duplicate", None, "low_score"]
    assert u1["stage"] == ["pair_duplicates", None, "score"]
    assert u1["detail"] == ["f#d stays: score 0.6 > 0.4", None, "0.1"]
    assert u1["duplicate_of"] == ["d", None, None]
    assert u1["split"] == [None, "train", None]
    assert u2["status"] == [None]
    assert result.splits == {"train": 2}
    tally = result.stages["pair_duplicates"]
    assert (tally["in"], tally["kept"], tally["dropped_pair_duplicate"]) == (3, 2, 1)
    assert related(tmp_path, "u3")["ordinal"] == []


def test_one_pair_per_key_even_without_stages(tmp_path: Path) -> None:
    twice = [pair("k", "湖", None) | {"origin": o} for o in ("b#2", "a#1", "b#1")]
    result = relate([write_unit(tmp_path, "u", twice)], [], str(tmp_path))
    u = related(tmp_path, "u")
    assert u["reason"] == ["same_pair", None, "same_pair"]
    assert u["stage"] == ["relate", None, "relate"]
    assert u["detail"][0] == "same image and caption as a#1, which stays"
    assert u["duplicate_of"] == ["k", None, "k"]
    assert u["split"] == [None, "train", None]
    assert result.splits == {"train": 1}


def test_order_of_units_and_rows_changes_nothing(tmp_path: Path) -> None:
    drawn = random.Random(3)
    pairs = []
    for i in range(120):
        base = drawn.choice([CAR, LAKE, DOG]) ^ (1 << drawn.randrange(64))
        words = drawn.choice(["雪地里的狗在奔跑", "平静的湖面和远山", "路边停着一辆汽车"])
        caption = words + drawn.choice(["", "。", "高清图片"])
        pairs.append(pair(f"{i:03d}", caption, base, score=drawn.choice([None, 0.3, 0.5])))
    verdicts = []
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        drawn.shuffle(pairs)
        parts = [write_unit(folder, f"u{turn}{i}", pairs[i::3]) for i in range(3)]
        relate(parts[::-1], [PairDuplicates(), Split(val=0.3, test=0.3)], str(folder))
        told = pl.concat(
            pl.read_parquet(p).join(pl.read_parquet(p.replace(".parquet", ".relate.parquet")), on=["unit", "ordinal"])
            for p in parts
        )
        columns = ["key", "status_right", "reason_right", "detail_right", "duplicate_of", "cluster", "split"]
        verdicts.append(told.sort("key").select(columns).rows())
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert {r[2] for r in verdicts[0]} == {None, "pair_duplicate"}


@pytest.mark.parametrize(
    "stages",
    [[PairDuplicates(), ImageRepeats(most=3), CaptionRepeats(most=5), Split(val=0.3, test=0.3, by_page=True)], []],
)
def test_spread_over_beam_gives_the_same_files(tmp_path: Path, stages: list[StageModel]) -> None:
    drawn = random.Random(11)
    pairs = []
    for i in range(300):
        image = drawn.choice([CAR, LAKE, DOG, drawn.getrandbits(64)]) ^ (1 << drawn.randrange(64))
        words = drawn.choice(["雪地里的狗在奔跑", "平静的湖面和远山", "路边停着一辆汽车", f"第{i}张照片里的风景"])
        caption = words + drawn.choice(["", "。", "高清图片"])
        key = f"{drawn.getrandbits(128) if i % 10 else i // 20:032x}"
        page = drawn.choice([None, f"https://a.example/{i % 50}"])
        status = {"status": "dropped", "stage": "score", "reason": "low_score"} if i % 17 == 0 else {}
        pairs.append(pair(key, caption, image if i % 7 else None, score=drawn.random(), page_url=page, **status))
        pairs[-1]["origin"] = f"f#{i}"
    told = []
    for spread in (False, True):
        folder = tmp_path / str(spread)
        folder.mkdir()
        parts = [write_unit(folder, f"u{i}", pairs[i::4]) for i in range(4)] + [write_unit(folder, "u9", [])]
        result = relate(parts, stages, str(folder), pipeline_options(), spread=spread)
        units = pl.concat(pl.read_parquet(p.replace(".parquet", ".relate.parquet")) for p in parts)
        counts = {name: {k: n for k, n in t.items() if k != "us"} for name, t in result.stages.items()}
        told.append((units.to_dicts(), result.splits, counts))
        assert not (folder / "relating").exists()
    assert told[0] == told[1]
    reasons = {row["reason"] for row in told[0][0]}
    assert reasons == {None, "low_score", "same_pair", *(MORE if stages else [])}


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (PairDuplicates(mirrored=True), "pair_duplicate"),
        (ImageRepeats(most=1, merge=2), "image_repeated"),
        (SemanticDuplicates(), "semantic_duplicate"),
    ],
)
def test_framed_mirrored_merged_and_semantic_ties_are_the_same_over_beam(
    tmp_path: Path, stage: StageModel, reason: str
) -> None:
    drawn = np.random.default_rng(4)
    bases = drawn.standard_normal((12, 16))
    words = ["雪地里的狗在奔跑", "平静的湖面和远山", "路边停着一辆汽车"]
    pairs = []
    for i in range(120):
        base = i % 12
        vector = bases[base] + drawn.normal(0, 0.03, 16)
        vector /= np.linalg.norm(vector)
        hashes = [int(h) for h in np.random.default_rng(base).integers(0, 2**64, 3, dtype=np.uint64)]
        view = {0: {}, 1: {"phash": hashes[1], "phash_inside": hashes[0]}, 2: {"phash": hashes[2]}}[i // 40]
        images = {"phash_mirrored": hashes[0] if i // 40 == 2 else hashes[2], **view}
        embedded = {f"{w}_embedding": vector.astype("<f2").tobytes() for w in ("image", "caption")}
        caption = words[base % 3] + ["", "。", f"，第{i}张"][i % 3]
        pairs.append(pair(f"{i:032x}", caption, hashes[0], score=float(drawn.random())) | images | embedded)
    told = []
    for spread in (False, True):
        folder = tmp_path / str(spread)
        folder.mkdir()
        parts = [write_unit(folder, f"u{i}", pairs[i::4]) for i in range(4)]
        relate(parts, [stage], str(folder), pipeline_options(), spread=spread)
        told.append(pl.concat(pl.read_parquet(p.replace(".parquet", ".relate.parquet")) for p in parts).to_dicts())
    assert told[0] == told[1]
    assert [row["reason"] for row in told[0]].count(reason) >= 40


def test_a_stage_without_relate_is_refused(tmp_path: Path) -> None:
    class Wrong(StageModel):
        name = "wrong"

    with pytest.raises(TypeError, match="wrong is of the relate phase but has no relate"):
        relate([], [Wrong()], str(tmp_path))


def test_captions_that_a_site_repeats_are_counted_over_all_pages_and_units(tmp_path: Path) -> None:
    def shown(key: str, page: str | None, caption: str, number: int) -> dict[str, Any]:
        return pair(key, caption, int(hashlib.sha256(bytes([number])).hexdigest()[:16], 16), page_url=page)

    # One banner, the same pair on six pages; a caption on four; one on six pages of two hosts; one without pages.
    banner = [shown("a", f"http://News.cn:80/{i}.html", "下载新闻客户端", 1) for i in range(6)]
    few = [shown(f"b{i}", f"http://news.cn/{i}.html", "湖边的红色房子", 10 + i) for i in range(4)]
    hosts = [shown(f"c{i}", f"http://{'ab'[i % 2]}.cn/{i}", "山顶的白色灯塔", 20 + i) for i in range(6)]
    bare = [shown(f"d{i}", None, "雪地里的小狗", 30 + i) for i in range(6)]
    pairs = [*banner, *few, *hosts, *bare]
    for number, p in enumerate(pairs):
        p["origin"] = f"f#{number:02}"
    want: dict[str, Any] = {}
    for name, spread in (("here", False), ("spread", True)):
        folder = tmp_path / name
        folder.mkdir()
        parts = [write_unit(folder, f"u{u}", pairs[u::3]) for u in range(3)]
        result = relate(parts, [PairDuplicates(), Templates()], str(folder), pipeline_options(()), spread)
        rows = pl.concat([pl.read_parquet(folder / f"u{u}.relate.parquet") for u in range(3)]).sort("unit", "ordinal")
        assert rows["template_count"].drop_nulls().value_counts().sort("template_count").rows() == [
            (3, 6),
            (4, 4),
            (6, 6),
        ]
        assert rows.filter(pl.col("reason") == "template_caption").height == 6
        assert rows["status"].null_count() == 16
        assert list(result.stages) == ["templates", "relate", "pair_duplicates"]
        assert result.stages["templates"]["in"] == 22
        assert rows.drop("template_count").equals(want.setdefault("rows", rows.drop("template_count")))
    alone = relate([write_unit(tmp_path, "u", banner[:4])], [Templates(pages=5)], str(tmp_path))
    assert alone.splits == {"train": 1}
    assert related(tmp_path, "u")["reason"].count("same_pair") == 3
