"""How many pairs another threshold would keep, for every threshold of a recipe, exactly.

For each value that a slider stops at, the stage's own reasons are taken with that value and joined with all other
verdicts: what is counted is what `curate replay --set` then gives. Which thresholds there are, and what they are
compared with, comes from the stages (``pipeline.comparisons``); nothing here knows a stage by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ..pipeline.columns import COLUMNS
from ..pipeline.comparisons import Comparison, choices, comparisons, drops_with, valid, varying
from ..pipeline.recipe import Recipe
from ..pipeline.stage import StageModel
from .words import field_words

STOPS = 50
"""About how many values a slider stops at."""
REMOVED = "removed"
NOTED = ("status", "stage", "blocked")


@dataclass(frozen=True)
class Control:
    """A threshold that can be moved: what it is compared with, or the values of a switch."""

    stage: StageModel
    field: str
    reasons: tuple[str, ...]
    compared: tuple[Comparison, ...] = ()
    switch: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.stage.name}.{self.field}"

    def loses(self, value: Any) -> pl.Expr:
        """True where the stage drops for a reason that hangs on this field, with the field at ``value``."""
        return drops_with(self.stage.model_copy(update={self.field: value}), list(self.reasons))

    @property
    def roots(self) -> tuple[str, ...]:
        """The ledger columns of those reasons."""
        held = self.stage.reasons()
        return tuple(dict.fromkeys(c for r in self.reasons for c in held[r].meta.root_names()))


def controls(recipe: Recipe) -> list[Control]:
    """Every threshold of the recipe's stages that is a number, a switch or a choice of words, in recipe order."""
    found = []
    for stage in recipe.stages:
        compared = comparisons(stage)
        for field in type(stage).model_fields:
            if field not in stage.thresholds():
                continue
            own = tuple(c for c in compared if c.field == field)
            switch = choices(stage, field)
            reasons = tuple(varying(stage, field)) if own or switch else ()
            if reasons and all(not _nested(column) for c in own for column in c.columns):
                found.append(Control(stage, field, reasons, own, tuple(switch or ())))
    return found


def _nested(column: str) -> bool:
    return column in COLUMNS and bool(pl.DataFrame(schema={column: COLUMNS[column].dtype}).schema[column].is_nested())


def narrow(ledger: pl.LazyFrame, recipe: Recipe, found: Sequence[Control]) -> pl.DataFrame:
    """What the sliders and pictures need of the ledger, in memory: some numbers and a flag per reason.

    Columns: ``status``, ``stage``, ``blocked`` (True where measuring failed), the numbers that thresholds are
    compared with, ``reason:<stage>:<reason>``, and ``switch:<name>:<i>`` for the values of the switches.
    """
    held = set(ledger.collect_schema().names())
    numbers = dict.fromkeys(c for f in found if f.compared for c in f.roots)
    wanted = {c for s in recipe.stages for e in s.reasons().values() for c in e.meta.root_names()}
    missing = sorted(wanted - held)
    if missing:
        ledger = ledger.with_columns(pl.lit(None, dtype=COLUMNS[c].dtype).alias(c) for c in missing)
    flags = [
        expr.fill_null(False).alias(f"reason:{s.name}:{reason}")
        for s in recipe.stages
        for reason, expr in s.reasons().items()
    ]
    switches = [c.loses(v).alias(f"switch:{c.name}:{i}") for c in found for i, v in enumerate(c.switch)]
    blocked = pl.col("blocked").is_not_null() if "blocked" in held else pl.lit(False)
    return ledger.select(
        pl.col("status").cast(pl.Categorical), pl.col("stage").cast(pl.Categorical), blocked.alias("blocked"),
        *(pl.col(c) for c in numbers if c not in NOTED), *flags, *switches,
    ).collect(engine="streaming")  # fmt: skip


def sliders(rows: pl.DataFrame, recipe: Recipe, told: dict[str, Any], found: Sequence[Control]) -> list[dict[str, Any]]:
    """One entry per control for the page; ``rows`` from ``narrow``, ``told`` is run.json."""
    made = (_slider(rows, recipe, told, control) for control in found)
    return [m for m in made if m is not None]


def _slider(rows: pl.DataFrame, recipe: Recipe, told: dict[str, Any], control: Control) -> dict[str, Any] | None:
    classes = _classes(recipe, told, control)
    if control.switch:
        stops = list(control.switch)
        counted = [_sums(rows, classes, pl.col(f"switch:{control.name}:{i}")) for i in range(len(stops))]
    else:
        # Rows that are alike in what the reasons read are alike for every value: count them once.
        groups = (
            rows.group_by(control.roots)
            .agg(*(expr.sum().alias(name) for name, expr in classes.items()), all=pl.len())
            .with_columns(_v=pl.coalesce(c.value.cast(pl.Float64) for c in control.compared))
        )
        values = groups.filter(pl.col("_v").is_not_null()).select("_v", "all").sort("_v")
        if not values.height:
            return None
        stops = stops_for(values, control)
        counted = [_grouped(groups, tuple(classes), control.loses(v)) for v in stops]
    now = getattr(control.stage, control.field)
    first = control.compared[0] if control.compared else None
    return {
        "stage": control.stage.name,
        "field": control.field,
        "name": control.name,
        "phase": control.stage.phase,
        "reasons": control.reasons,
        "columns": first.columns if first else control.roots,
        "least": bool(first and first.least),
        "title": field_words(control.stage, control.field),
        "about": type(control.stage).model_fields[control.field].description or "",
        "unit": first.unit if first else "",
        "stops": stops,
        "now": stops.index(now),
        **{name: [c[name] for c in counted] for name in (*classes, "all")},
    }


