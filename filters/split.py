"""Train, val and test by cluster: no two near-identical pairs stand on different sides.

A cluster is a connected component over near-identical images, over equal folded captions or over
pages, as chosen; its name is its smallest key, and the split is a keyed hash of that name. So a pair
keeps its split whenever data is added, unless a pair with a smaller key joins its cluster (for one
new member in a cluster of m that is one chance in m + 1, times the chance that the hash then says
another split). Where even that must not happen, a run against an index keeps the split on record.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..pipeline.stage import Phase, StageModel
from .components import components
from .near_images import image_pairs
from .shingles import I64, U64, fold_column, mix64


class Split(StageModel):
    """Writes ``cluster`` and ``split``; drops nothing."""

    name: ClassVar[str] = "split"
    adds: ClassVar[tuple[str, ...]] = ("cluster", "split")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "phash", "page_url")

    val: float = Field(
        0.01, ge=0, lt=1, description="share of clusters in val (a choice: 1 % of 100,000 pairs is 1,000)"
    )
    test: float = Field(0.01, ge=0, lt=1, description="share of clusters in test (as val)")
    image_bits: int = Field(
        4,
        ge=0,
        le=10,
        description="image hashes at most so many bits of 64 apart share a cluster; lower than for pair duplicates, "
        "since here nothing but the image speaks and chains of chance matches would grow",
    )
    by_caption: bool = Field(False, description="pairs with the same folded caption share a cluster")
    by_page: bool = Field(False, description="pairs of one page share a cluster")
    seed: int = Field(0, description="key of the hash that turns a cluster's name into its split")

    @model_validator(mode="after")
    def _room_for_train(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} + test {self.test} leave nothing for train; their sum must be below 1")
        return self

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with their cluster (its smallest key) and split; any order in, the same out."""
        ordered = rows.with_row_index("_at").sort("key", "origin")
        label = components(ordered.height, *self.pairs(ordered))
        cluster = ordered["key"].gather(label)
        done = ordered.select("_at").with_columns(cluster=cluster, split=self.split_of(cluster)).sort("_at")
        return rows.with_columns(done["cluster"], done["split"])

    def pairs(self, rows: pl.DataFrame) -> tuple[I64, I64]:
        """Row numbers (a, b) that must share a cluster."""
        hashed = np.flatnonzero(rows["phash"].is_not_null().to_numpy())
        a, b = image_pairs(rows["phash"].drop_nulls().to_numpy(), self.image_bits)
        edges = [(hashed[a], hashed[b])]
        if self.by_caption:
            edges.append(_equal(pl.Series(fold_column(rows["caption"]).text_hash())))
        if self.by_page:
            edges.append(_equal(rows["page_url"]))
        return np.concatenate([e[0] for e in edges]), np.concatenate([e[1] for e in edges])

    def split_of(self, cluster: pl.Series) -> pl.Series:
        """The split of each cluster's name: a hash of it in [0, 1), cut at ``test`` and ``test + val``."""
        share = pl.Series(_keyed(cluster, self.seed) >> np.uint64(11)).cast(pl.Float64) / 2.0**53
        return (
            pl.select(
                pl.when(share < self.test)
                .then(pl.lit("test"))
                .when(share < self.test + self.val)
                .then(pl.lit("val"))
                .otherwise(pl.lit("train"))
            )
            .to_series()
            .alias("split")
        )


def _equal(values: pl.Series) -> tuple[I64, I64]:
    """Linear edges: each row with the first row of the same value; nulls join nothing."""
    frame = pl.DataFrame({"value": values}).with_row_index("at").filter(pl.col("value").is_not_null())
    frame = frame.with_columns(first=pl.col("at").first().over("value")).filter(pl.col("at") != pl.col("first"))
    return frame["first"].cast(pl.Int64).to_numpy(), frame["at"].cast(pl.Int64).to_numpy()


def _keyed(keys: pl.Series, seed: int) -> U64:
    """(keys,) 64-bit hash of each key (32 hex digits) with ``seed``; the same on every machine and version."""
    text = keys.str.pad_end(32, "0").str.join("").item() if len(keys) else ""
    words = np.frombuffer(text.encode("ascii"), dtype="<u8").reshape(len(keys), 4)
    hashed = np.full(len(keys), mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0])
    for column in range(4):
        hashed = mix64(hashed ^ words[:, column])
    return hashed
