"""What a stage's thresholds are compared with, found by asking its reasons.

A reason is an expression such as ``pl.col("chars") < self.shortest``. Where the field's value is put in as a
``_Probe``, Python hands it the comparison first (its type is a subclass of the other side's), so it can note what
stands there. The report's sliders and `curate why` follow from that: a stage that is new brings its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import polars as pl
from pydantic import TypeAdapter, ValidationError

from .columns import COLUMNS
from .stage import StageModel


@dataclass(frozen=True, eq=False)
class Comparison:
    """One reason's comparison of ``value`` (an expression over ledger columns) with ``stage.field``.

    ``sign`` is that of "value sign field" being true drops: one of ``<``, ``<=``, ``>``, ``>=``.
    """

    stage: StageModel
    field: str
    reason: str
    value: pl.Expr
    sign: str
    ratio: bool = False
    """The value is one column over another, so it has no unit."""

    @property
    def least(self) -> bool:
        """True where small values drop."""
        return self.sign.startswith("<")

    @property
    def columns(self) -> tuple[str, ...]:
        """The ledger columns of ``value``."""
        return tuple(dict.fromkeys(self.value.meta.root_names()))

    @property
    def unit(self) -> str:
        """The unit of ``value``, where it has one."""
        column = COLUMNS.get(self.columns[0])
        return column.unit if column and not self.ratio else ""

    @property
    def given(self) -> float:
        """The threshold in force."""
        return float(getattr(self.stage, self.field))

    def drops(self) -> pl.Expr:
        """True where the comparison holds."""
        return _compare(self.value, self.sign, getattr(self.stage, self.field))


def comparisons(stage: StageModel) -> list[Comparison]:
    """Every comparison of a number among the thresholds of ``stage`` with something in the ledger."""
    found: list[Comparison] = []
    for field in type(stage).model_fields:
        value = getattr(stage, field)
        if field not in stage.thresholds() or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        noted: list[tuple[pl.Expr, str, bool]] = []
        probed = stage.model_copy(update={field: _Probe(value, noted)})
        try:
            reasons = probed.reasons()
        except (TypeError, AttributeError):  # an operation that a probe does not know: no slider for this field
            continue
        held = {reason: set(map(str, expr.meta.root_names())) for reason, expr in reasons.items()}
        changed = varying(stage, field)
        for expr, sign, ratio in noted:
            roots = set(expr.meta.root_names())
            found += [Comparison(stage, field, r, expr, sign, ratio) for r in changed if roots <= held[r]][:1]
    return found


def varying(stage: StageModel, field: str) -> list[str]:
    """The reasons of ``stage`` that hang on ``field``."""
    values = choices(stage, field)
    now = stage.reasons()
    if values is None:
        given = getattr(stage, field)
        values = [given + 1, given / 2 + 0.125, math.inf]
    others = [stage.model_copy(update={field: v}).reasons() for v in values]
    return [r for r, expr in now.items() if any(r not in o or not o[r].meta.eq(expr) for o in others)]


def choices(stage: StageModel, field: str) -> list[Any] | None:
    """The values of a threshold that is a switch or a choice of words; None for any other."""
    annotation = type(stage).model_fields[field].annotation
    if annotation is bool:
        return [False, True]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return None


def valid(stage: StageModel, field: str, value: Any) -> bool:
    """Whether ``field`` of ``stage`` may have ``value``."""
    info = type(stage).model_fields[field]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def drops_with(stage: StageModel, reasons: list[str] | None = None) -> pl.Expr:
    """True where any of the ``reasons`` of ``stage`` (all by default) holds; null counts as not."""
    held = stage.reasons()
    wanted = [expr.fill_null(False) for reason, expr in held.items() if reasons is None or reason in reasons]
    return pl.any_horizontal(wanted) if wanted else pl.lit(False)


def _compare(left: pl.Expr, sign: str, right: Any) -> pl.Expr:
    found: pl.Expr = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]
    return found


class _Probe(pl.Expr):
    """Stands for a number in an expression and notes what it is compared with.

    ``times`` is what the number was multiplied with: ``a > b * probe`` compares a / b with the number.
    """

    def __init__(self, value: float, noted: list[tuple[pl.Expr, str, bool]], times: pl.Expr | None = None) -> None:
        self.value, self.noted, self.times = value, noted, times

    def _against(self, other: Any, sign: str) -> Any:
        """``other sign self``, noted where ``other`` comes from the ledger."""
        if not isinstance(other, pl.Expr):
            return {"<": other < self.value, "<=": other <= self.value, ">": other > self.value}.get(
                sign, other >= self.value
            )
        self.noted.append((other if self.times is None else other / self.times, sign, self.times is not None))
        return _compare(other, sign, self.value if self.times is None else self.times * self.value)

    def __gt__(self, other: Any) -> Any:
        return self._against(other, "<")

    def __ge__(self, other: Any) -> Any:
        return self._against(other, "<=")

    def __lt__(self, other: Any) -> Any:
        return self._against(other, ">")

    def __le__(self, other: Any) -> Any:
        return self._against(other, ">=")

    def __mul__(self, other: Any) -> Self:
        return type(self)(self.value, self.noted, other)

    __rmul__ = __mul__
