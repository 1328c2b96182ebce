"""What a stage is, and how a batch goes through one.

A stage *measures* (adds columns to the same rows) and *decides* (reasons, expressions over
ledger columns). ``apply_stage`` is everything else, alike for all: it hands the stage the rows
that are still alive, catches what goes wrong per row, writes verdicts and counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from .columns import COLUMNS, with_missing, without

Phase = Literal["measure", "relate", "emit"]


@runtime_checkable
class Stage(Protocol):
    """What the engine needs of a stage; see DESIGN in docs/ for the contract."""

    name: ClassVar[str]

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame: ...

    def reasons(self) -> Mapping[str, pl.Expr]: ...


class StageModel(BaseModel):
    """Base of all stages: a pydantic model whose fields are the stage's thresholds.

    A subclass sets ``name`` (the word used in recipes and in the ledger), ``adds`` (the columns
    that ``measure`` writes) and gives each field a default and a ``Field(description=…)`` with its
    unit and the source of the default. A field that only enters ``reasons`` is declared with
    ``threshold(…)``; ``curate replay`` may change those and no others.

    ``measure`` returns the same rows in the same order. Where it cannot process one row it writes
    that row's ``failure`` column (a reason word) and ``detail``; a row may also be left to raise:
    the batch is then measured row by row and the row that raised becomes ``failed``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    adds: ClassVar[tuple[str, ...]] = ()
    phase: ClassVar[Phase] = "measure"
    on_images: ClassVar[bool] = False
    """Reads or writes image bytes: the engine hands such a stage small slices of a batch."""

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """``batch`` with the columns of ``adds``; the same rows in the same order."""
        return batch

    def reasons(self) -> Mapping[str, pl.Expr]:
        """Reason word to "drop where true", over ledger columns only, checked in this order."""
        return {}

    def resources(self) -> Mapping[str, str]:
        """Models and lexicons the stage reads: name to hash. They enter run.json and the resume check."""
        return {}

    def check(self) -> None:
        """Raise ``RecipeError`` where a file or model that measuring needs is missing; called before a run begins."""

    def notices(self) -> tuple[str, ...]:
        """What a reader of the result must know (no real detector, a sample model); usually nothing."""
        return ()

    def among(self, stages: Sequence[StageModel]) -> Self:
        """This stage as it runs in a recipe of ``stages``: one that follows others' fields returns a copy that does."""
        del stages
        return self

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Fields that only enter ``reasons``."""
        return frozenset(n for n, f in cls.model_fields.items() if _extra(f).get("threshold"))

    @classmethod
    def operational(cls) -> frozenset[str]:
        """Fields that change how a run goes (time limits, pools) and not what it gives."""
        return frozenset(n for n, f in cls.model_fields.items() if _extra(f).get("operational"))


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def threshold(default: Any, description: str, **limits: Any) -> Any:
    """A field that only enters ``reasons``: ``curate replay`` may change it."""
    return Field(default, description=description, json_schema_extra={"threshold": True}, **limits)


def operational(default: Any, description: str, **limits: Any) -> Any:
    """A field that changes how a run goes and not what it gives; left out of the recipe's hash."""
    return Field(default, description=description, json_schema_extra={"operational": True}, **limits)


VERDICT = ("status", "stage", "reason", "detail", "blocked")


def open_mask(batch: pl.DataFrame, dropped_too: bool = False) -> pl.Series:
    """True where a stage measures a row of ``batch``, which has the columns of ``VERDICT``.

    That is where it has no verdict yet or, with ``dropped_too``, is dropped and still measurable.
    """
    alive = batch["status"].is_null()
    if not dropped_too:
        return alive
    return alive | ((batch["status"] == "dropped").fill_null(False) & batch["blocked"].is_null())


class Tally(Counter[str]):
    """Counts of one stage: ``in``, ``kept``, ``dropped_<reason>``, ``failed`` and ``us`` (microseconds)."""


