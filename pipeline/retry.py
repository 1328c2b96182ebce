"""Fetching again what a finished run could not fetch for a cause that may have passed.

What is there stays as it is, byte for byte: shards keep their names, pairs their keys, units and ordinals.
The pairs whose images now come go on through the recipe from the fetch; they are related to what the run
kept, as new data is to an index; and those that stay go into further shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import polars as pl

from ..export.shards import ShardInfo, read_index, write_index
from ..filters.fetch_queue import PASSING
from . import amend, beam_run, files, index
from .emit import EmitOptions, emit
from .errors import RunError, UsageError
from .ledger import scan_ledger
from .measure import MeasureOptions, UnitCounts, measure_batches
from .recipe import Recipe, from_description
from .relate import relate
from .stage import VERDICT, StageModel

UNIT_ROWS = 2_000
"""Pairs of one unit of the retry: at a second a fetch and 64 at once, half a minute."""

MAY_PASS = PASSING | {"dns", "refused", "network", "bad_response"}
"""Causes of a failed fetch that may be gone another day, with every http_5xx: a name server that was down, a host
that was being restarted. A 404, a reserved image, a refused address will be the same tomorrow."""

IDENTITY = ("unit", "ordinal")


def may_pass() -> pl.Expr:
    """True for ledger rows that failed in the fetch for a cause that may pass."""
    cause = pl.col("fetch_error")
    passing = cause.is_in(sorted(MAY_PASS)) | cause.str.starts_with("http_5")
    return (pl.col("status") == "failed") & (pl.col("stage") == "fetch") & passing


def retry(run: str, recipe: Recipe | None = None, workers: int = 1) -> dict[str, Any]:
    """Fetch again what may come now; returns run.json with ``retried`` (how many) and ``came`` (of them, kept).

    ``recipe`` is the run's own with other operational fields (time limits, retries); anything else is refused.
    """
    amend.settle(run)
    told = amend.run_json(run)
    own = from_description(told["recipe"])
    recipe = recipe or own
    if recipe.describe() != own.describe():
        raise UsageError("a retry may change time limits and pools of the fetch only; for other rules run anew")
    names = [s.name for s in recipe.stages]
    if "fetch" not in names:
        raise UsageError(f"{run} fetched nothing (its recipe has no fetch stage), so there is nothing to fetch again")
    rows = scan_ledger(run).filter(may_pass()).sort(*IDENTITY).collect()
    if not rows.height:
        return {**told, "retried": 0, "came": 0}
    work = files.join(run, "retrying")
    files.remove(work)
    stages = [s for s in recipe.phase("measure") if names.index(s.name) >= names.index("fetch")]
    options = beam_run.pipeline_options((), min(workers, math.ceil(rows.height / UNIT_ROWS)))
    units = _measure(rows, stages, work, bool(told["dropped_too"]), options)
    infos = _shards(run, units, recipe, work, options)
    came = _stage_ledger(run, rows, work, infos)
    if told["dropped_too"]:
        _stage_parts(run, rows, units, work)
    write_index(amend.staged(run, "shards"), [*read_index(files.join(run, "shards")), *infos])
    for info in infos:
        files.move(files.join(work, "shards", info.name), amend.staged(run, "shards", info.name))
    files.remove(work)
    note = {"what": "retry", "retried": rows.height, "kept": came}
    return {**amend.commit(run, (), note), "retried": rows.height, "came": came}


class _Measure(beam.DoFn):
    """The image stages over one unit of rows that the text stages have measured already."""

    def __init__(self, stages: list[StageModel], work: str, dropped_too: bool) -> None:
        self.stages, self.work = stages, work
        self.options = MeasureOptions(files.join(work, "parts"), dropped_too, thumbs=False)

    def process(self, unit: str) -> Iterable[str]:
        rows = files.read_parquet(files.join(self.work, "rows", f"{unit}.parquet"))
        fetched = {c for stage in self.stages for c in stage.adds} | set(VERDICT)
        rows = rows.drop(*IDENTITY, *(c for c in fetched if c in rows.columns and c != "caption"))
        rows = rows.with_columns(unit=pl.lit(unit), ordinal=pl.int_range(pl.len(), dtype=pl.UInt32))
        measure_batches(UnitCounts(unit, rows.height), iter([rows]), self.stages, self.options)
        yield unit


def _measure(rows: pl.DataFrame, stages: list[StageModel], work: str, dropped_too: bool, options: Any) -> list[str]:
    """Measure ``rows`` from the fetch on, in units of their own; the units' names."""
    units = []
    for number, first in enumerate(range(0, rows.height, UNIT_ROWS)):
        units.append(f"retry-{number:06d}")
        files.write_parquet(files.join(work, "rows", f"{units[-1]}.parquet"), rows.slice(first, UNIT_ROWS))
    again = _Measure(stages, work, dropped_too)
    beam_run.run("retry", lambda p: p | beam.Create(units, reshuffle=True) | "Again" >> beam.ParDo(again), options)
    missing = set(units) - {n.removesuffix(".parquet") for n in files.names(files.join(work, "parts"), ".parquet")}
    if missing:
        raise RunError(f"{len(missing)} of {len(units)} slices could not be measured; nothing was changed")
    return units


