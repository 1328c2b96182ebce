"""What the report page holds: counts, histograms and samples, never the ledger itself.

Everything is computed lazily over the ledger's parquet files, so that a million rows cost seconds.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..pipeline import files
from ..pipeline.columns import COLUMNS
from ..pipeline.ledger import scan_ledger
from ..pipeline.registry import stage_class
from .words import words

SHOWN = 12
"""Pairs shown per reason."""
KEPT_SHOWN = 24
BINS = 120
_SPANS = ("social", "fragments", "boilerplate", "site_tails", "sensitive", "names")


@dataclass(frozen=True)
class Measure:
    """A measure with the threshold that decides on it: ``least`` says whether small values drop."""

    column: str
    stage: str
    field: str
    reason: str
    least: bool
    title: tuple[str, str]


MEASURES = (
    Measure("han_ratio", "language", "min_han", "not_chinese", True, ("share of Han", "汉字占比")),
    Measure(
        "boilerplate_share", "boilerplate", "max_share", "boilerplate", False, ("share of boilerplate", "套话占比")
    ),
    Measure("chars", "length", "shortest", "caption_too_short", True, ("characters (fewest)", "字数下限")),
    Measure("chars", "length", "longest", "caption_too_long", False, ("characters (most)", "字数上限")),
    Measure("repetition", "length", "max_repetition", "caption_uninformative", False, ("repetition", "重复度")),
    Measure("shorter", "decode", "shorter_side", "image_too_small", True, ("shorter side", "短边像素")),
    Measure("aspect", "decode", "max_aspect", "image_bad_aspect", False, ("aspect", "长宽比")),
    Measure("nsfw", "image_safety", "threshold", "image_unsafe", False, ("unsafe probability", "不安全概率")),
    Measure("score", "score", "threshold", "low_score", True, ("score", "图文分数")),
)


def aggregate(run: str, told: dict[str, Any]) -> dict[str, Any]:
    """The page's data from run.json (``told``), the ledger and the thumbnails."""
    ledger = scan_ledger(run).with_columns(
        shorter=pl.min_horizontal("width", "height"),
        aspect=(pl.max_horizontal("width", "height") / pl.min_horizontal("width", "height")).cast(pl.Float32).round(3),
    )
    reasons = {r for row in told["stages"].values() for r in (*row["dropped"], *row["failures"])} | {"kept"}
    return {
        "run": {
            k: told.get(k) for k in ("version", "created", "counts", "splits", "shards", "notices", "runner", "times")
        },
        "recipe": {"name": told["recipe"]["name"], "hash": told["recipe"]["hash"]},
        "stages": told["stages"],
        "words": {r: words(r) for r in sorted(reasons)},
        "measures": [m for m in (_histogram(ledger, told, m) for m in MEASURES) if m],
        "tables": {
            "hosts": _top(ledger, pl.col("image_url").str.extract(r"^https?://([^/:?#]+)")),
            "languages": _top(ledger, pl.col("lang")),
            "formats": _top(ledger, pl.col("format")),
            "origins": _top(ledger, pl.col("caption_origin")),
        },
        "gallery": _gallery(run, ledger),
    }


def _histogram(ledger: pl.LazyFrame, told: dict[str, Any], measure: Measure) -> dict[str, Any] | None:
    """Counts per value (or bin) of the pairs whose fate at this stage hangs on this measure alone.

    Those are the pairs that passed the stage and those it dropped for this very reason, so the sum over the bins
    on the good side of a bin's edge is exactly what the stage would pass with its threshold at that edge.
    """
    fields = next((s for s in told["recipe"]["stages"] if s["name"] == measure.stage), None)
    if fields is None or measure.field not in fields:
        return None
    order = list(told["stages"])
    later = order[order.index(measure.stage) + 1 :] if measure.stage in order else []
    mine = (pl.col("stage") == measure.stage) & (pl.col("reason") == measure.reason) & ~_lost_anyway(fields, measure)
    reached = (pl.col("status") == "kept") | pl.col("stage").is_in(later) | mine
    values = (
        ledger.filter(reached & pl.col(measure.column).is_not_null())
        .select(pl.col(measure.column).cast(pl.Float64).round(4).alias("v"))
        .group_by("v")
        .len()
        .sort("v")
        .collect()
    )
    if not values.height:
        return None
    edges, counts = _bins(values["v"].to_list(), values["len"].to_list(), float(fields[measure.field]))
    return {
        "column": measure.column,
        "stage": measure.stage,
        "field": measure.field,
        "reason": measure.reason,
        "least": measure.least,
        "title": measure.title,
        "unit": COLUMNS[measure.column].unit if measure.column in COLUMNS else "",
        "threshold": fields[measure.field],
        "edges": edges,
        "counts": counts,
    }


