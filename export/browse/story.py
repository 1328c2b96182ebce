"""One pair's whole story as plain values: source, what each stage measured, what decided, where it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ...pipeline.columns import COLUMNS
from ...pipeline.recipe import Recipe
from ..words import words

SPANS = ("social", "fragments", "boilerplate", "site_tails", "sensitive", "names")
SOURCE = ("origin", "page_url", "image_url", "caption_origin")
_UNSAFE = frozenset(("image_unsafe", "image_blocklisted", "unsafe_by_prompt"))
_LONGEST = 2000


def unsafe_test(recipe: Recipe) -> dict[str, pl.Expr]:
    """Reason to "unsafe where true", of all stages that judge safety: a pair may have been dropped for less before."""
    return {r: e for s in recipe.stages for r, e in s.reasons().items() if r in _UNSAFE}


def with_unsafe(rows: pl.DataFrame, tests: Mapping[str, pl.Expr]) -> pl.Series:
    """Whether each of ``rows`` is unsafe by these tests or by its own reason."""
    usable = [e.fill_null(False) for e in tests.values() if set(e.meta.root_names()) <= set(rows.columns)]
    return rows.select(
        pl.any_horizontal(pl.col("reason").is_in(sorted(_UNSAFE)).fill_null(False), *usable).alias("unsafe")
    ).to_series()


def spans(row: Mapping[str, Any]) -> list[list[Any]]:
    """What rules marked in ``caption_raw``: [start, end, category, action], by start."""
    held = [s for name in SPANS for s in (row.get(name) or []) if s["end"] > s["start"]]
    return sorted([s["start"], s["end"], s["category"], s["action"]] for s in held)


def story(row: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The story of one ledger row; every value is a string that a page shows as it stands."""
    stages = []
    for stage in recipe.stages:
        told = [_fact(c, row[c]) for c in stage.adds if c in COLUMNS and c != "caption" and _tellable(row.get(c))]
        decided = row["stage"] == stage.name
        if told or decided:
            fields = [
                {"name": f"{stage.name}.{f}", "value": shown(getattr(stage, f)), "about": _about(stage, f)}
                for f in sorted(stage.thresholds())
            ]
            stages.append({"name": stage.name, "decided": decided, "measures": told, "thresholds": fields})
    named = {s["name"] for s in stages}
    if row["stage"] and row["stage"] not in named:  # read, relate, emit, removed: no stages of the recipe
        stages.append({"name": row["stage"], "decided": True, "measures": [], "thresholds": []})
    return {
        "key": row["key"],
        "status": row["status"],
        "stage": row["stage"],
        "reason": row["reason"],
        "words": words(row["reason"] or "kept"),
        "detail": _cut(row["detail"]),
        "raw": _cut(row["caption_raw"]),
        "caption": _cut(row["caption"]),
        "spans": spans(row),
        "source": [_fact(c, row[c]) for c in SOURCE if _tellable(row.get(c))],
        "stages": stages,
        "duplicate_of": row.get("duplicate_of"),
        "placed": f"shards/{row['shard']} ({row['split']})" if row.get("shard") else None,
    }


def shown(value: Any) -> str:
    """A measure's or field's value for people."""
    if isinstance(value, (list, tuple)):
        return "; ".join(shown(v) for v in value) or "—"
    if isinstance(value, dict) and "word" in value:
        return f"{value['word']} [{value['start']}:{value['end']}] {value['category']} → {value['action']}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {shown(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fact(column: str, value: Any) -> dict[str, str]:
    told = COLUMNS[column]
    return {"name": column, "value": _cut(shown(value)) or "", "unit": told.unit, "about": told.doc}


def _tellable(value: Any) -> bool:
    return value is not None and not isinstance(value, bytes)


def _about(stage: Any, field: str) -> str:
    return str(type(stage).model_fields[field].description or "")


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({len(text)} characters)"
