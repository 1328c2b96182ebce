"""Pairs that something ties together: near-identical images, the same caption, the same page.

A picture has one hash as a whole and, where plain borders frame it, one of what they hold; two pictures are
tied by either.

``Joins`` finds the ties among all rows at once (``pairs``) or, on many machines, partition by partition
(``spread``, then ``meet``): the same ties either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from .near_images import block_masks, image_pairs
from .partitions import by_partition, key_number
from .shingles import I64, U64, fold_column, hash_strings, mix64

HASHES = ("phash", "phash_inside")


@dataclass(frozen=True)
class Joins:
    """What ties two rows: images within ``image_bits`` (None: not images), folded ``caption``, ``page``.

    ``hashes`` are the columns that hold 64-bit hashes of the image.
    """

    image_bits: int | None
    caption: bool = False
    page: bool = False
    hashes: tuple[str, ...] = HASHES

    def pairs(self, rows: pl.DataFrame) -> tuple[I64, I64]:
        """Row numbers (a, b) of ties enough to connect all that are tied."""
        edges = [equal_values(values) for values in self._shared(rows)]
        if self.image_bits is not None:
            at = np.concatenate([rows[c].is_not_null().arg_true().cast(pl.Int64).to_numpy() for c in self.hashes])
            values = np.concatenate([rows[c].drop_nulls().to_numpy() for c in self.hashes])
            a, b = image_pairs(values, self.image_bits)
            edges.append((at[a], at[b]))
        return np.concatenate([e[0] for e in edges]), np.concatenate([e[1] for e in edges])

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """Entries of ``rows`` (with ``node`` and ``key``) by partition, one per row and table."""
        rows = rows.with_columns(key_number())
        entries = pl.concat(rows.select("node", "key", value=c).drop_nulls() for c in self.hashes)
        frames = [(t, entries, entries["value"].to_numpy() & mask) for t, mask in enumerate(self._masks())]
        for table, values in enumerate(self._shared(rows), len(frames)):
            shared = rows.select("node", "key", value=values).drop_nulls()
            frames.append((table, shared, shared["value"].to_numpy()))
        to = [mix64(bucket + np.uint64(table)) % np.uint64(partitions) for table, _, bucket in frames]
        placed = pl.concat(own.with_columns(table=pl.lit(table, pl.UInt8)) for table, own, _ in frames)
        return by_partition(placed, np.concatenate(to))

    @property
    def entries_per_row(self) -> int:
        """How many entries ``spread`` makes of a row, about: framed pictures, which have two hashes, are few."""
        return len(self._masks()) + self.caption + self.page

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) of the ties that one partition shows."""
        masks, found = self._masks(), []
        for (number,), rows in entries.sort("table", "key", "node", "value").group_by("table", maintain_order=True):
            table, values, node = int(str(number)), rows["value"], rows["node"].to_numpy()
            if table < len(masks):
                a, b = image_pairs(values.to_numpy(), self.image_bits or 0, [masks[table]])
            else:
                a, b = equal_values(values)
            found.append((node[a], node[b]))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def _masks(self) -> list[np.uint64]:
        return [] if self.image_bits is None else block_masks(self.image_bits)

    def _shared(self, rows: pl.DataFrame) -> list[pl.Series]:
        """Columns of hashes whose equal values tie rows; null ties nothing."""
        columns = []
        if self.caption:
            columns.append(pl.Series(fold_column(rows["caption"]).text_hash(), dtype=pl.UInt64))
        if self.page:
            pages = rows["page_url"]
            hashes = pl.Series(hash_strings(pages), dtype=pl.UInt64)
            columns.append(pl.select(pl.when(pages.is_not_null()).then(hashes)).to_series())
        return columns


def equal_values(values: pl.Series) -> tuple[I64, I64]:
    """Linear edges: each row with the first row of the same value; nulls join nothing."""
    frame = pl.DataFrame({"value": values}).with_row_index("at").filter(pl.col("value").is_not_null())
    frame = frame.with_columns(first=pl.col("at").first().over("value")).filter(pl.col("at") != pl.col("first"))
    return frame["first"].cast(pl.Int64).to_numpy(), frame["at"].cast(pl.Int64).to_numpy()
