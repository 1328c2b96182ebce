"""Decide again from a run's ledger with other thresholds; no model runs.

The measures stand in the ledger, so the measure phase is not repeated: its reasons are taken
again in recipe order, and relate and emit follow as in any run. A pair that the first run
dropped early has no later measures; where the new thresholds let it through, it ends as failed
with the reason ``not_measured``. A run made with ``--measure-all`` has them all.
"""

from __future__ import annotations

import json
import tarfile
from typing import Any

import polars as pl

from ..filters.site_tails import restored
from . import files
from .amend import run_json
from .columns import with_missing
from .engine import Clock, Progress, RunConfig, complete, prepare
from .errors import UsageError, nearest
from .finish import REMOVED
from .ledger import scan_ledger
from .measure import PART_COLUMNS, PLACE
from .recipe import Recipe, from_description
from .stage import VERDICT, StageModel, judge


def replay(
    run: str, sets: list[str], config: RunConfig, recipe: Recipe | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write to ``config.out`` what ``run`` would have given under ``recipe`` (its own by default) with ``sets``."""
    told = run_json(run)
    old = from_description(told["recipe"], ())
    new = recipe or from_description(told["recipe"], sets)
    check_replayable(old, new)
    dropped_too = bool(told["dropped_too"])
    ledger = scan_ledger(run).collect()
    units = sorted(ledger["unit"].unique())
    plan = {
        "recipe": new.describe(),
        "recipe_hash": new.hash,
        "inputs": told["inputs"],
        "units": {u: {"file": f"ledger of {run}"} for u in units},
        "dropped_too": dropped_too,
    }
    finished = prepare(config, plan)
    if finished is not None:
        return finished
    clock = Clock()
    with clock.phase("measure"):
        rows = rejudge(ledger, old, new, dropped_too).drop(PLACE, strict=False)
        bytes_from, places = byte_places(run, units)
        rows = rows.join(places, on=["unit", "ordinal"], how="left", maintain_order="left")
        for (unit,), group in rows.group_by("unit", maintain_order=True):
            told_unit = {"unit": unit, "inputs": group.height, "stages": {}}
            files.write_bytes(files.join(config.parts, f"{unit}.json"), json.dumps(told_unit).encode())
            ordered = with_missing(group, PART_COLUMNS).select(PART_COLUMNS).sort("ordinal")
            files.write_parquet(files.join(config.parts, f"{unit}.parquet"), ordered)
    return complete(config, new, units, bytes_from, clock, progress, {"replay_of": run})


def check_replayable(old: Recipe, new: Recipe) -> None:
    """Refuse what the ledger cannot answer: other measuring fields, added or reordered measuring stages."""
    held = {s.name: s for s in old.stages}
    for stage in new.stages:
        if stage.phase != "measure":
            continue
        if stage.name not in held:
            raise UsageError(
                f"stage {stage.name!r} was not part of the run, so its measures are not in the ledger; "
                f"{nearest(stage.name, held)} Run the new recipe instead of replaying it."
            )
        before, after = held[stage.name].model_dump(mode="json"), stage.model_dump(mode="json")
        free = stage.thresholds() | stage.operational()
        changed = [f for f in after if f not in free and before.get(f) != after[f]]
        if changed:
            raise UsageError(
                f"{stage.name}.{changed[0]} was {before.get(changed[0])!r} and is now {after[changed[0]]!r}: it "
                "changes what is measured, so a replay cannot answer it. A replay may change these thresholds of "
                f"{stage.name}: {', '.join(sorted(stage.thresholds())) or 'none'}. For the rest, `curate run` anew."
            )
    order = [s.name for s in old.stages if s.name in {n.name for n in new.stages}]
    if [s.name for s in new.stages if s.name in held] != order:
        raise UsageError("the stages stand in another order than in the run; a replay keeps their order")


def rejudge(ledger: pl.DataFrame, old: Recipe, new: Recipe, dropped_too: bool) -> pl.DataFrame:
    """The measure phase's verdicts again from the ledger's measures; rows that stay have a null status."""
    measured = [s.name for s in old.stages if s.phase == "measure"]
    rank = {"read": -1} | {name: i for i, name in enumerate(measured)}
    last = len(measured)
    was_failed = pl.col("was_status") == "failed"
    ended = pl.col("was_stage").replace_strict(rank, default=last, return_dtype=pl.Int32)
    stopped = pl.when(pl.col("was_status") == "kept").then(last).otherwise(ended)
    if dropped_too:
        at = pl.col("was_blocked").str.split(":").list.first().replace_strict(rank, default=last, return_dtype=pl.Int32)
        stopped = pl.when(was_failed).then(ended).when(pl.col("was_blocked").is_not_null()).then(at).otherwise(last)
    rows = with_missing(ledger, VERDICT)
    rows = rows.with_columns(pl.col(c).alias(f"was_{c}") for c in VERDICT).with_columns(_stopped=stopped)
    clear = {c: pl.lit(None, dtype=pl.String) for c in VERDICT}
    keeps = ((pl.col("was_status") == "failed") & (pl.col("was_stage") == "read")) | (pl.col("was_stage") == REMOVED)
    rows = rows.with_columns(**{c: pl.when(keeps).then(pl.col(f"was_{c}")).otherwise(clear[c]) for c in VERDICT})
    for stage in (s for s in new.stages if s.phase == "measure"):
        rows = _again(rows, stage, rank[stage.name], dropped_too)
    late = {c for recipe in (old, new) for s in recipe.stages if s.phase != "measure" for c in s.adds} - {"caption"}
    relation = [c for c in ("duplicate_of", "cluster", "contaminates", "split", "shard", *late) if c in rows.columns]
    return restored(rows).drop([f"was_{c}" for c in VERDICT], "_stopped", *dict.fromkeys(relation))


def _again(rows: pl.DataFrame, stage: StageModel, rank: int, dropped_too: bool) -> pl.DataFrame:
    """One stage's verdicts on rows that are still open."""
    open_ = pl.col("status").is_null()
    here = pl.col("_stopped") == rank
    failed_here = here & (pl.col("was_status") == "failed") & (pl.col("was_stage") == stage.name)
    blocked = pl.col("was_blocked").str.split(":")
    blocked_here = here & (blocked.list.first() == stage.name) & pl.lit(dropped_too)
    # The old verdict's words (an error message, an HTTP status) still hold where the stage failed then too.
    failure = (
        pl.when(failed_here)
        .then(pl.col("was_reason"))
        .when(blocked_here)
        .then(blocked.list.last())
        .when(open_ & (pl.col("_stopped") < rank))
        .then(pl.lit("not_measured"))
    )
    rows = rows.with_columns(
        failure=failure, detail=pl.when(failed_here | blocked_here).then("was_detail").otherwise("detail")
    )
    return judge(stage, rows)


def byte_places(run: str, units: list[str]) -> tuple[str, pl.DataFrame]:
    """Where the bytes of a run's pairs are: its part files where they were kept, else its shards.

    Returns the folder and a frame of unit, ordinal, part (file name without .tar), offset, length.
    """
    parts = files.join(run, "parts")
    held = set(files.names(parts, ".parquet"))
    if all(f"{u}.parquet" in held for u in units) and files.exists(files.join(parts, f"{units[0]}.tar")):
        frames = [files.read_parquet(files.join(parts, f"{u}.parquet"), ["unit", "ordinal", *PLACE]) for u in units]
        return parts, pl.concat(frames).filter(pl.col("part").is_not_null())
    folder = files.join(run, "shards")
    found: list[tuple[str, str, int, int]] = []
    for name in files.names(folder, ".tar"):
        with files.open_read(files.join(folder, name)) as handle, tarfile.open(fileobj=handle) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    found.append((member.name[:-4], name[:-4], member.offset_data, member.size))
    schema = {"key": pl.String, "part": pl.String, "offset": pl.UInt64, "length": pl.UInt32}
    places = pl.DataFrame(found, schema=schema, orient="row").unique("key")
    kept = scan_ledger(run).filter(pl.col("status") == "kept").select("unit", "ordinal", "key").collect()
    return folder, kept.join(places, on="key").drop("key")
