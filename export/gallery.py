"""Pairs for the report: some per reason, duplicates beside the pair that stays, each with what decided on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ..pipeline.columns import COLUMNS, SPAN
from ..pipeline.comparisons import Comparison, comparisons, drops_with
from ..pipeline.recipe import Recipe

SHOWN = 12
"""Pairs shown per reason."""
KEPT_SHOWN = 24
TWINS_SHOWN = 12
"""Duplicates shown per kind."""
PLACE = ["unit", "ordinal"]
SPANS = tuple(c.name for c in COLUMNS.values() if c.ledger and c.dtype == pl.List(SPAN))
_SAID = ("key", "status", "stage", "reason", "detail", "caption_raw", "caption", "score", "width", "height")
_ALSO = ("image_url", "page_url", "duplicate_of", "duplicate_kind", "caption_synthetic", "negatives", "blocked")


def gallery(ledger: pl.LazyFrame, thumbs: pl.DataFrame, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Cards per reason (``kept`` among them), those with a picture first; chosen by key, so the same in every run."""
    chosen = _chosen(ledger, thumbs, pl.col("reason").fill_null("kept"), KEPT_SHOWN)
    held_cards = make_cards(ledger, chosen, thumbs, recipe)
    shown: dict[str, list[dict[str, Any]]] = {}
    for place, reason in zip(chosen.select(PLACE).rows(), chosen["_group"], strict=True):
        held = shown.setdefault(reason, [])
        if len(held) < (KEPT_SHOWN if reason == "kept" else SHOWN):
            held.append(held_cards[place])
    return dict(sorted(shown.items(), key=lambda item: (item[0] != "kept", item[0])))


def twins(ledger: pl.LazyFrame, thumbs: pl.DataFrame, recipe: Recipe) -> list[dict[str, Any]]:
    """Dropped duplicates, each with the pair that stays in its place: ``kind``, ``gone``, ``stays``."""
    lost = ledger.filter(pl.col("duplicate_of").is_not_null() & (pl.col("status") != "kept"))
    chosen = _chosen(lost, thumbs, pl.col("duplicate_kind").fill_null("pair"), TWINS_SHOWN)
    targets = lost.join(chosen.lazy().select(PLACE), on=PLACE, how="semi").select(key="duplicate_of").unique()
    stay = (
        ledger.join(targets, on="key", how="semi")
        .select(*PLACE, "key", _kept=pl.col("status") == "kept")
        .sort("_kept", descending=True)
        .unique("key", keep="first", maintain_order=True)
        .collect()
    )
    held_cards = make_cards(ledger, pl.concat([chosen.select(PLACE), stay.select(PLACE)]).unique(), thumbs, recipe)
    by_key = {key: held_cards[place] for *place_, key in stay.select(*PLACE, "key").rows() if (place := tuple(place_))}
    return [
        {"kind": kind, "gone": card, "stays": by_key[card["duplicate_of"]]}
        for place, kind in zip(chosen.select(PLACE).rows(), chosen["_group"], strict=True)
        if (card := held_cards[place]).get("duplicate_of") in by_key
    ]


def _chosen(ledger: pl.LazyFrame, thumbs: pl.DataFrame, group: pl.Expr, most: int) -> pl.DataFrame:
    """At most ``most`` pairs per group as unit, ordinal and ``_group``; over few columns, so that sorting is cheap."""
    pictured = thumbs.lazy().select(*PLACE, _pictured=pl.lit(True)).unique(PLACE)
    return (
        ledger.select(*PLACE, "key", _group=group)
        .join(pictured, on=PLACE, how="left")
        .sort(pl.col("_pictured").is_null(), "key", "ordinal")
        .group_by("_group", maintain_order=True)
        .head(most)
        .collect()
        .select(*PLACE, "_group")
    )


