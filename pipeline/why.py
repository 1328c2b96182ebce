"""One pair's whole story: where it came from, what each stage measured, what decided, what would have kept it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ..export.words import words
from .amend import run_json
from .columns import COLUMNS
from .errors import InputError
from .ledger import scan_ledger
from .recipe import Recipe, from_description
from .remedies import compared, first_drop, remedies, with_columns_for
from .retry import may_pass
from .stage import StageModel

SOURCE = ("origin", "page_url", "image_url", "caption_origin", "caption_raw")
MOST = 3
"""Different keys that one question may mean."""
HIDDEN = ("image_embedding", "caption_embedding", "image_grid", "image_grid_inside")


def stories(run: str, given: str) -> list[dict[str, Any]]:
    """The stories of the pairs that ``given`` means: the first digits of a key, a URL, or words of a caption.

    Words are looked for in the caption as found and as shipped, in synthetic captions and in hard negatives.
    Raises ``InputError`` where nothing is found, or more than three different pairs are.
    """
    told = run_json(run)
    ledger = scan_ledger(run)
    found = find(ledger, given)
    if not found.height:
        raise InputError(
            f"nothing in {run} has a key that starts with {given!r}, that URL, or those words in a caption; "
            "keys are in the ledger's column key, and on the report's cards"
        )
    if found["key"].n_unique() > MOST:
        shown = "\n".join(
            f"  {key[:12]}  {(caption or '')[:60]}" for key, caption in found.select("key", "caption_raw").rows()[:5]
        )
        raise InputError(
            f"{found['key'].n_unique()} pairs match {given!r}; give more of it, or one of these keys:\n{shown}"
        )
    recipe = from_description(told["recipe"])
    return [_story(ledger, row, recipe, told) for row in found.iter_slices(1)]


def find(ledger: pl.LazyFrame, given: str) -> pl.DataFrame:
    """The rows that ``given`` names, by key; else by URL; else by words."""
    held = ledger.collect_schema().names()
    texts = [c for c in ("caption_raw", "caption", "caption_synthetic") if c in held]
    written = [pl.col(c).str.contains(given, literal=True) for c in texts]
    if "negatives" in held:
        said = pl.element().struct.field("caption").str.contains(given, literal=True)
        written.append(pl.col("negatives").list.eval(said).list.any())
    for named in (
        pl.col("key").str.starts_with(given.strip().lower()),
        (pl.col("image_url") == given) | (pl.col("page_url") == given),
        pl.any_horizontal([w.fill_null(False) for w in written]),
    ):
        found = ledger.filter(named).drop(HIDDEN, strict=False).sort("key", "origin").head(200).collect()
        if found.height:
            return found
    return found


def _story(ledger: pl.LazyFrame, row: pl.DataFrame, recipe: Recipe, told: dict[str, Any]) -> dict[str, Any]:
    row = with_columns_for(row, recipe.stages)
    pair = row.row(0, named=True)
    names = [s.name for s in recipe.stages]
    ended = names.index(pair["stage"]) if pair["stage"] in names else None
    story: dict[str, Any] = {
        **{k: pair[k] for k in ("key", "status", "stage", "reason", "detail")},
        "in_words": words(pair["reason"])[0] if pair["reason"] else "kept",
        "source": {name: pair[name] for name in SOURCE if pair[name] is not None},
        "stages": [_stage(s, row, pair, i == ended) for i, s in enumerate(recipe.stages)],
        "caption": pair["caption"],
        "caption_synthetic": pair.get("caption_synthetic"),
        "negatives": pair.get("negatives"),
        "shard": pair["shard"],
        "split": pair["split"],
    }
    story["stages"] = [s for s in story["stages"] if s["measured"] or s["decided"]]
    if pair["duplicate_of"]:
        story["duplicate_of"] = _twin(ledger, pair)
    if pair["status"] == "dropped" and ended is not None:
        story["kept_by"] = remedies(recipe.stages[ended], row)
        rest = [s for s in recipe.stages[ended + 1 :] if s.phase == "measure"]
        story["then"] = _then(rest, row, bool(told["dropped_too"]))
    if pair["status"] == "failed":
        story["may_pass"] = bool(row.select(may_pass()).item())
    return story


def _stage(stage: StageModel, row: pl.DataFrame, pair: dict[str, Any], ended: bool) -> dict[str, Any]:
    # The ledger holds the caption as the last stage left it, so no stage before can show its own.
    shown = [c for c in stage.adds if c in pair and c in COLUMNS and c != "caption" and not isinstance(pair[c], bytes)]
    return {
        "stage": stage.name,
        "measured": {c: pair[c] for c in shown if pair[c] is not None},
        "compared": compared(stage, row),
        "decided": ended,
        "thresholds": {f: getattr(stage, f) for f in sorted(stage.thresholds())} if ended else {},
    }


def _then(rest: Sequence[StageModel], row: pl.DataFrame, measured: bool) -> str:
    """What would become of the pair after that, as far as the ledger knows."""
    if not rest:
        return ""
    if not measured:
        return "it was measured no further: what the later stages would say, a run with --measure-all knows"
    if (blocked := row["blocked"].item()) is not None:
        stage, _, reason = blocked.partition(":")
        return f"it would then have failed at {stage}: {words(reason)[0]}"
    found = first_drop(rest, row)
    if found is None:
        return "it passes all other rules on the pair itself"
    stage_, reason = found
    return f"{stage_.name} would then drop it: {words(reason)[0]} ({reason})"


def _twin(ledger: pl.LazyFrame, pair: dict[str, Any]) -> dict[str, Any]:
    """The pair that stays in this one's place, as far as this run has it."""
    held = ledger.filter(pl.col("key") == pair["duplicate_of"]).sort("status", descending=True)
    wanted = ("key", "status", "origin", "image_url", "caption_raw", "score", "width", "height", "shard")
    other = held.select(wanted).filter(pl.col("origin") != pair["origin"]).head(1).collect().rows(named=True)
    return {"kind": pair["duplicate_kind"], **(other[0] if other else {"key": pair["duplicate_of"]})}
