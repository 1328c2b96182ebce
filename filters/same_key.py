"""One pair per key: shard members are named by it.

Pairs of one key have the same image (URL or bytes) and the same raw caption. The one with the smallest
origin stays (one that an earlier run put into the index before all), so the choice does not depend on how
the input was cut into units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import polars as pl

from ..pipeline.index import indexed
from ..pipeline.stage import Phase, StageModel
from .shingles import I64, U64, hash_strings


class SameKey(StageModel):
    """Drops all pairs of one key but that of the smallest origin; runs first, recipe or not."""

    name: ClassVar[str] = "relate"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of, duplicate_kind and detail on the second and later pairs of a key."""
        rows = rows.with_row_index("_at")
        several = rows.select("_at", "key", "origin", "unit", "ordinal").filter(pl.col("key").is_duplicated())
        first = pl.col("_at").first().over("key")
        second = (
            several.sort(~indexed(), "origin", "unit", "ordinal")
            .with_columns(_first=first, stays=pl.col("origin").first().over("key"))
            .filter(pl.col("_at") != pl.col("_first"))
            .select("_at", "stays")
        )
        gone = pl.col("stays").is_not_null()
        return (
            rows.join(second, on="_at", how="left", maintain_order="left")
            .with_columns(
                duplicate_of=pl.when(gone).then("key"),
                duplicate_kind=pl.when(gone).then(pl.lit("key")),
                detail=pl.when(gone)
                .then(pl.format("same image and caption as {}, which stays", "stays"))
                .otherwise("detail"),
            )
            .drop("_at", "stays")
        )

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """The keys of ``rows`` (with ``node``) by partition."""
        to = pl.Series(hash_strings(rows["key"]) % np.uint64(partitions))
        for (partition,), some in rows.select("node", "key", _to=to).group_by("_to"):
            yield int(str(partition)), some.drop("_to")

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b): each pair of a key with the first."""
        again = entries.sort("key", "node").with_columns(first=pl.col("node").first().over("key"))
        again = again.filter(pl.col("node") != pl.col("first"))
        return again["first"].to_numpy(), again["node"].to_numpy()

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """As ``relate``: the rows of a key stand together."""
        return self.relate(rows)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"same_pair": pl.col("duplicate_kind") == "key"}