def _lost_anyway(fields: dict[str, Any], measure: Measure) -> pl.Expr:
    """True where the stage drops a pair whatever this threshold is: one reason may have several causes."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k != "name"}
    loosest = given | {measure.field: -math.inf if measure.least else math.inf}
    # Constructed without validation: infinity is no valid threshold, and that is the point.
    reasons = stage_class(measure.stage).model_construct(None, **loosest).reasons().values()
    return pl.any_horizontal([r.fill_null(False) for r in reasons])


def _bins(values: list[float], counts: list[int], threshold: float) -> tuple[list[float], list[int]]:
    """At most ``BINS`` bins as (lower edges, counts); distinct values where they are few; the threshold is an edge."""
    if len(values) <= BINS:
        edges = sorted({*values, threshold})
    else:
        low, high = values[0], values[-1]
        step = (high - low) / BINS
        edges = sorted({*(round(low + k * step, 4) for k in range(BINS)), threshold})
    told = [0] * len(edges)
    at = 0
    for value, count in zip(values, counts, strict=True):
        while at + 1 < len(edges) and value >= edges[at + 1]:
            at += 1
        told[at] += count
    return edges, told


def _top(ledger: pl.LazyFrame, column: pl.Expr) -> list[tuple[str, int, int]]:
    """(value, pairs, kept) of the fifteen most frequent values."""
    rows = (
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


def _gallery(run: str, ledger: pl.LazyFrame) -> dict[str, list[dict[str, Any]]]:
    """Pairs per reason, those with a picture first; chosen by key, so that two runs show the same."""
    thumbs = files.read_parquet(files.join(run, "thumbs.parquet"))
    wanted = [
        "unit",
        "ordinal",
        "key",
        "status",
        "stage",
        "reason",
        "detail",
        "caption_raw",
        "caption",
        "score",
        "lang",
    ]
    wanted += ["width", "height", "image_url", "duplicate_of", "caption_synthetic", "nsfw", *_SPANS]
    reason = pl.col("reason").fill_null("kept")
    have = thumbs.lazy().select("unit", "ordinal", _pictured=pl.lit(True))
    rows = (
        ledger.select(*wanted)
        .with_columns(reason)
        .join(have, on=["unit", "ordinal"], how="left")
        .sort(pl.col("_pictured").is_null(), "key", "ordinal")
        .group_by("reason", maintain_order=True)
        .head(KEPT_SHOWN)
        .collect()
    )
    pictures = {(u, o): t for u, o, t in thumbs.select("unit", "ordinal", "thumb").rows()}
    shown: dict[str, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        held = shown.setdefault(row["reason"], [])
        if len(held) < (KEPT_SHOWN if row["reason"] == "kept" else SHOWN):
            held.append(_card(row, pictures.get((row["unit"], row["ordinal"]))))
    return dict(sorted(shown.items(), key=lambda item: (item[0] != "kept", item[0])))


def _card(row: dict[str, Any], thumb: bytes | None) -> dict[str, Any]:
    spans = [
        [s["start"], s["end"], s["category"], s["action"]]
        for name in _SPANS
        for s in (row[name] or [])
        if s["end"] > s["start"]
    ]
    told = {
        "key": row["key"],
        "stage": row["stage"],
        "raw": (row["caption_raw"] or "")[:400],
        "caption": (row["caption"] or "")[:400] if row["caption"] != row["caption_raw"] else None,
        "synthetic": row["caption_synthetic"],
        "score": round(row["score"], 4) if row["score"] is not None else None,
        "size": f"{row['width']}×{row['height']}" if row["width"] else None,
        "detail": (row["detail"] or "")[:300] or None,
        "duplicate_of": row["duplicate_of"],
        "spans": sorted(spans),
        "thumb": "data:image/jpeg;base64," + base64.b64encode(thumb).decode() if thumb else None,
    }
    return {k: v for k, v in told.items() if v not in (None, [])}
