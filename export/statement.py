"""What the dataset card tells of a run beside run.json: facts counted over the ledger."""

from __future__ import annotations

from typing import Any

import polars as pl

HOSTS_SHOWN = 10
_MASKED = ("names", "sensitive", "boilerplate", "site_tails", "social", "fragments")


def facts(ledger: pl.LazyFrame) -> dict[str, Any]:
    """Counts for the data statement, from the ledger (lazy; a few of its columns are read)."""
    held = ledger.collect_schema()
    kept = ledger.filter(pl.col("status") == "kept")
    host = pl.col("image_url").str.extract(r"^https?://(?:[^/@]*@)?([^/:?#]+)").str.to_lowercase()
    by_host = _counts(kept, host)
    numbers = ("chars", "shipped_width", "shipped_height", "score")
    quartiles = [pl.col(c).quantile(q).alias(f"{c}_{q}") for c in numbers if c in held for q in (0.05, 0.5, 0.95)]
    spread = kept.select(quartiles).collect().to_dicts()[0] if quartiles else {}
    cut = [pl.col(c).list.len().gt(0).sum().alias(c) for c in _MASKED if c in held]
    return {
        "hosts": len(by_host),
        "top_hosts": by_host[:HOSTS_SHOWN],
        "caption_origins": _counts(kept, pl.col("caption_origin")),
        "languages": _counts(kept, pl.col("lang")),
        "formats": _counts(kept, pl.col("format")),
        "jpeg": dict(_counts(kept, pl.col("jpeg"))),
        "opt_outs": _counts(ledger.filter(pl.col("opt_out").is_not_null()), pl.col("opt_out")),
        "spread": {c: [spread.get(f"{c}_{q}") for q in (0.05, 0.5, 0.95)] for c in numbers if c in held},
        "marked": kept.select(cut).collect().to_dicts()[0] if cut else {},
        "synthetic": kept.select(pl.col("caption_synthetic").is_not_null().sum()).collect().item(),
        "negatives": kept.select(pl.col("negatives").list.len().gt(0).sum()).collect().item(),
        "distinct_captions": kept.select(pl.col("caption").n_unique()).collect().item(),
    }


def _counts(rows: pl.LazyFrame, column: pl.Expr) -> list[tuple[str, int]]:
    """(value, pairs), the most frequent first."""
    told = rows.select(column.alias("v")).drop_nulls().group_by("v").len().sort(["len", "v"], descending=[True, False])
    return [(str(v), int(n)) for v, n in told.collect().rows()]