def apply_stage(stage: StageModel, batch: pl.DataFrame, tally: Tally, dropped_too: bool = False) -> pl.DataFrame:
    """Measure and judge the rows of ``batch`` whose ``status`` is null; the others pass by.

    With ``dropped_too`` the rows that an earlier stage dropped are measured as well, so that a
    replay may loosen any threshold; their verdict stays the first one.

    Returns the same rows in the same order with the stage's columns and, where the stage dropped
    or failed a row, ``status``, ``stage``, ``reason`` and ``detail``.
    """
    started = time.perf_counter()
    batch = with_missing(batch, VERDICT).with_row_index("_row")
    measured = open_mask(batch, dropped_too)
    whole = bool(measured.all())
    rows = batch if whole else batch.filter(measured)
    was_open = rows["status"].is_null()
    tally["in"] += int(was_open.sum())
    if rows.height:
        rows = judge(stage, _measure(stage, rows))
        _count(tally, rows["status"].filter(was_open), rows["reason"].filter(was_open))
    out = rows if whole else pl.concat([rows, batch.filter(~measured)], how="diagonal_relaxed").sort("_row")
    tally["us"] += int((time.perf_counter() - started) * 1e6)
    return without(out, "_row")


def _count(tally: Tally, status: pl.Series, reason: pl.Series) -> None:
    """Add up the verdicts of the rows that a stage judged."""
    if kept := status.null_count():
        tally["kept"] += kept
    if kept == len(status):
        return
    for word, why, n in pl.DataFrame([status, reason]).drop_nulls("status").group_by(pl.all()).len().rows():
        tally["failed" if word == "failed" else f"dropped_{why}"] += n


def apply_stages(
    stages: Sequence[StageModel], batch: pl.DataFrame, tallies: Mapping[str, Tally], dropped_too: bool = False
) -> pl.DataFrame:
    """``apply_stage`` for one stage after another; rows with a verdict stand aside, which saves sorting."""
    batch = batch.with_row_index("_at")
    aside: list[pl.DataFrame] = []
    for stage in stages:
        batch = apply_stage(stage, batch, tallies[stage.name], dropped_too)
        ended = ~open_mask(batch, dropped_too)
        if ended.any():
            aside.append(batch.filter(ended))
            batch = batch.filter(~ended)
    if aside:
        batch = pl.concat([batch, *aside], how="diagonal_relaxed").sort("_at")
    return without(batch, "_at")


def judge(stage: StageModel, rows: pl.DataFrame) -> pl.DataFrame:
    """Write verdicts on measured rows without one; a ``failure`` column goes before any reason."""
    rows = with_missing(rows, VERDICT)
    if "failure" not in rows.columns or not rows["failure"].count():
        rows = without(rows, "failure")
        if not stage.reasons():
            return rows
        rows = rows.hstack([pl.Series("failure", [], pl.String).extend_constant(None, rows.height)])
    reason = pl.coalesce(
        *(pl.when(expr.fill_null(False)).then(pl.lit(word)) for word, expr in stage.reasons().items()),
        pl.lit(None, dtype=pl.String),
    )
    failed, open_ = pl.col("failure").is_not_null(), pl.col("status").is_null()
    rows = rows.with_columns(_reason=pl.when(failed).then(pl.col("failure")).otherwise(reason))
    hit = open_ & pl.col("_reason").is_not_null()
    return rows.with_columns(
        blocked=pl.when(failed & ~open_).then(pl.format("{}:{}", pl.lit(stage.name), "failure")).otherwise("blocked"),
        status=pl.when(hit & failed).then(pl.lit("failed")).when(hit).then(pl.lit("dropped")).otherwise("status"),
        stage=pl.when(hit).then(pl.lit(stage.name)).otherwise("stage"),
        reason=pl.when(hit).then("_reason").otherwise("reason"),
    ).drop("_reason", "failure")


def _measure(stage: StageModel, alive: pl.DataFrame) -> pl.DataFrame:
    """Measure a batch; where that raises, measure row by row so that one row fails and no more."""
    try:
        return _checked(stage, alive)
    except Exception as error:
        if alive.height == 1:
            message = f"{type(error).__name__}: {error}"[:500]
            return with_missing(alive, stage.adds).with_columns(failure=pl.lit("stage_error"), detail=pl.lit(message))
        rows = [_measure(stage, alive[i]) for i in range(alive.height)]
        return pl.concat(rows, how="diagonal_relaxed")


def _checked(stage: StageModel, alive: pl.DataFrame) -> pl.DataFrame:
    out = with_missing(stage.measure(alive), stage.adds)
    if out.height != alive.height or not out["_row"].equals(alive["_row"]):
        raise ValueError(f"stage {stage.name}: measure must return the same rows in the same order")
    unknown = [c for c in out.columns if c not in COLUMNS and c not in ("failure", "_row", "_at")]
    if unknown:
        raise ValueError(f"stage {stage.name}: unregistered columns {unknown}; add them to pipeline/columns.py")
    return out
