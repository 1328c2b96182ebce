"""How often a caption stands in the run: a measure, and by choice a reason.

Wukong and COYO drop texts that occur more than ten times. That loses pairs: 16 % of the human captions of
Flickr8k-CN repeat another one, mostly on other photos. So the count is always there and the cap is off; a cap
that keeps the best few of a caption's images instead is ``caption_repeats``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl

from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel, threshold
from . import sites
from .shingles import fold_column


class CaptionFrequency(StageModel):
    """Counts the pairs with each caption and, by choice, drops those of frequent ones."""

    name: ClassVar[str] = "caption_frequency"
    adds: ClassVar[tuple[str, ...]] = ("caption_count",)
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption",)

    most: int = threshold(0, "pairs with one caption, more drop them all (Wukong, COYO: 10); 0: no cap", ge=0)

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with caption_count, the pairs that carry the caption, equal after folding."""
        return self.apply(rows, self.count(self.entries(rows)))

    def entries(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Each pair's folded caption, once."""
        return sites.entries(_texts(rows), rows["key"])

    def count(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Pairs by caption."""
        return sites.count(entries)

    def apply(self, rows: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with what was ``counted`` of them."""
        found = pl.DataFrame({"value": _texts(rows)}).join(counted, on="value", how="left", maintain_order="left")
        return rows.with_columns(caption_count=found["pages"])

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"caption_too_frequent": pl.lit(self.most > 0) & (pl.col("caption_count") > self.most)}


def _texts(rows: pl.DataFrame) -> pl.Series:
    return pl.Series(fold_column(with_missing(rows, ("caption",))["caption"]).text_hash(), dtype=pl.UInt64)
