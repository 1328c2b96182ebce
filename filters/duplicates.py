"""Pair duplicates: image near-identical *and* caption near-identical.

Text-only removal deletes good pairs (16 % of the human captions of Flickr8k-CN repeat another
word for word, mostly on other photos), image-only removal deletes good captions. Here a pair goes
only where both match one that stays:

- image: perceptual hashes at most ``image_bits`` of 64 apart, fewer where many pairs share the caption;
- caption: equal after folding, or character bigrams alike, or one with a suffix; and no contrast.

Rows that match form components; of each the row with the highest score stays (none counts lowest),
then the one with the most pixels, then the smallest key, then the smallest origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.stage import Phase, StageModel
from .candidates import WINDOW, all_pairs, allowed_bits
from .components import components
from .minhash import PERMUTATIONS, signatures
from .near_captions import CaptionRule
from .shingles import I64, U64, fold_column

RANK = ("score", "pixels", "key", "origin")


class PairDuplicates(StageModel):
    """Drops a pair whose image and caption both match a better pair's."""

    name: ClassVar[str] = "pair_duplicates"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "phash", "score", "width", "height")

    image_bits: int = Field(
        10,
        ge=0,
        le=16,
        description="bits of the 64-bit image hash that may differ; on photos re-encoding, resizing, brightness and a "
        "small watermark move 0 to 6, a crop of 3 % up to 10, unrelated photos differ in 14 or more (measured)",
    )
    jaccard: float = Field(
        0.5,
        gt=0,
        le=1,
        description="least Jaccard similarity of the captions' character bigrams; one character changed in a "
        "caption of 7 gives 0.5, and so do two in one of 13",
    )
    affix: float = Field(
        0.4,
        gt=0,
        le=1,
        description="least share of the longer caption, where it begins or ends with the shorter one",
    )
    contrast: bool = Field(
        True, description="keep both where the captions differ in a number, colour, side, sex, size or season"
    )

    def rule(self) -> CaptionRule:
        """The caption side of the rule."""
        return CaptionRule(self.jaccard, self.affix, self.contrast)

    def pairs(self, caption: pl.Series, image: U64) -> tuple[I64, I64]:
        """Row numbers (a, b) of all pairs found to be duplicates; ``image`` are the rows' hashes."""
        folded = fold_column(caption)
        text = folded.text_hash()
        _, at, counts = np.unique(text, return_inverse=True, return_counts=True)
        bits = allowed_bits(counts[at], self.image_bits)
        rule = self.rule()
        return all_pairs(
            signatures(folded, PERMUTATIONS), image, bits, WINDOW, lambda a, b: rule.near(folded, a, b, text)
        )

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of and duplicate_kind, detail for those that go; any order in, the same out."""
        rows = with_pixels(rows).with_row_index("_at")
        hashed = rows.filter(pl.col("phash").is_not_null()).sort("key", "origin")
        a, b = self.pairs(hashed["caption"], hashed["phash"].to_numpy())
        label = components(hashed.height, a, b)
        found = stays(hashed.with_columns(group=pl.Series(label)).select("_at", "group", *RANK))
        return (
            rows.join(found, on="_at", how="left", maintain_order="left")
            .with_columns(
                duplicate_of=pl.col("best_key"),
                duplicate_kind=pl.when(pl.col("best_key").is_not_null()).then(pl.lit("pair")),
                detail=why_it_stays(),
            )
            .drop("_at", "pixels", "best_key", "best_score", "best_pixels", "best_origin")
        )

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"pair_duplicate": pl.col("duplicate_kind") == "pair"}


def with_pixels(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with ``pixels``: width times height, 0 where unknown."""
    return rows.with_columns(pixels=(pl.col("width").cast(pl.UInt64) * pl.col("height")).fill_null(0))


def stays(rows: pl.DataFrame) -> pl.DataFrame:
    """For each row that is not the best of its ``group``: ``_at`` and the best row's rank as ``best_…``."""
    many = rows.filter(pl.len().over("group") > 1)
    order = many.sort(
        pl.col("score").fill_null(float("-inf")).fill_nan(float("-inf")),
        "pixels",
        "key",
        "origin",
        descending=[True, True, False, False],
    )
    best = order.unique("group", keep="first", maintain_order=True).select(
        "group", *(pl.col(c).alias(f"best_{c}") for c in RANK), pl.col("_at").alias("_best")
    )
    return many.join(best, on="group").filter(pl.col("_at") != pl.col("_best")).drop("group", "_best", *RANK)


def why_it_stays() -> pl.Expr:
    """A sentence that says which row stays and what decided: score, pixels, key or origin."""
    score, best = pl.col("score").fill_nan(None), pl.col("best_score").fill_nan(None)
    return (
        pl.when(pl.col("best_key").is_null())
        .then(pl.col("detail"))
        .when(best.is_not_null() & score.is_null())
        .then(pl.format("{} stays: it has a score", "best_origin"))
        .when(best > score)
        .then(pl.format("{} stays: score {} > {}", "best_origin", best.round(4), score.round(4)))
        .when(pl.col("best_pixels") > pl.col("pixels"))
        .then(pl.format("{} stays: {} > {} pixels", "best_origin", "best_pixels", "pixels"))
        .when(pl.col("best_key") < pl.col("key"))
        .then(pl.format("{} stays: equal score and pixels, smaller key", "best_origin"))
        .otherwise(pl.format("{} stays: equal but for the origin", "best_origin"))
    )