def _classes(recipe: Recipe, told: dict[str, Any], control: Control) -> dict[str, pl.Expr]:
    """Pairs that only this control decides on, as flags.

    ``kept`` are those that all else lets through: of a measuring stage, all rules on the pair itself; of a stage
    that relates pairs, the stages before it. ``unmeasured`` would pass so far, but the run measured them no
    further. ``final`` are those that the run kept.
    """
    others = [
        pl.col(f"reason:{s.name}:{r}")
        for s in recipe.stages
        for r in s.reasons()
        if s.phase == "measure" and not (s.name == control.stage.name and r in control.reasons)
    ]
    status, stage = pl.col("status").cast(pl.String), pl.col("stage").cast(pl.String)
    final = (status == "kept").alias("final")
    if control.stage.phase != "measure":
        order = list(told["stages"])
        at = order.index(control.stage.name) if control.stage.name in order else len(order)
        own = [pl.col(f"reason:{control.stage.name}:{r}") for r in control.reasons]
        here = (stage == control.stage.name) & pl.any_horizontal(own)
        reached = (status == "kept") | stage.is_in(order[at + 1 :]).fill_null(False) | here.fill_null(False)
        return {"kept": reached, "unmeasured": pl.lit(False), "final": final}
    clear = ~pl.any_horizontal(others) if others else pl.lit(True)
    measuring = [s.name for s in recipe.stages if s.phase == "measure"]
    failed = (status == "failed") & stage.is_in(["read", *measuring])
    early = (status == "dropped") & stage.is_in([] if told["dropped_too"] else measuring[:-1])
    able = clear & ~failed.fill_null(False) & ~pl.col("blocked") & (stage != REMOVED).fill_null(True)
    early = early.fill_null(False)
    return {"kept": able & ~early, "unmeasured": able & early, "final": final}


def _sums(rows: pl.DataFrame, classes: dict[str, pl.Expr], loses: pl.Expr) -> dict[str, int]:
    counted = rows.select(*((e & ~loses).sum().alias(n) for n, e in classes.items()), (~loses).sum().alias("all"))
    return {name: int(n) for name, n in counted.row(0, named=True).items()}


def _grouped(groups: pl.DataFrame, names: tuple[str, ...], loses: pl.Expr) -> dict[str, int]:
    passes = ~groups.select(loses).to_series()
    return {name: int(groups[name].filter(passes).sum()) for name in (*names, "all")}


def stops_for(values: pl.DataFrame, control: Control) -> list[float]:
    """The values that a slider stops at: round numbers over the bulk of the ``values``, its ends, and the one in force.

    ``values`` has ``_v``, ascending, and ``all``, the number of pairs with it.
    """
    now = getattr(control.stage, control.field)
    whole = isinstance(now, int)
    found = _stops(values, whole)
    typed = (int(v) if whole else float(v) for v in found)
    return sorted({now, *(v for v in typed if valid(control.stage, control.field, v))})


def _stops(values: pl.DataFrame, whole: bool) -> Iterator[float]:
    """Even steps over the middle 95 in 100 pairs, wider ones towards the ends."""
    v, share = values["_v"], (values["all"].cum_sum() / values["all"].sum()).to_numpy()

    def quantile(q: float) -> float:
        return float(v[min(len(v) - 1, int(np.searchsorted(share, q)))])

    low, high = quantile(0.025), quantile(0.975)
    if high <= low:
        low, high = float(v[0]), float(v[-1])
    step = _round_step((high - low) / STOPS) if high > low else max(abs(high), 1.0) / 10
    if whole:
        step = max(1, math.ceil(step))
    digits = max(0, 2 - math.floor(math.log10(step)))
    for k in range(math.floor(low / step), math.ceil(high / step) + 2):
        yield round(k * step, digits)
    for q in (0, 0.001, 0.005, 0.01):
        yield _outwards(quantile(q), down=True, whole=whole)
        yield _outwards(quantile(1 - q), down=False, whole=whole)


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * 0.999)


def _outwards(value: float, down: bool, whole: bool) -> float:
    """``value`` to two digits, never inwards; one more for whole numbers, so that the end itself lies inside."""
    if whole:
        return math.floor(value) if down else math.ceil(value) + 1
    if not value:
        return 0.0
    power = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    digits = max(0, -math.floor(math.log10(power)))
    return round((math.floor(value / power) if down else math.ceil(value / power)) * power, digits)
