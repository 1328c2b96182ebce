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
from .near_images import block_masks, image_pairs
from .shingles import I64, U64, fold_column, hash_strings, mix64


class Split(StageModel):
    """Writes ``cluster`` and ``split``; drops only what stands between the splits of earlier runs."""

    name: ClassVar[str] = "split"
    adds: ClassVar[tuple[str, ...]] = ("cluster", "split")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "phash", "page_url", "cluster", "split")

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
        return self.settle(ordered, *self.pairs(ordered)).sort("_at").drop("_at")

    def pairs(self, rows: pl.DataFrame) -> tuple[I64, I64]:
        """Row numbers (a, b) that must share a cluster."""
        hashed = np.flatnonzero(rows["phash"].is_not_null().to_numpy())
        a, b = image_pairs(rows["phash"].drop_nulls().to_numpy(), self.image_bits)
        edges = [(hashed[a], hashed[b]), *(_equal(values) for values in self._shared(rows))]
        return np.concatenate([e[0] for e in edges]), np.concatenate([e[1] for e in edges])

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: entries of ``rows`` (with ``node``), by partition; see ``meet``."""
        rows = with_missing(rows, self.reads)
        entries = rows.select("node", "key", value="phash").drop_nulls()
        masks = block_masks(self.image_bits)
        frames = [(t, entries, pl.Series(entries["value"].to_numpy() & mask)) for t, mask in enumerate(masks)]
        for number, values in enumerate(self._shared(rows), len(masks)):
            shared = rows.select("node", "key", value=values).drop_nulls()
            frames.append((number, shared, shared["value"]))
        for table, own, bucket in frames:
            placed = mix64(bucket.to_numpy() + np.uint64(table)) % np.uint64(partitions)
            own = own.with_columns(table=pl.lit(table, pl.UInt8), _to=pl.Series(placed, dtype=pl.UInt64))
            for (partition,), some in own.group_by("_to"):
                yield int(str(partition)), some.drop("_to")

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) that must share a cluster, as one partition shows them."""
        found = []
        masks = block_masks(self.image_bits)
        for (table,), rows in entries.sort("table", "key").group_by("table", maintain_order=True):
            number, values, node = int(str(table)), rows["value"], rows["node"].to_numpy()
            near = number < len(masks)
            a, b = image_pairs(values.to_numpy(), self.image_bits, [masks[number]]) if near else _equal(values)
            found.append((node[a], node[b]))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

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

    def _shared(self, rows: pl.DataFrame) -> list[pl.Series]:
        """Columns of hashes whose equal values share a cluster; null joins nothing."""
        columns = []
        if self.by_caption:
            columns.append(pl.Series(fold_column(rows["caption"]).text_hash()))
        if self.by_page:
            pages = rows["page_url"]
            hashes = pl.Series(hash_strings(pages))
            columns.append(pl.select(pl.when(pages.is_not_null()).then(hashes)).to_series())
        return columns

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
