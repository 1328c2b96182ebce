from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl
import pytest

from tuwen.pipeline.columns import COLUMNS, LEDGER_SCHEMA, empty, with_missing
from tuwen.pipeline.stage import Stage, StageModel, Tally, apply_stage, threshold


class Length(StageModel):
    name: ClassVar[str] = "length"
    adds: ClassVar[tuple[str, ...]] = ("chars",)
    shortest: int = threshold(2, "fewest characters")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        if batch["caption"].is_in(["boom"]).any():
            raise ValueError("cannot measure boom")
        return batch.with_columns(chars=pl.col("caption").str.len_chars())

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"caption_too_short": pl.col("chars") < self.shortest}


def frame(*captions: str) -> pl.DataFrame:
    return pl.DataFrame({"key": [str(i) for i in range(len(captions))], "caption": captions})


def test_measures_judges_and_counts() -> None:
    tally = Tally()
    out = apply_stage(Length(), frame("红色的车", "车", "蓝色的湖"), tally)
    assert out["chars"].to_list() == [4, 1, 4]
    assert out["chars"].dtype == COLUMNS["chars"].dtype
    assert out["status"].to_list() == [None, "dropped", None]
    assert out["reason"].to_list() == [None, "caption_too_short", None]
    assert (tally["in"], tally["kept"], tally["dropped_caption_too_short"]) == (3, 2, 1)


def test_one_bad_row_fails_alone() -> None:
    tally = Tally()
    out = apply_stage(Length(), frame("红色的车", "boom", "湖"), tally)
    assert out["status"].to_list() == [None, "failed", "dropped"]
    assert out["stage"].to_list() == [None, "length", "length"]
    assert out["detail"][1] == "ValueError: cannot measure boom"
    assert tally["in"] == tally["kept"] + tally["failed"] + tally["dropped_caption_too_short"] == 3


def test_rows_with_a_verdict_pass_by() -> None:
    batch = frame("红色的车", "车").with_columns(
        status=pl.Series(["failed", None]), reason=pl.Series(["bad_line", None])
    )
    tally = Tally()
    out = apply_stage(Length(), batch, tally)
    assert out["reason"].to_list() == ["bad_line", "caption_too_short"]
    assert out["chars"].to_list() == [None, 1]
    assert tally["in"] == 1


def test_a_stage_that_loses_rows_or_invents_columns_is_found_out() -> None:
    class Loses(Length):
        def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
            return super().measure(batch).head(0)

    class Invents(Length):
        def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
            return super().measure(batch).with_columns(mystery=1)

    for stage, word in ((Loses(), "same rows"), (Invents(), "mystery")):
        out = apply_stage(stage, frame("红色的车"), Tally())
        assert out["status"].to_list() == ["failed"]
        assert word in out["detail"][0]


def test_thresholds_are_named_and_stages_satisfy_the_protocol() -> None:
    assert Length.thresholds() == {"shortest"}
    assert isinstance(Length(), Stage)
    with pytest.raises(ValueError, match="extra"):
        Length(longest=3)  # type: ignore[call-arg]


def test_missing_columns_come_typed() -> None:
    out = with_missing(frame("a"), ("score", "names"))
    assert out["score"].dtype == pl.Float32
    assert out["names"].dtype == COLUMNS["names"].dtype
    assert empty("key", "score").schema == {"key": pl.String, "score": pl.Float32}
    assert "image" not in LEDGER_SCHEMA