def _shards(run: str, units: list[str], recipe: Recipe, work: str, options: Any) -> list[ShardInfo]:
    """Relate the new pairs to those of the run and write theirs under ``work``; the new shards."""
    parts, known = files.join(work, "parts"), files.join(work, "index")
    _known(run, known)
    stages = []
    for stage in recipe.phase("relate"):
        held = getattr(stage, "index", None)
        if held:
            index.merge(known, held)
        stages.append(stage if held is None else stage.model_copy(update={"index": known}))
    related = relate([files.join(parts, f"{u}.parquet") for u in units], stages, parts, options)
    shards = {split: math.ceil(n / recipe.shards.samples) for split, n in sorted(related.splits.items()) if n}
    first = dict.fromkeys(shards, 0)
    for info in read_index(files.join(run, "shards")):
        split, _, number = info.name.removesuffix(".tar").rpartition("-")
        first[split] = max(first.get(split, 0), int(number) + 1)
    emit_options = EmitOptions(work, parts, parts, shards, recipe.shards.seed, first)
    emit(units, list(recipe.phase("emit")), emit_options, options)
    made = [json.loads(files.read_bytes(files.join(parts, n))) for n in files.names(parts, ".tar.json")]
    return [ShardInfo(**m["info"]) for m in made]


def _known(run: str, folder: str) -> None:
    """What the run kept or dropped as a duplicate, as an index that new pairs are related to."""
    ledger = scan_ledger(run)
    there = ledger.collect_schema().names()
    wanted = (pl.col("status") == "kept") | (pl.col("duplicate_kind") == "pair")
    rows = ledger.filter(wanted).select(c for c in index.COLUMNS_HELD if c in there).collect()
    index.put(folder, "run", rows)


def _stage_ledger(run: str, rows: pl.DataFrame, work: str, infos: list[ShardInfo]) -> int:
    """Stage the ledger files that change; how many pairs are kept now."""
    made = files.join(work, "ledger")
    came = 0
    for info in infos:
        name = f"{info.name.removesuffix('.tar')}.parquet"
        kept = _own(files.read_parquet(files.join(made, name)), rows)
        came += kept.filter(pl.col("status") == "kept").height
        files.write_parquet(amend.staged(run, "ledger", name), kept)
    lost = [files.read_parquet(files.join(made, n)) for n in files.names(made, ".parquet") if n.startswith("dropped-")]
    others = _own(pl.concat(lost), rows) if lost else rows.clear()
    for unit, ours in _by_unit(rows):
        name = f"dropped-{unit}.parquet"
        old = files.read_parquet(files.join(run, "ledger", name)).join(ours, on="ordinal", how="anti")
        new = others.filter(pl.col("unit") == unit)
        files.write_parquet(
            amend.staged(run, "ledger", name), pl.concat([old, new], how="diagonal_relaxed").sort("ordinal")
        )
    return came


def _own(made: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """``made``, rows of the retry's units, under the units and ordinals that the pairs have in the run."""
    number = pl.col("unit").str.strip_prefix("retry-").cast(pl.UInt32) * UNIT_ROWS + pl.col("ordinal")
    at = made.select(number).to_series()
    return made.with_columns(rows[c].gather(at).alias(c) for c in IDENTITY)


def _by_unit(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (unit,), some in rows.group_by("unit", maintain_order=True):
        yield str(unit), some.select("ordinal")


def _stage_parts(run: str, rows: pl.DataFrame, units: list[str], work: str) -> None:
    """Where the run keeps its parts for replays: theirs get the new rows, and the new tars go beside them."""
    parts = files.join(work, "parts")
    # A second retry must not write over the tars of the first.
    before = len({n for n in files.names(files.join(run, "parts"), ".tar") if n.startswith("retry-")})
    tars = {unit: f"retry-{before + number:06d}" for number, unit in enumerate(units)}
    new = _own(pl.concat([files.read_parquet(files.join(parts, f"{u}.parquet")) for u in units]), rows)
    new = new.with_columns(pl.col("part").replace(tars))
    for unit, ours in _by_unit(rows):
        name = f"{unit}.parquet"
        old = files.read_parquet(files.join(run, "parts", name)).join(ours, on="ordinal", how="anti")
        merged = pl.concat([old, new.filter(pl.col("unit") == unit)], how="diagonal_relaxed")
        files.write_parquet(amend.staged(run, "parts", name), merged.sort("ordinal"))
    for unit, tar in tars.items():
        files.move(files.join(parts, f"{unit}.tar"), amend.staged(run, "parts", f"{tar}.tar"))
