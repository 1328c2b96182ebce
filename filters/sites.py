"""Counting over a run what the pages of one site share: the ground of ``templates`` and ``site_tails``.

A stage that counts cuts its rows into ``entries`` (site and text as one 64-bit value, page, rest), each once.
``count`` says on how many pages, and beside how many different rests, each value stands. Entries of one value
meet in one place whatever the machine count, so the counts are the same (``pipeline/relate_beam.py``).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from .shingles import U64, hash_strings, mix64

ENTRY = ("value", "page", "rest")
_HOST = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)"


def site(page_url: pl.Series) -> pl.Series:
    """(rows,) 64 bits of each page's host; null where there is none."""
    host = page_url.str.extract(_HOST).str.to_lowercase()
    return pl.select(pl.when(host.is_not_null()).then(pl.Series(hash_strings(host), dtype=pl.UInt64))).to_series()


def on_site(sites: pl.Series, text: U64) -> pl.Series:
    """(rows,) 64 bits of site and text (64 bits each); null where there is no site."""
    both = mix64(sites.fill_null(0).to_numpy() ^ mix64(text))
    return pl.select(pl.when(sites.is_not_null()).then(pl.Series(both, dtype=pl.UInt64))).to_series()


def entries(value: pl.Series, page_url: pl.Series, rest: U64 | None = None) -> pl.DataFrame:
    """One row per value, page and rest; rows whose value is null are left out."""
    frame = pl.DataFrame(
        {
            "value": value,
            "page": pl.Series(hash_strings(page_url), dtype=pl.UInt64),
            "rest": pl.Series(np.zeros(len(value), dtype=np.uint64) if rest is None else rest, dtype=pl.UInt64),
        }
    )
    return frame.filter(pl.col("value").is_not_null()).unique()


def count(found: pl.DataFrame) -> pl.DataFrame:
    """(value, pages, rests): on how many pages and beside how many different rests each value of ``entries`` is."""
    return found.group_by("value").agg(
        pages=pl.col("page").n_unique().cast(pl.UInt32), rests=pl.col("rest").n_unique().cast(pl.UInt32)
    )
