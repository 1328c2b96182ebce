from __future__ import annotations

from pathlib import Path

import polars as pl

from tuwen.pipeline.beam_run import pipeline_options
from tuwen.pipeline.columns import with_missing
from tuwen.pipeline.measure import PART_COLUMNS
from tuwen.pipeline.relate import relate
from tuwen.scoring.beside import CaptionsBeside
from tuwen.scoring.negatives import HardNegatives, plain

CAPTIONS = {"a": "男人抱着小孩", "b": "女人抱着小孩。", "c": "男人追着小孩", "d": "风景"}


def rows() -> pl.DataFrame:
    frame = pl.DataFrame(
        {"key": list(CAPTIONS), "caption": list(CAPTIONS.values()), "image_sha256": ["x", "x", "x", "y"]}
    )
    return frame.with_columns(unit=pl.Series(["u", "u", "v", "v"]), ordinal=pl.Series([0, 1, 0, 1]), origin="key")


def test_each_pair_knows_what_the_others_say_of_its_image() -> None:
    told = CaptionsBeside().relate(rows())["captions_beside"].to_list()
    assert told == [sorted([CAPTIONS["b"], CAPTIONS["c"]]), sorted([CAPTIONS["a"], CAPTIONS["c"]]),
                    sorted([CAPTIONS["a"], CAPTIONS["b"]]), None]  # fmt: skip
    few = CaptionsBeside(most=1).relate(rows())["captions_beside"].list.len().to_list()
    assert few == [1, 1, 1, None]
    by_address = rows().with_columns(image_url="image_sha256", image_sha256=pl.lit(None, dtype=pl.String))
    assert CaptionsBeside().relate(by_address)["captions_beside"].to_list() == told


def test_it_reaches_the_negatives_from_other_units_and_the_same_on_any_runner(tmp_path: Path) -> None:
    frame = with_missing(rows(), PART_COLUMNS)
    for (unit,), part in frame.group_by("unit"):
        part.select(PART_COLUMNS).write_parquet(tmp_path / f"{unit}.parquet")
    parts = [str(tmp_path / f"{u}.parquet") for u in "uv"]
    found = []
    for spread in (False, True):
        out = tmp_path / str(spread)
        out.mkdir()
        relate(parts, [CaptionsBeside()], str(out), pipeline_options((), 1), spread=spread)
        found.append(pl.concat([pl.read_parquet(out / f"{u}.relate.parquet") for u in "uv"]))
    assert found[0]["captions_beside"].to_list() == found[1]["captions_beside"].to_list()
    assert found[0]["captions_beside"].null_count() == 1
    batch = frame.select("key", "caption", "unit", "ordinal").join(
        found[0].select("unit", "ordinal", "captions_beside"), on=["unit", "ordinal"]
    )
    alone = HardNegatives(most=9).measure(batch.drop("captions_beside").head(1))["negatives"][0]
    beside = HardNegatives(most=9).measure(batch.head(1))["negatives"][0]
    known = set(map(plain, CAPTIONS.values()))
    assert known & {plain(n["caption"]) for n in alone}
    assert known.isdisjoint({plain(n["caption"]) for n in beside})
