"""Keeps the best share of a run by score, whatever the scorer's scale.

DataComp's CLIP filter keeps the best 30 % (Gadre and others 2023). What a pair is measured by needs all pairs, so
the stage belongs to the relate phase: where it stands there decides what it is a share of (after
``pair_duplicates``: of the distinct pairs). Scores have four decimals, so each unit counts its pairs per score and
the sum over all units is a table of at most 20,001 rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl

from ..pipeline.columns import with_missing
from ..pipeline.index import indexed
from ..pipeline.stage import Phase, StageModel, threshold
from .score import DECIMALS


class ScorePercentile(StageModel):
    """Drops all but the best share of the pairs that reach this stage; equal scores stay or go together."""

    name: ClassVar[str] = "score_percentile"
    adds: ClassVar[tuple[str, ...]] = ("score_better",)
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("score",)

    best: float = threshold(0.3, "share of the pairs that stays, highest scores first (DataComp: 0.3)", gt=0, le=1)

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with score_better, the share of scored pairs of the run whose score is higher."""
        return self.relate_with(rows, self.sums(rows))

    def sums(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Pairs per score (``score`` in units of its last decimal, ``n``); those of an index do not count."""
        new = with_missing(rows, self.reads).filter(~indexed() & pl.col("score").is_not_null())
        return new.group_by(score=_steps()).agg(n=pl.len().cast(pl.UInt64))

    def relate_with(self, rows: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
        """As ``relate``, with the sums of all units."""
        ranked = sums.sort("score", descending=True)
        total = int(ranked["n"].sum()) or 1
        better = (pl.col("n").cum_sum() - pl.col("n")).cast(pl.Float64) / total
        shares = ranked.select(_score="score", score_better=better)
        rows = with_missing(rows, self.reads).drop("score_better", strict=False).with_columns(_score=_steps())
        return rows.join(shares, on="_score", how="left", maintain_order="left").drop("_score")

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"below_percentile": pl.col("score_better") >= self.best}


def _steps() -> pl.Expr:
    return (pl.col("score").cast(pl.Float64) * float(10**DECIMALS)).round().cast(pl.Int32)
