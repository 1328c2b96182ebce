"""Captions that a site repeats on page after page: its logo, its menus, its advertisements.

No list of phrases knows a site's own templates, but counting does: on how many pages of one host does a
caption stand? On 41 news pages (benchmarks/text_rules.py) captions stand on one page, or on five and
more; little lies between. The count is taken over the whole run and over all pairs that reached this phase,
before the pairs of one key are made one: a banner is one image under one caption on every page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import polars as pl

from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel, threshold
from .joins import equal_values
from .shingles import I64, U64, fold_column, hash_strings, mix64


class Templates(StageModel):
    """Drops captions that stand on many pages of one site."""

    name: ClassVar[str] = "templates"
    adds: ClassVar[tuple[str, ...]] = ("template_count",)
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "page_url")
    before_same_key: ClassVar[bool] = True

    pages: int = threshold(
        5, "pages of one host with one caption, from which on the words are the site's and not a picture's", ge=2
    )

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with template_count, the pages of the host that carry the caption; null without a page."""
        rows = with_missing(rows, self.reads)
        counted = rows.select("page_url", _text=_places(rows))
        pages = pl.col("page_url").n_unique().over("_text")
        count = counted.select(pl.when(pl.col("_text").is_not_null()).then(pages)).to_series()
        return rows.with_columns(template_count=count.cast(pl.UInt32))

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: a number per site and caption of ``rows`` (with ``node``), by partition."""
        entries = rows.select("node", "key", value=_places(with_missing(rows, self.reads))).drop_nulls()
        to = pl.Series(mix64(entries["value"].to_numpy()) % np.uint64(partitions), dtype=pl.UInt64)
        for (partition,), some in entries.with_columns(_to=to).group_by("_to"):
            yield int(str(partition)), some.drop("_to")

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) that share a site and a caption."""
        rows = entries.sort("key", "node")
        a, b = equal_values(rows["value"])
        node = rows["node"].to_numpy()
        return node[a], node[b]

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """As ``relate``: the rows of a site and caption stand together."""
        return self.relate(rows)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"template_caption": pl.col("template_count") >= self.pages}


def _places(rows: pl.DataFrame) -> pl.Series:
    """(rows,) 64 bits of host and folded caption; null where there is no page."""
    host = rows["page_url"].str.extract(r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)").str.to_lowercase()
    text = fold_column(rows["caption"]).text_hash()
    both = mix64(hash_strings(host) ^ mix64(text))
    return pl.select(pl.when(host.is_not_null()).then(pl.Series(both, dtype=pl.UInt64))).to_series().alias("value")
