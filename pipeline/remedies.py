"""What would have kept a pair: the smallest change of a threshold after which its stage lets it through.

Every change is tried: the stage's reasons are taken again for this one row, as a replay would take them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from .columns import COLUMNS
from .comparisons import Comparison, choices, comparisons, drops_with, valid
from .stage import StageModel


def compared(stage: StageModel, row: pl.DataFrame) -> list[dict[str, Any]]:
    """Each threshold of ``stage`` with the value it is compared with in ``row`` (one row), and whether it drops.

    ``idle``: the comparison holds and yet does not drop (a limit that is switched off).
    """
    told = []
    for c in comparisons(stage):
        value, hit = _measured(c, row)
        if value is not None:
            told.append(
                {
                    "field": f"{stage.name}.{c.field}",
                    "of": (" / " if c.ratio else ", ").join(c.columns),
                    "value": round(value, 4),
                    "sign": c.sign,
                    "threshold": getattr(stage, c.field),
                    "reason": c.reason,
                    "drops": hit,
                    "idle": not hit and row.select(c.drops().fill_null(False)).item(),
                    "unit": c.unit,
                }
            )
    return told


def remedies(stage: StageModel, row: pl.DataFrame) -> list[str]:
    """``stage.field=value`` changes of which each alone lets ``row`` (one row) through ``stage``; else one of several.

    Empty where no threshold of the stage can (a broken image stays broken).
    """
    tried = list(_changes(stage, row))
    alone = [change for change in tried if _passes(stage, row, [change])]
    if alone:
        return [_set(stage, *change) for change in alone]
    together = [change for change in tried if change[2]]
    if len(together) > 1 and _passes(stage, row, together):
        return [" --set ".join(_set(stage, *change) for change in together)]
    return []


def first_drop(stages: Sequence[StageModel], row: pl.DataFrame) -> tuple[StageModel, str] | None:
    """The first of ``stages`` that drops ``row`` by what is measured of it, and the reason."""
    for stage in stages:
        for reason, expr in stage.reasons().items():
            if row.select(expr.fill_null(False)).item():
                return stage, reason
    return None


def with_columns_for(row: pl.DataFrame, stages: Sequence[StageModel]) -> pl.DataFrame:
    """``row`` with every ledger column that the stages' reasons read, null where the ledger lacks it."""
    wanted = {c for s in stages for e in s.reasons().values() for c in e.meta.root_names()}
    return row.with_columns(pl.lit(None, COLUMNS[c].dtype).alias(c) for c in sorted(wanted - set(row.columns)))


def _changes(stage: StageModel, row: pl.DataFrame) -> Iterator[tuple[str, Any, bool]]:
    """(field, value, whether the field drops the row now) for each field that may help."""
    for c in comparisons(stage):
        value, hit = _measured(c, row)
        if hit and value is not None and (allowed := _lenient(c, value)) is not None:
            yield c.field, allowed, True
    for field in stage.thresholds():
        now = getattr(stage, field)
        for other in choices(stage, field) or []:
            if other != now:
                yield field, other, False
        if isinstance(now, tuple) and all(isinstance(v, str) for v in now):
            words = row.select(c for c in row.columns if row.schema[c] == pl.String and _reads(stage, c)).row(0)
            yield from ((field, (*now, word), True) for word in words if word and word not in now)


def _measured(c: Comparison, row: pl.DataFrame) -> tuple[float | None, bool]:
    """The value compared, and whether it drops: the comparison holds and its reason does (0 may mean no limit)."""
    drops = c.drops().fill_null(False) & c.stage.reasons()[c.reason].fill_null(False)
    value, hit = row.select(v=c.value.cast(pl.Float64), h=drops).row(0)
    return value, bool(hit)


def _reads(stage: StageModel, column: str) -> bool:
    return any(column in e.meta.root_names() for e in stage.reasons().values())


def _lenient(c: Comparison, value: float) -> Any:
    """The nearest round threshold at which ``value`` no longer drops; None where the field allows none."""
    whole = isinstance(getattr(c.stage, c.field), int)
    strict = 0 if c.sign in ("<", ">") else 1
    found: float
    if whole:
        found = math.floor(value) - strict if c.least else math.ceil(value) + strict
    else:
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.01
        steps = (math.floor(value / step) - strict) if c.least else (math.ceil(value / step) + strict)
        found = float(f"{steps * step:.6g}")
    return found if valid(c.stage, c.field, found) else None


def _passes(stage: StageModel, row: pl.DataFrame, changes: Sequence[tuple[str, Any, bool]]) -> bool:
    other = stage.model_copy(update={field: value for field, value, _ in changes})
    return not row.select(drops_with(other)).item()


def _set(stage: StageModel, field: str, value: Any, _: bool) -> str:
    said = (
        f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value
    )
    return f"{stage.name}.{field}={said}"
