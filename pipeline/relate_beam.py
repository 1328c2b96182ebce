"""The relate phase on many machines: the same verdicts as ``relate``, from small shuffles.

A stage that compares rows with one another gives three functions: ``spread`` cuts a unit's rows into
entries of a few tens of bytes by partition; ``meet`` finds the candidate pairs of one partition; ``settle``
judges whole groups of rows. Around them:

    meet     units -> entries by partition -> candidate pairs          WORK/pairs/
    group    the driver joins candidates into groups, ids alone (16 bytes a pair)
    settle   units -> the groups' rows, by bin of groups -> verdicts by unit -> WORK/STAGE/<unit>.parquet

A stage that only counts (``CountStage``) needs less: its entries meet by partition, and each unit is sent the
counts of its own values.

    count    units -> entries by partition -> counts by unit           WORK/STAGE/counted/<unit>.parquet

One that needs a few sums over the run (``SumStage``) has its units sum, the driver add up, and each unit judge its
rows by the sums. Rows without a candidate never leave their unit. Between steps flow Arrow-backed batches keyed by
partition. The driver holds ids of candidate pairs only: 100 million pairs are 1.6 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import apache_beam as beam
import numpy as np
import polars as pl

from ..filters.components import components
from . import batch as _coder  # noqa: F401  (registers the coder of batches)
from . import beam_run, files
from .columns import with_missing
from .relate import height, judged, publish, read_columns, unit_name
from .stage import StageModel

KEYED = tuple[int, pl.DataFrame]
UNIT = 1 << 32
"""A node is the number of its unit times this, plus its ordinal."""
ENTRIES = 1 << 22
"""Entries per partition aimed at: about 200 MB in a worker."""
GROUP_ROWS = 1 << 18
"""Rows per bin of groups aimed at."""
SUMS = "sums.parquet"


@runtime_checkable
class SpreadStage(Protocol):
    """A relate stage that compares rows with one another.

    ``entries_per_row`` says how many entries ``spread`` makes of a row at the most, from which the number of
    partitions follows; one where it is not told.
    """

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """Entries of rows (with ``node``) by partition."""
        ...

    def meet(self, entries: pl.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Nodes (a, b) of one partition's candidate pairs."""
        ...

    def settle(self, rows: pl.DataFrame, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> pl.DataFrame:
        """Rows, in order of key, with the stage's columns; (a, b) are row numbers of candidates."""
        ...


@runtime_checkable
class SumStage(Protocol):
    """A relate stage that judges each row by a few sums over the run."""

    def sums(self, rows: pl.DataFrame) -> pl.DataFrame:
        """A unit's small table: ``n``, to be added up, by its other columns."""
        ...

    def relate_with(self, rows: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
        """As ``relate``, given the sums of all units; same rows, same order."""
        ...


@runtime_checkable
class CountStage(Protocol):
    """A relate stage that compares rows with counts over all rows."""

    def entries(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What is counted, each once: ``value`` (64 bits that stand for it) and what is counted of it."""
        ...

    def count(self, entries: pl.DataFrame) -> pl.DataFrame:
        """The counts of each ``value``."""
        ...

    def apply(self, rows: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
        """Rows with the stage's columns, from the counts of their values; same rows, same order."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a step reads and writes: part files, the state before the stage, and the stage's own folder."""

    parts: tuple[str, ...]
    before: str | None
    own: str
    columns: tuple[str, ...]

    def rows(self, number: int) -> pl.DataFrame:
        """All rows of unit ``number`` with ``node``, verdicts so far and the columns that the stage reads."""
        path = self.parts[number]
        rows = read_columns(path, self.columns)
        if self.before is not None:
            state = files.read_parquet(files.join(self.before, f"{unit_name(path)}.parquet"))
            rows = rows.drop([c for c in state.columns if c != "ordinal"], strict=False)
            rows = rows.join(state, on="ordinal", how="left", maintain_order="left")
        return rows.with_columns(node=pl.lit(number, pl.UInt64) * UNIT + pl.col("ordinal"))


def relate_stage(stage: StageModel, place: Place, state: tuple[str, ...], options: Any) -> None:
    """Run one stage; ``place.own`` then holds a file per unit with ordinal and the columns of ``state``."""
    numbers = list(range(len(place.parts)))
    if isinstance(stage, (CountStage, SpreadStage)):
        partitions = partitions_for(sum(files.each(height, place.parts, place.own)), stage)
    if isinstance(stage, CountStage):
        steps = [_Entries(stage, place, partitions), _Count(stage), _Write(files.join(place.own, "counted"), "value")]
        _run(stage.name, "Count", numbers, steps, options)
    if isinstance(stage, SpreadStage):
        _run(stage.name, "Meet", numbers, [_Spread(stage, place, partitions), _Meet(stage, place)], options)
        bins = group_candidates(place)
        steps = [_Gather(place, bins), _Settle(stage, place), _Write(files.join(place.own, "settled"), "node")]
        _run(stage.name, "Settle", numbers, steps, options)
    if isinstance(stage, SumStage):
        count = _Sum(stage, place)
        beam_run.run(
            f"{stage.name}-sum",
            lambda p: p | beam.Create(numbers, reshuffle=True) | "Sum" >> beam.ParDo(count),
            options,
        )
        files.write_parquet(files.join(place.own, SUMS), add_sums(place))
    finish = _Finish(stage, place, state)
    beam_run.run(
        f"{stage.name}-finish",
        lambda p: p | beam.Create(numbers, reshuffle=True) | "Finish" >> beam.ParDo(finish),
        options,
    )


def partitions_for(rows: int, stage: CountStage | SpreadStage) -> int:
    """Partitions of so many rows' entries."""
    return max(1, min(65536, rows * int(getattr(stage, "entries_per_row", 1)) // ENTRIES))


def publish_units(parts: Sequence[str], before: str, out: str, state: tuple[str, ...], options: Any) -> None:
    """Write each unit's file of the phase from the state after its last stage."""
    units = [unit_name(path) for path in parts]
    beam_run.run(
        "publish",
        lambda p: p | beam.Create(units, reshuffle=True) | "Publish" >> beam.ParDo(_Publish(before, out, state)),
        options,
    )


def group_candidates(place: Place) -> int:
    """Join the candidate pairs into groups and lay both out by bin; the number of bins."""
    folder = files.join(place.own, "pairs")
    found = files.each(lambda n: files.read_parquet(files.join(folder, n)), files.names(folder, ".parquet"), folder)
    if not found:
        return 0
    pairs = pl.concat(found).unique().sort("a", "b")
    nodes, at = np.unique(np.concatenate([pairs["a"].to_numpy(), pairs["b"].to_numpy()]), return_inverse=True)
    label = components(len(nodes), at[: pairs.height], at[pairs.height :])
    bins = max(1, len(nodes) // GROUP_ROWS)
    to = pl.Series((label % bins).astype(np.uint32))
    grouped = pl.DataFrame({"node": nodes, "to": to}).with_columns(unit=pl.col("node") // UNIT)
    _write_each(files.join(place.own, "nodes"), grouped.group_by("unit"), ["node", "to"])
    of_pairs = pairs.with_columns(to=to.gather(at[: pairs.height]))
    _write_each(files.join(place.own, "edges"), of_pairs.group_by("to", maintain_order=True), ["a", "b"])
    return bins


def add_sums(place: Place) -> pl.DataFrame:
    """The sums of all units added up; the driver holds one unit's and the total."""
    folder = files.join(place.own, "sums")
    total: pl.DataFrame | None = None
    for name in files.names(folder, ".parquet"):
        some = files.read_parquet(files.join(folder, name))
        both = some if total is None else pl.concat([total, some])
        total = both.group_by([c for c in both.columns if c != "n"]).agg(pl.col("n").sum())
    return pl.DataFrame() if total is None else total


def _write_each(folder: str, groups: Iterable[tuple[Any, pl.DataFrame]], columns: list[str]) -> None:
    """A file per group, named by it."""

    def write(group: tuple[Any, pl.DataFrame]) -> None:
        (number,), rows = group
        files.write_parquet(files.join(folder, f"{number}.parquet"), rows.select(columns))

    files.each(write, groups, folder)


def _run(stage: str, name: str, numbers: list[int], steps: Sequence[beam.DoFn], options: Any) -> None:
    """The steps one after another, what each but the last sends grouped by its key."""

    def build(pipeline: beam.Pipeline) -> None:
        flow = pipeline | "Units" >> beam.Create(numbers, reshuffle=True)
        for at, step in enumerate(steps[:-1]):
            sent = flow | f"{name}{at}" >> beam.ParDo(step).with_output_types(KEYED)
            flow = sent | f"Group{at}" >> beam.GroupByKey()
        _ = flow | name >> beam.ParDo(steps[-1])

    beam_run.run(f"{stage}-{name.lower()}", build, options)


class _Spread(beam.DoFn):
    """A unit's living rows as entries by partition."""

    def __init__(self, stage: SpreadStage, place: Place, partitions: int) -> None:
        self.stage, self.place, self.partitions = stage, place, partitions

    def process(self, number: int) -> Iterator[KEYED]:
        rows = self.place.rows(number).filter(pl.col("status").is_null())
        if rows.height:
            yield from self.stage.spread(rows, self.partitions)


class _Entries(beam.DoFn):
    """What a unit's living rows give to count, by partition."""

    def __init__(self, stage: CountStage, place: Place, partitions: int) -> None:
        self.stage, self.place, self.partitions = stage, place, partitions

    def process(self, number: int) -> Iterator[KEYED]:
        rows = self.place.rows(number).filter(pl.col("status").is_null())
        if rows.height:
            found = self.stage.entries(rows).with_columns(unit=pl.lit(number, pl.UInt32))
            for (to,), some in found.with_columns(_to=pl.col("value") % self.partitions).group_by("_to"):
                yield int(str(to)), some.drop("_to")


class _Count(beam.DoFn):
    """The counts of a partition's values, for each unit that has them."""

    def __init__(self, stage: CountStage) -> None:
        self.stage = stage

    def process(self, element: tuple[int, Iterable[pl.DataFrame]]) -> Iterator[KEYED]:
        _, frames = element
        entries = pl.concat(frames)
        counted = self.stage.count(entries.drop("unit").unique())
        told = entries.select("unit", "value").unique().join(counted, on="value")
        for (unit,), some in told.group_by("unit"):
            yield int(str(unit)), some.drop("unit")


class _Meet(beam.DoFn):
    """The candidate pairs of a partition, written under its number: a retry writes the same file."""

    def __init__(self, stage: SpreadStage, place: Place) -> None:
        self.stage, self.place = stage, place

    def process(self, element: tuple[int, Iterable[pl.DataFrame]]) -> None:
        partition, frames = element
        a, b = self.stage.meet(pl.concat(frames))
        if len(a):
            pairs = pl.DataFrame({"a": np.minimum(a, b), "b": np.maximum(a, b)}).unique().sort("a", "b")
            files.write_parquet(files.join(self.place.own, "pairs", f"{partition:05d}.parquet"), pairs)


class _Sum(beam.DoFn):
    """Sums over a unit's living rows, written under its number."""

    def __init__(self, stage: SumStage, place: Place) -> None:
        self.stage, self.place = stage, place

    def process(self, number: int) -> None:
        rows = self.place.rows(number).filter(pl.col("status").is_null())
        files.write_parquet(files.join(self.place.own, "sums", f"{number}.parquet"), self.stage.sums(rows))


class _Gather(beam.DoFn):
    """The rows of a unit that are in a group, by bin."""

    def __init__(self, place: Place, bins: int) -> None:
        self.place, self.bins = place, bins

    def process(self, number: int) -> Iterator[KEYED]:
        path = files.join(self.place.own, "nodes", f"{number}.parquet")
        if not self.bins or not files.exists(path):
            return
        rows = self.place.rows(number).join(files.read_parquet(path), on="node")
        for (to,), some in rows.group_by("to"):
            yield int(str(to)), some.drop("to")


class _Settle(beam.DoFn):
    """The verdicts of a bin of groups, by unit."""

    def __init__(self, stage: SpreadStage, place: Place) -> None:
        self.stage, self.place = stage, place

    def process(self, element: tuple[int, Iterable[pl.DataFrame]]) -> Iterator[KEYED]:
        to, frames = element
        rows = pl.concat(frames).sort("key", "origin", "node")
        edges = files.read_parquet(files.join(self.place.own, "edges", f"{to}.parquet"))
        place = pl.DataFrame({"node": rows["node"]}).with_row_index("at").sort("node")
        at = place["at"].cast(pl.Int64).to_numpy()
        a, b = (at[np.searchsorted(place["node"].to_numpy(), edges[c].to_numpy())] for c in ("a", "b"))
        done = self.stage.settle(rows, np.minimum(a, b), np.maximum(a, b))
        done = done.with_columns(_unit=pl.col("node") // UNIT)
        for (unit,), some in done.group_by("_unit"):
            yield int(str(unit)), some.drop("_unit")


class _Write(beam.DoFn):
    """What was found for a unit, in one file: a file per unit and partition would be too many."""

    def __init__(self, folder: str, order: str) -> None:
        self.folder, self.order = folder, order

    def process(self, element: tuple[int, Iterable[pl.DataFrame]]) -> None:
        unit, frames = element
        files.write_parquet(files.join(self.folder, f"{unit}.parquet"), pl.concat(frames).sort(self.order))


class _Finish(beam.DoFn):
    """A unit's rows with the stage's verdicts: settled where they were in a group, else each on its own."""

    def __init__(self, stage: StageModel, place: Place, state: tuple[str, ...]) -> None:
        self.stage, self.place, self.state = stage, place, state

    def process(self, number: int) -> None:
        rows = self.place.rows(number)
        alive, done = rows.filter(pl.col("status").is_null()), [rows.filter(pl.col("status").is_not_null())]
        if alive.height:
            done.append(judged(self.stage, alive, self._related(number, alive)))
        unit = unit_name(self.place.parts[number])
        told = with_missing(pl.concat(done, how="diagonal_relaxed"), self.state).select("ordinal", *self.state)
        files.write_parquet(files.join(self.place.own, f"{unit}.parquet"), told.sort("ordinal"))

    def _related(self, number: int, alive: pl.DataFrame) -> pl.DataFrame:
        if isinstance(self.stage, SumStage):
            return self.stage.relate_with(alive, files.read_parquet(files.join(self.place.own, SUMS)))
        if isinstance(self.stage, CountStage):
            told = self._found("counted", number)
            # Nothing told: nothing to count, which the stage's own count says in its own columns.
            return self.stage.apply(alive, self.stage.count(self.stage.entries(alive)) if told is None else told)
        if not isinstance(self.stage, SpreadStage):
            return cast(Callable[[pl.DataFrame], pl.DataFrame], self.stage.relate)(alive)  # type: ignore[attr-defined]
        settled = self._found("settled", number)
        nothing = np.empty(0, dtype=np.int64)
        if settled is None:
            return self.stage.settle(alive.sort("key", "origin"), nothing, nothing)
        alone = alive.filter(~pl.col("node").is_in(settled["node"].implode())).sort("key", "origin")
        return pl.concat([settled, self.stage.settle(alone, nothing, nothing)], how="diagonal_relaxed")

    def _found(self, what: str, number: int) -> pl.DataFrame | None:
        path = files.join(self.place.own, what, f"{number}.parquet")
        return files.read_parquet(path) if files.exists(path) else None


class _Publish(beam.DoFn):
    """Shell of ``relate.publish``."""

    def __init__(self, before: str, out: str, state: tuple[str, ...]) -> None:
        self.before, self.out, self.state = before, out, state

    def process(self, unit: str) -> None:
        publish(files.read_parquet(files.join(self.before, f"{unit}.parquet")), unit, self.out, self.state)