def make_cards(
    ledger: pl.LazyFrame, places: pl.DataFrame, thumbs: pl.DataFrame, recipe: Recipe
) -> dict[tuple[str, int], dict[str, Any]]:
    """The card of each pair of ``places``."""
    held = ledger.collect_schema().names()
    compared = [c for s in recipe.stages for c in comparisons(s)]
    roots = {c for s in recipe.stages for e in s.reasons().values() for c in e.meta.root_names()}
    wanted = [c for c in dict.fromkeys([*PLACE, *_SAID, *_ALSO, *SPANS, *sorted(roots)]) if c in held]
    rows = ledger.join(places.lazy().select(PLACE).unique(), on=PLACE, how="semi").select(wanted).collect()
    rows = rows.with_columns(pl.lit(None, dtype=COLUMNS[c].dtype).alias(c) for c in sorted(roots - set(held)))
    hidden = rows.with_columns(_hidden=hide(recipe))["_hidden"]  # a literal alone would make one row
    why = because(rows, compared)
    pictures = set(thumbs.select(PLACE).rows())
    return {
        (row["unit"], row["ordinal"]): _card(row, (row["unit"], row["ordinal"]) in pictures, secret, told)
        for row, secret, told in zip(rows.iter_rows(named=True), hidden, why, strict=True)
    }


def hide(recipe: Recipe) -> pl.Expr:
    """True where a picture must not be shown unasked: found unsafe, or never looked at though the recipe would."""
    found, looked = [], []
    for stage in recipe.stages:
        reasons = {r: e for r, e in stage.reasons().items() if "unsafe" in r or "blocklist" in r}
        if reasons:
            found.append(drops_with(stage, list(reasons)))
            looked += [pl.col(c).is_not_null() for e in reasons.values() for c in e.meta.root_names()]
    if not found:
        return pl.lit(False)
    return pl.any_horizontal(found) | ~pl.any_horizontal(looked)


def because(rows: pl.DataFrame, compared: Sequence[Comparison]) -> list[list[list[Any]]]:
    """Per row: [stage.field, columns, value, sign, threshold] of each comparison that drops it for its own reason."""
    if not compared or not rows.height:
        return [[] for _ in range(rows.height)]
    values = rows.select(c.value.cast(pl.Float64).alias(str(i)) for i, c in enumerate(compared)).rows()
    hits = rows.select(
        (c.drops().fill_null(False) & (pl.col("reason") == c.reason).fill_null(False)).alias(str(i))
        for i, c in enumerate(compared)
    ).rows()
    return [
        [
            [f"{c.stage.name}.{c.field}", ", ".join(c.columns), round(v, 4), c.sign, c.given]
            for c, v, hit in zip(compared, value, hit_row, strict=True)
            if hit
        ]
        for value, hit_row in zip(values, hits, strict=True)
    ]


def _card(row: dict[str, Any], pictured: bool, hidden: bool, why: list[list[Any]]) -> dict[str, Any]:
    spans = [
        [s["start"], s["end"], s["category"], s["action"], name]
        for name in SPANS
        for s in (row.get(name) or [])
        if s["end"] > s["start"]
    ]
    told = {
        "key": row["key"],
        "status": row["status"],
        "stage": row["stage"],
        "reason": row["reason"],
        "raw": (row["caption_raw"] or "")[:400],
        "caption": (row["caption"] or "")[:400] if row["caption"] != row["caption_raw"] else None,
        "synthetic": row["caption_synthetic"],
        "negatives": [[n["kind"], n["caption"][:200]] for n in (row.get("negatives") or [])[:4]],
        "score": round(row["score"], 4) if row["score"] is not None else None,
        "size": f"{row['width']}×{row['height']}" if row["width"] else None,
        "detail": (row["detail"] or "")[:300] or None,
        "duplicate_of": row["duplicate_of"],
        "url": (row["image_url"] or "")[:300] or None,
        "spans": sorted(spans),
        "because": why,
        "hidden": hidden or None,
        "thumb": thumb_name(row["unit"], row["ordinal"]) if pictured else None,
    }
    return {k: v for k, v in told.items() if v not in (None, [])}


def thumb_name(unit: str, ordinal: int) -> str:
    """By what a card refers to its picture: a page holds each picture once."""
    return f"{unit}/{ordinal}"
