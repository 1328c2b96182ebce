"""Captions that a site repeats on page after page: its logo, its menus, its advertisements.

No list of phrases knows a site's own templates, but counting does: on how many pages of one host does a
caption stand? On 41 news pages (benchmarks/text_rules.py) captions stand on one page, or on five and
more; little lies between. The count is taken over the whole run and over all pairs that reached this phase,
before the pairs of one key are made one: a banner is one image under one caption on every page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl

from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel, threshold
from . import sites
from .shingles import fold_column


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
        return self.apply(rows, self.count(self.entries(rows)))

    def entries(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Site and folded caption of each page (``sites.entries``)."""
        rows = with_missing(rows, self.reads)
        return sites.entries(_places(rows), rows["page_url"])

    def count(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Pages by site and caption."""
        return sites.count(entries)

    def apply(self, rows: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with what was ``counted`` of them."""
        rows = with_missing(rows, self.reads)
        found = pl.DataFrame({"value": _places(rows)}).join(counted, on="value", how="left", maintain_order="left")
        return rows.with_columns(template_count=found["pages"])

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"template_caption": pl.col("template_count") >= self.pages}


def _places(rows: pl.DataFrame) -> pl.Series:
    """(rows,) 64 bits of host and folded caption; null where there is no page."""
    return sites.on_site(sites.site(rows["page_url"]), fold_column(rows["caption"]).text_hash())
