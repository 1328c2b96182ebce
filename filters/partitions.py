"""Rows of a unit on their way to partitions: one small frame for each, of a few tens of bytes an entry.

A frame costs about 800 bytes on the wire whatever it holds, and at a billion pairs a unit meets thousands of
partitions. So all entries of a partition go in one frame, and a pair's key as the number that its first 16
digits are: enough to put pairs in order.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from .shingles import U64


def key_number() -> pl.Expr:
    """The first 16 hex digits of ``key`` as a number: the order of numbers is the order of keys."""
    return pl.col("key").str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64).alias("key")


def by_partition(entries: pl.DataFrame, to: U64) -> Iterator[tuple[int, pl.DataFrame]]:
    """``entries`` cut by the partition that ``to`` gives for each."""
    for (partition,), some in entries.with_columns(_to=pl.Series(to, dtype=pl.UInt64)).group_by("_to"):
        yield int(str(partition)), some.drop("_to")
