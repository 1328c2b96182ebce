"""The relate phase: what pairs are to one another, from their light columns.

``relate`` drops all but one of the pairs that carry the very same key (stages that must count all pairs come
before that), runs the recipe's relate stages in order over the pairs still alive, and writes
``<unit>.relate.parquet`` per unit: one row per pair, verdicts of the measure phase carried on. On the local
runner, and for up to ``SPREAD_ABOVE`` pairs on any other, it works in this process, which needs about 0.6 GB per
million pairs at the most; above that the work is spread over the runner (``relate_beam``) and the verdicts are
the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import polars as pl

from ..filters.same_key import SameKey
from . import files
from .columns import COLUMNS, with_missing
from .index import indexed, pair_files
from .stage import StageModel, Tally, judge

BASE = ("unit", "ordinal", "key", "origin", "status", "stage", "reason", "detail")
STATE = (*BASE[4:], "duplicate_of", "duplicate_kind", "cluster", "contaminates", "split")
SUFFIX = ".relate.parquet"
SPREAD_ABOVE = 1_000_000
"""Pairs up to which this process relates them whatever the runner: a cluster takes ten seconds a job to start."""


@runtime_checkable
class RelateStage(Protocol):
    """What a stage of this phase has beyond ``StageModel``.

    A stage names the columns it needs beside those of ``BASE`` in ``reads``; what it changes it reads. One that
    compares rows with one another is also a ``relate_beam.SpreadStage``, one that counts over all rows a
    ``relate_beam.CountStage``, one that needs a few sums over the run a ``relate_beam.SumStage``; on many machines
    ``relate`` of any other stage sees one unit at a time.
    """

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of all units with the stage's columns; same rows, same order, whatever that order is."""
        ...


@dataclass
class RelateResult:
    """Counts per stage (``in``, ``kept``, ``dropped_<reason>``, ``us``) and kept pairs per split."""

    stages: dict[str, Tally] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)


def relate(
    parts: Sequence[str],
    stages: Sequence[StageModel],
    out: str,
    options: Any = None,
    spread: bool | None = None,
    spread_above: int = SPREAD_ABOVE,
) -> RelateResult:
    """Relate the pairs of ``parts`` (parquet files of units) and write ``out/<unit>.relate.parquet`` for each.

    The same parts and stages give the same files, however often and in whatever order they are given.
    ``options`` are Beam's; ``spread`` forces the work onto Beam or into this process, by default the runner
    and the number of pairs decide.
    """
    steps = in_order(stages)
    for stage in steps:
        if not isinstance(stage, RelateStage):
            raise TypeError(f"stage {stage.name} is of the relate phase but has no relate(rows)")
    if spread is None:
        from .beam_run import is_local

        spread = options is not None and not is_local(options) and sum(files.each(height, parts, out)) > spread_above
    parts = sorted(parts)
    known = [path for index in sorted({getattr(s, "index", "") for s in stages} - {""}) for path in pair_files(index)]
    state = tuple(dict.fromkeys([*STATE, *(c for s in stages for c in s.adds)]))
    times = _spread(parts, known, steps, out, state, options) if spread else _here(parts, known, steps, out, state)
    return _count(parts, steps, out, times)


def in_order(stages: Sequence[StageModel]) -> list[StageModel]:
    """The phase's steps: what counts all pairs, then one pair per key, then the recipe's other stages."""
    early = [s for s in stages if getattr(s, "before_same_key", False)]
    return [*early, SameKey(), *(s for s in stages if s not in early)]


def _here(
    parts: Sequence[str], known: Sequence[str], steps: Sequence[StageModel], out: str, state: tuple[str, ...]
) -> dict[str, int]:
    """All rows in this process, with those of index files; microseconds per stage."""
    rows, times = related(read_light([*parts, *known], steps), steps)
    by_unit = rows.partition_by("unit", as_dict=True)
    for path in parts:
        unit = unit_name(path)
        publish(by_unit.get((unit,), rows.clear()), unit, out, state)
    return times


def related(rows: pl.DataFrame, steps: Sequence[StageModel]) -> tuple[pl.DataFrame, dict[str, int]]:
    """``rows`` after each of ``steps`` in turn, in any order, and microseconds per stage; the alive are related."""
    times = {}
    for stage in steps:
        started = time.perf_counter()
        alive, rest = rows.filter(pl.col("status").is_null()), rows.filter(pl.col("status").is_not_null())
        if alive.height:
            rows = judged(stage, alive, stage.relate(alive))  # type: ignore[attr-defined]
            rows = pl.concat([rows, rest], how="diagonal_relaxed") if rest.height else rows
        times[stage.name] = int((time.perf_counter() - started) * 1e6)
    return rows, times


