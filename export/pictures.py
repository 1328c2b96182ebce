"""Two measures against one another: how many pairs lie in each cell, and how many of them the run kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import polars as pl

from ..pipeline.comparisons import Comparison
from .sliders import Control
from .words import field_words

CELLS = 20
"""Cells along each side of a picture."""
MOST = 14
"""Measures that are shown against one another, which gives 91 pictures of at most 400 cells."""


def pictures(rows: pl.DataFrame, controls: Sequence[Control]) -> dict[str, Any]:
    """``axes`` (title, columns, unit, ends, threshold) and ``cells`` per "i,j": [x, y, pairs, kept] flattened.

    ``rows`` come from ``sliders.narrow``. A measure that has one value only makes no axis. The outermost cells hold
    what lies beyond the middle 99 in 100.
    """
    axes: list[dict[str, Any]] = []
    columns = []
    for control in _distinct(controls):
        value = control.value.cast(pl.Float64)
        low, high = rows.select(a=value.quantile(0.005), b=value.quantile(0.995)).row(0)
        if low is None or not high > low:
            continue
        at = ((value - low) / (high - low) * CELLS).floor().clip(0, CELLS - 1).cast(pl.UInt8)
        columns.append(at.alias(str(len(axes))))
        axes.append(
            {
                "name": f"{control.stage.name}.{control.field}",
                "title": field_words(control.stage, control.field),
                "columns": control.columns,
                "unit": control.unit,
                "low": round(low, 4),
                "high": round(high, 4),
                "threshold": control.given,
            }
        )
        if len(axes) == MOST:
            break
    binned = rows.select(*columns, kept=pl.col("status") == "kept")
    cells = {f"{i},{j}": _cells(binned, str(i), str(j)) for i, j in combinations(range(len(axes)), 2)}
    return {"axes": axes, "cells": cells, "size": CELLS}


def _distinct(controls: Sequence[Control]) -> list[Comparison]:
    """One comparison per measured value, the score first: it is what people look for."""
    held: dict[str, Comparison] = {}
    for comparison in (c for control in controls for c in control.compared):
        held.setdefault(str(comparison.value), comparison)
    return sorted(held.values(), key=lambda c: "score" not in c.columns)


def _cells(binned: pl.DataFrame, x: str, y: str) -> list[int]:
    counted = binned.group_by(x, y).agg(n=pl.len(), kept=pl.col("kept").sum()).drop_nulls([x, y]).sort(x, y)
    return [int(n) for row in counted.select(x, y, "n", "kept").rows() for n in row]
