"""The ledger by row number, read as little as a page needs.

A row's number is its place in the ledger's files in the order of their names. The few columns that selections are
made of are held (some 20 bytes a row); everything else is read from the parquet files when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ...pipeline import files
from ...pipeline.columns import COLUMNS
from ...pipeline.errors import UsageError, nearest
from ...pipeline.ledger import scan_ledger

Rows = npt.NDArray[np.int64]
FACETS = ("status", "stage", "reason", "split")


class Table:
    """The ledger of one finished run; ``RunError`` where there is none."""

    def __init__(self, run: str) -> None:
        self.lazy = scan_ledger(run)
        folder = files.join(run, "ledger")
        self.paths = [files.join(folder, name) for name in files.names(folder, ".parquet")]
        heights = files.each(_height, self.paths, folder)
        self.starts: Rows = np.concatenate([[0], np.cumsum(heights)]).astype(np.int64)
        self.names = frozenset(self.lazy.collect_schema().names())
        self.light = self.lazy.select([pl.col(c).cast(pl.Categorical) for c in FACETS]).collect()

    @property
    def height(self) -> int:
        """Rows of the ledger: pairs that the run read."""
        return int(self.starts[-1])

    @cached_property
    def facets(self) -> list[dict[str, Any]]:
        """Pairs by status, stage and reason, the most frequent first."""
        names = ["status", "stage", "reason"]
        counted = self.light.group_by(names).len("pairs").with_columns(pl.col(names).cast(pl.String))
        return counted.sort(["pairs", *names], descending=[True, False, False, False]).to_dicts()

    @cached_property
    def measures(self) -> list[str]:
        """Columns of numbers that pairs can be ordered by."""
        schema = self.lazy.collect_schema()
        return [
            c.name
            for c in COLUMNS.values()
            if c.name in schema and schema[c.name].is_numeric() and c.unit and c.name not in ("offset", "length")
        ]

    def facet(self, chosen: dict[str, str]) -> Rows:
        """Numbers of the rows with these values in status, stage, reason and split.

        Raises ``UsageError`` for a value that no row has.
        """
        told = np.ones(self.height, bool)
        for name, value in chosen.items():
            held = self.light[name].drop_nulls().unique().cast(pl.String).to_list()
            if value not in held:
                raise UsageError(f"{name} {value!r}: no pair has it; {nearest(value, held)}")
            told &= (self.light[name] == value).fill_null(False).to_numpy()
        return np.flatnonzero(told)

    def holding(self, words: str) -> Rows:
        """Rows whose caption, as found or as it ships, holds ``words``; their addresses where these hold ``://``."""
        columns = ("image_url", "page_url") if "://" in words else ("caption_raw", "caption")
        told = pl.any_horizontal([pl.col(c).str.contains(words, literal=True).fill_null(False) for c in columns])
        return self.lazy.select(told.alias("yes")).collect().to_series().to_numpy().nonzero()[0]

    def measure(self, name: str) -> npt.NDArray[np.float64]:
        """(height,) the numbers of a column, NaN where there is none; ``UsageError`` for another column."""
        if name not in self.measures:
            raise UsageError(f"order by {name!r}: {nearest(name, self.measures)}")
        return self.lazy.select(pl.col(name).cast(pl.Float64)).collect().to_series().fill_null(float("nan")).to_numpy()

    def keyed(self, key: str, most: int = 20) -> list[int]:
        """Numbers of the first ``most`` rows whose key starts with ``key``."""
        found = self.lazy.select("key").with_row_index("row").filter(pl.col("key").str.starts_with(key.lower()))
        return found.head(most).select("row").collect()["row"].to_list()

    def read(self, rows: Rows, columns: Sequence[str]) -> pl.DataFrame:
        """The named columns (those the ledger has) of ``rows``, in their order; row numbers as ``row``."""
        wanted = [c for c in columns if c in self.names]
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        schema = self.lazy.collect_schema()
        parts = [pl.DataFrame(schema={**{c: schema[c] for c in wanted}, "row": pl.Int64})]
        for owner in np.unique(owners):
            mine = rows[owners == owner]
            inside = mine - self.starts[owner]
            first, last = int(inside.min()), int(inside.max())
            piece = _slice(self.paths[owner], wanted, first, last - first + 1)
            parts.append(piece[inside - first].with_columns(row=pl.Series(mine)))
        found = pl.concat(parts, how="diagonal")
        order = pl.DataFrame({"row": rows})
        return order.join(found.unique("row"), on="row", how="left", maintain_order="left")

    def stream(self, rows: Rows, columns: Sequence[str], step: int = 20_000) -> Iterator[pl.DataFrame]:
        """``read`` a piece at a time."""
        for start in range(0, len(rows), step):
            yield self.read(rows[start : start + step], columns)


def _height(path: str) -> int:
    with files.open_read(path) as handle:
        return int(pq.read_metadata(handle).num_rows)


def _slice(path: str, columns: list[str], first: int, rows: int) -> pl.DataFrame:
    fs, inner = files.filesystem(path)
    if isinstance(fs, LocalFileSystem):
        return pl.scan_parquet(inner).select(columns).slice(first, rows).collect()
    return files.read_parquet(path, columns).slice(first, rows)