def judged(stage: StageModel, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """The stage's verdicts on ``after``; rows of an index stay as they were ``before``, so that all stages see them."""
    new = judge(stage, after.filter(~indexed()))
    return pl.concat([new, before.filter(indexed())], how="diagonal_relaxed")


def _spread(
    parts: Sequence[str],
    known: Sequence[str],
    steps: Sequence[StageModel],
    out: str,
    state: tuple[str, ...],
    options: Any,
) -> dict[str, int]:
    """Stage by stage over Beam; microseconds per stage."""
    from .relate_beam import Place, publish_units, relate_stage

    work = files.join(out, "relating")
    files.remove(work)
    before, times = None, {}
    for number, stage in enumerate(steps):
        started = time.perf_counter()
        columns = tuple(dict.fromkeys([*BASE, *state, *getattr(stage, "reads", ())]))
        place = Place((*parts, *known), before, files.join(work, f"{number}-{stage.name}"), columns)
        relate_stage(stage, place, state, options)
        before = place.own
        times[stage.name] = int((time.perf_counter() - started) * 1e6)
    publish_units(parts, str(before), out, state, options)
    files.remove(work)
    return times


def read_light(parts: Sequence[str], stages: Sequence[StageModel]) -> pl.DataFrame:
    """The columns that ``stages`` read, of all parts; columns that a part lacks are null."""
    wanted = list(dict.fromkeys([*BASE, *(c for s in stages for c in getattr(s, "reads", ()))]))
    frames = files.each(lambda path: read_columns(path, wanted), parts, parts[0]) if parts else []
    return pl.concat([pl.DataFrame(schema={c: COLUMNS[c].dtype for c in wanted}), *frames], rechunk=True)


def read_columns(path: str, wanted: Sequence[str]) -> pl.DataFrame:
    """The ``wanted`` columns of a parquet file; null where it lacks one."""
    with files.open_read(path) as handle:
        there = set(pl.read_parquet_schema(handle))
    return with_missing(files.read_parquet(path, [c for c in wanted if c in there]), tuple(wanted)).select(wanted)


def height(path: str) -> int:
    """Rows of a parquet file, from its footer."""
    with files.open_read(path) as handle:
        return int(pl.scan_parquet(handle).select(pl.len()).collect().item())


def unit_name(path: str) -> str:
    """The unit of a part file."""
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def publish(rows: pl.DataFrame, unit: str, out: str, state: tuple[str, ...]) -> None:
    """Write what the phase found of a unit; a pair that stays is in train where no stage said otherwise."""
    rows = with_missing(rows, state).with_columns(
        unit=pl.lit(unit), split=pl.when(pl.col("status").is_null()).then(pl.col("split").fill_null("train"))
    )
    files.write_parquet(files.join(out, f"{unit}{SUFFIX}"), rows.select("unit", "ordinal", *state).sort("ordinal"))


def _count(parts: Sequence[str], steps: Sequence[StageModel], out: str, times: dict[str, int]) -> RelateResult:
    """Counts from the files that were written."""
    columns = ["status", "stage", "reason", "split"]

    def ends(part: str) -> pl.DataFrame:
        return files.read_parquet(files.join(out, f"{unit_name(part)}{SUFFIX}"), columns).group_by(columns).len()

    ended = files.each(ends, parts, out)
    schema = dict.fromkeys(columns, pl.String)
    table = pl.concat([pl.DataFrame(schema={**schema, "len": pl.get_index_type()}), *ended])
    kept = table.filter(pl.col("status").is_null())
    result = RelateResult(splits=dict(kept.group_by("split").agg(pl.col("len").sum()).sort("split").rows()))
    left = int(kept["len"].sum())
    for stage in reversed(steps):
        own = table.filter(pl.col("stage") == stage.name).group_by("reason").agg(pl.col("len").sum()).sort("reason")
        dropped = {f"dropped_{reason}": int(n) for reason, n in own.rows()}
        tally = Tally({"kept": left, **dropped, "us": times[stage.name]})
        left += sum(dropped.values())
        tally["in"] = left
        result.stages[stage.name] = tally
    result.stages = dict(reversed(result.stages.items()))
    return result
