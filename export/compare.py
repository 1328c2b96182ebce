"""Two runs over the same input: what each stage did otherwise, and pairs whose verdict changed.

Pairs are the same where key and origin are; the several pairs that share both (an input given twice) are told
apart by their order. Pairs that one run alone has read stand as ``absent`` in the other.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ..pipeline import files
from ..pipeline.ledger import scan_ledger
from ..pipeline.recipe import from_description
from .aggregate import used_thumbs
from .gallery import PLACE, make_cards
from .words import words

ABSENT = "absent"
SHOWN = 8
"""Pairs shown per change of verdict."""


def compare(run: str, told: dict[str, Any], other: str, other_told: dict[str, Any]) -> dict[str, Any]:
    """The page's data for ``run`` as it is now against ``other`` as it was; ``told`` and ``other_told``: run.json."""
    ledger, before = scan_ledger(run), scan_ledger(other)
    changed = changes(before, ledger)
    table = changed.group_by("was", "now").len().sort(["len", "was", "now"], descending=[True, False, False])
    recipe = from_description(told["recipe"])
    thumbs = files.read_parquet(files.join(run, "thumbs.parquet"))
    old = files.read_parquet(files.join(other, "thumbs.parquet"))
    pictured = pl.concat([thumbs, old]).unique(PLACE, keep="first", maintain_order=True)
    first = _first(changed, pictured)
    held = make_cards(ledger, first.filter(pl.col("now") != ABSENT), pictured, recipe)
    gone = make_cards(before, first.filter(pl.col("now") == ABSENT), pictured, from_description(other_told["recipe"]))
    shown: dict[str, list[dict[str, Any]]] = {}
    for unit, ordinal, was, now in first.select(*PLACE, "was", "now").rows():
        card = (gone if now == ABSENT else held)[unit, ordinal]
        shown.setdefault(f"{was}>{now}", []).append(card)
    reasons = {*changed["was"].unique(), *changed["now"].unique(), *_reasons(told), *_reasons(other_told)}
    return {
        "kind": "comparison",
        "runs": [_head(other, other_told), _head(run, told)],
        "fields": field_changes(other_told, told),
        "stages": stage_changes(other_told, told),
        "reasons": reason_changes(other_told, told),
        "changes": [[was, now, n] for was, now, n in table.rows()],
        "changed": changed.height,
        "shown": shown,
        "words": {r: words(r) for r in sorted(reasons)},
        "thumbs": used_thumbs(pictured, shown),
    }


def changes(before: pl.LazyFrame, now: pl.LazyFrame) -> pl.DataFrame:
    """unit, ordinal, key, ``was`` and ``now`` (a reason, ``kept`` or ``absent``) of pairs whose verdict differs."""
    a, b = _verdicts(before), _verdicts(now)
    both = b.join(a, on=["key", "origin", "nth"], how="full", coalesce=True, suffix="_before")
    return (
        both.select(
            unit=pl.coalesce("unit", "unit_before"),
            ordinal=pl.coalesce("ordinal", "ordinal_before"),
            key="key",
            was=pl.col("verdict_before").fill_null(ABSENT),
            now=pl.col("verdict").fill_null(ABSENT),
        )
        .filter(pl.col("was") != pl.col("now"))
        .sort("key", "unit", "ordinal")
        .collect()
    )


def _verdicts(ledger: pl.LazyFrame) -> pl.LazyFrame:
    rows = ledger.select(*PLACE, "key", "origin", verdict=pl.col("reason").fill_null("kept"))
    return rows.sort(PLACE).with_columns(nth=pl.int_range(pl.len()).over("key", "origin"))


def _first(changed: pl.DataFrame, pictured: pl.DataFrame) -> pl.DataFrame:
    """Some pairs of each change, those with a picture first."""
    have = pictured.select(*PLACE, _pictured=pl.lit(True))
    return (
        changed.join(have, on=PLACE, how="left")
        .sort(pl.col("_pictured").is_null(), "key")
        .group_by("was", "now", maintain_order=True)
        .head(SHOWN)
    )


def _reasons(told: dict[str, Any]) -> set[str]:
    return {r for stage in told["stages"].values() for r in (*stage["dropped"], *stage["failures"])}


def _head(run: str, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run.rstrip("/").rsplit("/", 1)[-1],
        **{k: told.get(k) for k in ("version", "created", "counts", "runner")},
        "recipe": told["recipe"]["name"],
        "hash": told["recipe"]["hash"],
    }


def field_changes(before: dict[str, Any], now: dict[str, Any]) -> list[list[Any]]:
    """[stage.field, before, now] where the recipes differ; a stage that one lacks has ``None`` there."""
    a = {s["name"]: s for s in before["recipe"]["stages"]}
    b = {s["name"]: s for s in now["recipe"]["stages"]}
    found: list[list[Any]] = []
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            found.append([name, "on" if name in a else None, "on" if name in b else None])
            continue
        for field in dict.fromkeys([*a[name], *b[name]]):
            was, is_ = a[name].get(field), b[name].get(field)
            if was != is_:
                found.append([f"{name}.{field}", was, is_])
    return found


def stage_changes(before: dict[str, Any], now: dict[str, Any]) -> list[list[Any]]:
    """[stage, in before, kept before, in now, kept now], in the order of the newer run."""
    a, b = before["stages"], now["stages"]
    order = [*b, *(s for s in a if s not in b)]
    return [[s, *(row[k] if row else None for row in (a.get(s), b.get(s)) for k in ("in", "kept"))] for s in order]


def reason_changes(before: dict[str, Any], now: dict[str, Any]) -> list[list[Any]]:
    """[reason, pairs before, pairs now], the largest difference first."""
    a, b = _counted(before), _counted(now)
    rows = [[r, a.get(r, 0), b.get(r, 0)] for r in dict.fromkeys([*a, *b])]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[1]), row[0]))


def _counted(told: dict[str, Any]) -> dict[str, int]:
    counted: dict[str, int] = {"kept": told["counts"]["kept"]}
    for stage in told["stages"].values():
        for reason, n in {**stage["dropped"], **stage["failures"]}.items():
            counted[reason] = counted.get(reason, 0) + n
    return counted
