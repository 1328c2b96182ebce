"""Train, val and test by cluster: no two near-identical pairs stand on different sides.

A cluster is a connected component over near-identical images, over equal folded captions or over
pages, as chosen; its name is its smallest key, and the split is a keyed hash of that name. So a pair
keeps its split whenever data is added, unless a pair with a smaller key joins its cluster (for one
new member in a cluster of m that is one chance in m + 1, times the chance that the hash then says
another split). Where even that must not happen, a run against an index keeps the split on record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..pipeline.columns import with_missing
from ..pipeline.index import indexed
from ..pipeline.stage import Phase, StageModel
from .components import components
from .joins import HASHES, Joins
from .shingles import I64, U64, mix64


class Split(StageModel):
    """Writes ``cluster`` and ``split``; drops only what stands between the splits of earlier runs."""

    name: ClassVar[str] = "split"
    adds: ClassVar[tuple[str, ...]] = ("cluster", "split")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", *HASHES, "page_url", "cluster", "split")

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

    index: str = Field("", description="directory of an index; pairs near one it holds take its cluster and split")

    @model_validator(mode="after")
    def _room_for_train(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} + test {self.test} leave nothing for train; their sum must be below 1")
        return self

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with their cluster (its smallest key) and split; any order in, the same out."""
        ordered = with_missing(rows, self.reads).with_row_index("_at").sort("key", "origin")
        return self.settle(ordered, *self.joins().pairs(ordered)).sort("_at").drop("_at")

    def joins(self) -> Joins:
        """What joins two pairs into one cluster."""
        return Joins(self.image_bits, self.by_caption, self.by_page)

    @property
    def entries_per_row(self) -> int:
        """One per block of the image's hash, and for whatever else ties two rows."""
        return self.joins().entries_per_row

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: entries of ``rows`` (with ``node``), by partition."""
        return self.joins().spread(with_missing(rows, self.reads), partitions)

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) that must share a cluster, as one partition shows them."""
        return self.joins().meet(entries)

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """``rows``, in order of key, with cluster and split, where (a, b) share a cluster.

        A cluster with indexed pairs keeps their cluster's name and split; where they stand in several
        splits, the new pairs between them get none.
        """
        label = pl.Series("label", components(rows.height, a, b))
        held = with_missing(rows, ("unit", "cluster", "split")).select("cluster", "split", held=indexed())
        held = held.with_columns(label).filter(pl.col("held"))
        known = held.group_by("label").agg(pl.col("cluster", "split").min(), several=pl.col("split").n_unique() > 1)
        found = rows.select(name=pl.col("key").gather(label)).with_columns(label)
        found = found.join(known, on="label", how="left", maintain_order="left")
        cluster = found.select(pl.coalesce("cluster", "name")).to_series()
        fresh = pl.DataFrame({"several": found["several"], "known": found["split"], "fresh": self.split_of(cluster)})
        split = fresh.select(pl.when(~pl.col("several").fill_null(False)).then(pl.coalesce("known", "fresh")))
        told = pl.lit("it is near pairs that earlier runs put into different splits")
        return rows.with_columns(cluster=cluster, split=split.to_series()).with_columns(
            detail=pl.when(pl.col("split").is_null()).then(told).otherwise("detail")
        )

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"straddles_splits": pl.col("split").is_null()}

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


def _keyed(keys: pl.Series, seed: int) -> U64:
    """(keys,) 64-bit hash of each key (32 hex digits) with ``seed``; the same on every machine and version."""
    text = keys.str.pad_end(32, "0").str.join("").item() if len(keys) else ""
    words = np.frombuffer(text.encode("ascii"), dtype="<u8").reshape(len(keys), 4)
    hashed = np.full(len(keys), mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0])
    for column in range(4):
        hashed = mix64(hashed ^ words[:, column])
    return hashed
