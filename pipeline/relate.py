"""The relate phase: what pairs are to one another, from their light columns.

``relate`` reads a few columns of every part file, drops all but one of the pairs that carry the very
same key (shard members are named by it), runs the recipe's relate stages in order over the pairs still
alive, and writes ``<unit>.relate.parquet`` per unit: one row per pair, verdicts of the measure phase
carried on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import polars as pl

from . import files
from .columns import COLUMNS, with_missing
from .stage import VERDICT, Phase, StageModel, Tally, judge

BASE = ("unit", "ordinal", "key", "origin", "status", "stage", "reason", "detail")
WRITTEN = ("duplicate_of", "duplicate_kind", "cluster", "contaminates", "split")
SUFFIX = ".relate.parquet"


@runtime_checkable
class RelateStage(Protocol):
    """What a stage of this phase has beyond ``StageModel``.

    A stage may also name the columns it needs in ``reads``, beside the key and origin.
    """

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of all units with the stage's columns; same rows, same order, whatever that order is."""
        ...


@dataclass
class RelateResult:
    """Counts per stage (``in``, ``kept``, ``dropped_<reason>``) and kept pairs per split."""

    stages: dict[str, Tally] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)


class SameKey(StageModel):
    """Drops all pairs of one key but that of the smallest origin; runs first, recipe or not."""

    name: ClassVar[str] = "relate"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Marks the second and later pairs of a key."""
        rows = rows.with_row_index("_at")
        several = rows.select("_at", "key", "origin", "unit", "ordinal").filter(pl.col("key").is_duplicated())
        ordered = several.sort("origin", "unit", "ordinal").select("_at", "key", "origin")
        second = ordered.with_columns(
            _first=pl.col("_at").first().over("key"), stays=pl.col("origin").first().over("key")
        ).filter(pl.col("_at") != pl.col("_first"))
        gone = pl.col("stays").is_not_null()
        return (
            rows.join(second.select("_at", "stays"), on="_at", how="left", maintain_order="left")
            .with_columns(
                duplicate_of=pl.when(gone).then("key"),
                duplicate_kind=pl.when(gone).then(pl.lit("key")),
                detail=pl.when(gone)
                .then(pl.format("same image and caption as {}, which stays", "stays"))
                .otherwise("detail"),
            )
            .drop("_at", "stays")
        )

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"same_pair": pl.col("duplicate_kind") == "key"}


def relate(parts: Sequence[str], stages: Sequence[StageModel], out: str, options: Any = None) -> RelateResult:
    """Relate the pairs of ``parts`` (parquet files of units) and write ``out/<unit>.relate.parquet`` for each.

    The same parts and stages give the same files, however often and in whatever order they are given.
    """
    steps: list[StageModel] = [SameKey(), *stages]
    for stage in steps:
        if not isinstance(stage, RelateStage):
            raise TypeError(f"stage {stage.name} is of the relate phase but has no relate(rows)")
    rows = read_light(sorted(parts), steps)
    result = RelateResult()
    for stage in steps:
        rows = _run(stage, rows, result.stages.setdefault(stage.name, Tally()))
    alive = pl.col("status").is_null()
    rows = with_missing(rows, WRITTEN).with_columns(split=pl.when(alive).then(pl.col("split").fill_null("train")))
    result.splits = dict(rows.filter(alive).group_by("split").len().sort("split").rows())
    own = [*dict.fromkeys(["unit", "ordinal", *VERDICT, *WRITTEN, *(c for s in stages for c in s.adds)])]
    own.remove("blocked")
    by_unit = rows.partition_by("unit", as_dict=True)
    for path in parts:
        unit = path.rsplit("/", 1)[-1].removesuffix(".parquet")
        group = by_unit.get((unit,), rows.clear())
        files.write_parquet(files.join(out, f"{unit}{SUFFIX}"), with_missing(group, own).select(own).sort("ordinal"))
    return result


def read_light(parts: Sequence[str], stages: Sequence[StageModel]) -> pl.DataFrame:
    """The columns that ``stages`` read, of all parts; columns that a part lacks are null."""
    wanted = list(dict.fromkeys([*BASE, *(c for s in stages for c in getattr(s, "reads", ()))]))
    frames = []
    for path in parts:
        with files.open_read(path) as handle:
            there = set(pl.read_parquet_schema(handle))
        frame = files.read_parquet(path, [c for c in wanted if c in there])
        frames.append(with_missing(frame, wanted).select(wanted))
    if not frames:
        return pl.DataFrame(schema={c: COLUMNS[c].dtype for c in wanted})
    return pl.concat(frames, rechunk=True)


def _run(stage: StageModel, rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """One stage over the rows still alive, with its verdicts and counts."""
    alive, rest = rows.filter(pl.col("status").is_null()), rows.filter(pl.col("status").is_not_null())
    started = time.perf_counter()
    tally["in"] += alive.height
    if not alive.height:
        return rows
    assert isinstance(stage, RelateStage)
    done = judge(stage, stage.relate(alive))
    for reason, n in done.group_by("reason").len().rows():
        tally["kept" if reason is None else f"dropped_{reason}"] += n
    tally["us"] += int((time.perf_counter() - started) * 1e6)
    return pl.concat([done, rest], how="diagonal_relaxed") if rest.height else done
