"""Pair duplicates: image near-identical *and* caption near-identical.

Text-only removal deletes good pairs (16 % of the human captions of Flickr8k-CN repeat another
word for word, mostly on other photos), image-only removal deletes good captions. Here a pair goes
only where both match one that stays:

- image: perceptual hashes at most ``image_bits`` of 64 apart and the same layout (``image_grid``), fewer
  bits where the layout is not known and where many pairs share the caption;
- caption: equal after folding, or character bigrams alike, or one with a suffix; and no contrast.

Rows that match form components that a garbled caption cannot bridge (``cautious``). Of each the row with
the highest score stays (none counts lowest), then the one with the most pixels, then the smallest key,
then the smallest origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel
from .candidates import WINDOW, all_pairs, allowed_bits
from .cautious import cautious_components
from .components import components
from .contrast import telling
from .image_grid import BYTES, Grids, same_layout
from .minhash import PERMUTATIONS, signatures
from .near_captions import CaptionRule, Flags
from .shingles import I64, U32, U64, fold_column

CHUNK = 1 << 16
RANK = ("score", "pixels", "key", "origin")


class PairDuplicates(StageModel):
    """Drops a pair whose image and caption both match a better pair's."""

    name: ClassVar[str] = "pair_duplicates"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "phash", "image_grid", "score", "width", "height")

    image_bits: int = Field(
        14,
        ge=0,
        le=20,
        description="bits of the 64-bit image hash that may differ where the layouts agree as well; re-encoding, "
        "resizing, brightness and a small watermark move 0 to 6, a crop of 5 % up to 14 (measured)",
    )
    hash_bits: int = Field(
        8,
        ge=0,
        le=16,
        description="the same where a pair carries no layout; of 179,700 pairs of photos 3 are within 14 (measured)",
    )
    jaccard: float = Field(
        0.7,
        ge=0.4,
        le=1,
        description="least Jaccard similarity of the captions' character bigrams (0.7 is the default of most "
        "MinHash tools); below, the two changed characters or the suffix must explain the difference",
    )
    edits: int = Field(2, ge=0, le=2, description="characters that may differ (1 from 5 characters on, 2 from 10 on)")
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
        return CaptionRule(self.jaccard, self.affix, self.edits, self.contrast)

    def pairs(self, rows: pl.DataFrame) -> tuple[I64, I64]:
        """Row numbers (a, b) of the pairs found to be duplicates; ``rows`` have caption, phash and image_grid."""
        folded = fold_column(rows["caption"])
        text, image, grid = folded.text_hash(), rows["phash"].to_numpy(), rows["image_grid"]
        bits = self.bits(text, grid.is_not_null().to_numpy())
        rule = self.rule()

        def verify(a: I64, b: I64) -> Flags:
            good = layouts_agree(grid, a, b)
            good[good] = rule.near(folded, a[good], b[good], text)
            return good

        return all_pairs(signatures(folded, PERMUTATIONS), image, bits, WINDOW, verify)

    def groups(self, captions: pl.Series, a: I64, b: I64) -> I64:
        """(rows,) the component of each row under the edges ``a``, ``b``, as its smallest row number."""
        if not self.contrast:
            return components(len(captions), a, b)
        nodes, at = np.unique(np.concatenate([a, b]), return_inverse=True)
        words = telling(fold_column(captions.gather(nodes)))
        label = np.arange(len(captions))
        label[nodes] = nodes[cautious_components(len(nodes), at[: len(a)], at[len(a) :], words)]
        return label

    def bits(self, text: U64, with_grid: Flags) -> U32:
        """(rows,) how far each row's image may be from another's; ``text`` are the rows' caption hashes."""
        _, at, counts = np.unique(text, return_inverse=True, return_counts=True)
        shared = counts[at]
        return np.where(with_grid, allowed_bits(shared, self.image_bits), allowed_bits(shared, self.hash_bits))

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of and duplicate_kind, detail for those that go; any order in, the same out."""
        rows = with_missing(with_pixels(rows), ("image_grid",)).with_row_index("_at")
        hashed = rows.filter(pl.col("phash").is_not_null()).sort("key", "origin")
        label = self.groups(hashed["caption"], *self.pairs(hashed))
        found = stays(hashed.select("_at", *RANK).with_columns(group=pl.Series(label)))
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


def layouts_agree(grid: pl.Series, a: I64, b: I64) -> Flags:
    """(pairs,) whether the layouts of rows ``a`` and ``b`` agree; true where one of them has none."""
    out: Flags = np.ones(len(a), dtype=np.bool_)
    for first in range(0, len(a), CHUNK):
        some = slice(first, first + CHUNK)
        one, other = grid.gather(a[some]), grid.gather(b[some])
        both = (one.is_not_null() & other.is_not_null()).to_numpy()
        known = [_matrix(g.filter(pl.Series(both))) for g in (one, other)]
        out[first + np.flatnonzero(both)] = same_layout(*known)
    return out


def _matrix(grid: pl.Series) -> Grids:
    return np.frombuffer(b"".join(grid.to_list()), dtype=np.uint8).reshape(-1, BYTES)


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
