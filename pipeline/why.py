"""One pair's whole story: where it came from, what each stage measured, what decided."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from . import files
from .columns import COLUMNS
from .errors import InputError
from .ledger import scan_ledger
from .recipe import Recipe, from_description

SOURCE = ("origin", "page_url", "image_url", "caption_origin", "caption_raw")


def story(run: str, key: str) -> str:
    """The story of every pair whose key starts with ``key``, as plain text.

    Raises ``InputError`` where no key starts so, or more than three different ones do.
    """
    found = scan_ledger(run).filter(pl.col("key").str.starts_with(key.lower())).sort("key", "origin").collect()
    if not found.height:
        raise InputError(f"no pair of {run} has a key that starts with {key!r}; keys are in the ledger's column key")
    if found["key"].n_unique() > 3:
        raise InputError(f"{found['key'].n_unique()} keys start with {key!r}; give more digits")
    recipe = from_description(json.loads(files.read_bytes(files.join(run, "run.json")))["recipe"])
    return "\n\n".join(_one(row, recipe) for row in found.iter_rows(named=True))


def _one(row: dict[str, Any], recipe: Recipe) -> str:
    lines = [f"pair {row['key']}: {row['status']}"]
    if row["reason"]:
        lines[0] += f" by {row['stage']}, reason {row['reason']}"
    if row["detail"]:
        lines.append(f"  {row['detail']}")
    lines.append("source")
    lines += [f"  {name}: {_show(row[name])}" for name in SOURCE if row[name] is not None]
    for stage in recipe.stages:
        # The ledger holds the caption as the last stage left it, so no stage before can show its own.
        shown = (c for c in stage.adds if c in row and c != "caption" and not isinstance(row[c], bytes))
        measured = [(c, row[c]) for c in shown if row[c] is not None and c in COLUMNS]
        if not measured and row["stage"] != stage.name:
            continue
        lines.append(stage.name + (f"  <- {row['reason']}" if row["stage"] == stage.name else ""))
        lines += [f"  {c}: {_show(v)}{_unit(c)}" for c, v in measured]
        if row["stage"] == stage.name:
            lines += [f"  {stage.name}.{f} = {getattr(stage, f)!r}" for f in sorted(stage.thresholds())]
    if row["caption"] is not None:
        lines.append(f"caption after these stages\n  {row['caption']}")
    if row["status"] != "kept":
        lines.append("not shipped")
    if row["shard"]:
        lines.append(f"placed in shards/{row['shard']} as {row['key']}.jpg, .txt, .json ({row['split']})")
    return "\n".join(lines)


def _show(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_show(v) for v in value) or "none"
    if isinstance(value, dict) and "word" in value:
        return f"{value['word']} [{value['start']}:{value['end']}] {value['category']} -> {value['action']}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def _unit(column: str) -> str:
    unit = COLUMNS[column].unit
    return f" {unit}" if unit and unit not in ("share", "cosine") else ""
