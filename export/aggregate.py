"""What the report page holds: counts, histograms and samples, never the ledger itself.

The ledger is read lazily, a few columns at a time, so that a million rows cost seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from ..pipeline import files
from ..pipeline.ledger import scan_ledger
from ..pipeline.recipe import from_description
from .gallery import SPANS, gallery, thumb_name, twins
from .pictures import pictures
from .sliders import controls, narrow, sliders
from .words import words
from .worth import worth

RUN_WORDS = (
    *("version", "created", "counts", "splits", "shards", "notices", "runner", "times", "dropped_too"),
    *("replay_of", "amended", "machine", "resources"),
)
BESIDE = (("value.html", "value"), ("README.md", "card"), ("croissant.json", "croissant"))
"""Other pages of the run directory that the report links where they are there."""
PRIVATE = ("names",)
"""Span columns whose words are not listed: they are people."""


def aggregate(run: str, told: dict[str, Any]) -> dict[str, Any]:
    """The page's data from run.json (``told``), the ledger and the thumbnails."""
    ledger = scan_ledger(run)
    recipe = from_description(told["recipe"])
    thumbs = files.read_parquet(files.join(run, "thumbs.parquet"))
    found = controls(recipe)
    rows = narrow(ledger, recipe, found)
    reasons = {r for row in told["stages"].values() for r in (*row["dropped"], *row["failures"])} | {"kept"}
    reasons |= {r for control in found for r in control.reasons}
    shown = {"gallery": gallery(ledger, thumbs, recipe), "twins": twins(ledger, thumbs, recipe)}
    return {
        "kind": "run",
        "run": {k: told.get(k) for k in RUN_WORDS},
        "recipe": {k: told["recipe"].get(k) for k in ("name", "hash", "about", "source")},
        "stages": told["stages"],
        "words": {r: words(r) for r in sorted(reasons)},
        "controls": sliders(rows, recipe, told, found),
        "pictures": pictures(rows, found),
        "tables": tables(ledger),
        **shown,
        "thumbs": used_thumbs(thumbs, shown),
        "worth": worth(run),
        "beside": [[name, what] for name, what in BESIDE if files.exists(files.join(run, name))],
    }


def used_thumbs(thumbs: pl.DataFrame, shown: Any) -> dict[str, str]:
    """The pictures (JPEG, base64) that the cards in ``shown`` refer to, by their name."""
    names = set(_thumb_names(shown))
    return {
        name: base64.b64encode(thumb).decode()
        for unit, ordinal, thumb in thumbs.select("unit", "ordinal", "thumb").rows()
        if (name := thumb_name(unit, ordinal)) in names
    }


def _thumb_names(shown: Any) -> Iterator[str]:
    if isinstance(shown, dict):
        if "thumb" in shown:
            yield shown["thumb"]
        shown = shown.values()
    elif not isinstance(shown, list):
        return
    for part in shown:
        yield from _thumb_names(part)


def tables(ledger: pl.LazyFrame) -> dict[str, list[tuple[str, int, int]]]:
    """Where pairs come from and what was found in them: rows of (value, pairs, kept)."""
    held = ledger.collect_schema().names()
    top = {
        "hosts": _top(ledger, pl.col("image_url").str.extract(r"^https?://([^/:?#]+)")),
        "languages": _top(ledger, pl.col("lang")),
        "formats": _top(ledger, pl.col("format")),
        "origins": _top(ledger, pl.col("caption_origin")),
    }
    for column in ("unsafe_class", "prompt_class"):
        if column in held:
            top[column] = _top(ledger, pl.col(column))
    for column in (c for c in SPANS if c in held):
        spans = ledger.select("status", s=pl.col(column).list.unique()).explode("s").drop_nulls("s")
        category = pl.col("s").struct.field("category")
        top[f"{column}: category"] = _top(spans, category)
        if column not in PRIVATE:
            top[f"{column}: word"] = _top(spans, pl.col("s").struct.field("word").str.slice(0, 60))
    return {name: rows for name, rows in top.items() if rows}


def _top(ledger: pl.LazyFrame, column: pl.Expr) -> list[tuple[str, int, int]]:
    """(value, pairs, kept) of the fifteen most frequent values."""
    rows: Sequence[tuple[Any, ...]] = (
        ledger.select(column.alias("v"), kept=pl.col("status") == "kept")
        .drop_nulls("v")
        .group_by("v")
        .agg(n=pl.len(), kept=pl.col("kept").sum())
        .sort(["n", "v"], descending=[True, False])
        .head(15)
        .collect()
        .rows()
    )
    return [(str(v), int(n), int(k)) for v, n, k in rows]
