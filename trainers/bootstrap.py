"""How sure a figure is: percentile bootstrap over clusters, and t intervals over seeds.

Queries that share an image or a caption are not independent, so whole clusters are drawn (Efron and Tibshirani 1993,
chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
REPLICATES = 1000
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 0.975 for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and how many things it is a figure of."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": _short(self.value), "low": _short(self.low), "high": _short(self.high), "n": self.n}


def _short(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def draws(clusters: int, replicates: int = REPLICATES, seed: int = 0) -> NDArray[np.float32]:
    """(replicates, clusters): how often each cluster is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), replicates).astype(np.float32)


def mean(values: F64, clusters: I64 | None = None, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """The mean of ``values`` (n,); ``clusters`` (n,) are numbers of what they belong to, each its own without."""
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    numbers = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers).astype(np.float64)
    drawn = draws(len(sums), replicates, seed)
    return _estimate(float(values.mean()), (drawn @ sums) / (drawn @ sizes), len(values))


def median(values: F64, clusters: I64 | None = None, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """The median, likewise."""
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    numbers = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    order = np.argsort(values, kind="stable")
    drawn = draws(int(numbers.max()) + 1, replicates, seed)
    found = np.empty(replicates)
    for i, times in enumerate(drawn):
        reached = np.cumsum(times[numbers[order]])
        found[i] = values[order[np.searchsorted(reached, reached[-1] / 2)]]
    return _estimate(float(np.median(values)), found, len(values))


def pairwise(kernel: F64, seed: int = 0, replicates: int = REPLICATES) -> F64:
    """(replicates,) means of ``kernel`` (n, n) where rows and columns are drawn together."""
    drawn = draws(len(kernel), replicates, seed).astype(np.float64)
    drawn /= len(kernel)
    found: F64 = np.einsum("rn,rn->r", drawn @ kernel, drawn)
    return found


def _estimate(value: float, replicates: F64, n: int) -> Estimate:
    low, high = np.percentile(replicates, (2.5, 97.5))
    return Estimate(value, float(low), float(high), n)


def of_replicates(value: float, replicates: F64, n: int) -> Estimate:
    """``value`` with the percentile interval of its ``replicates``."""
    return _estimate(value, replicates, n)


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean over seeds with Student's t interval; of differences between paired runs, give the differences."""
    n = len(values)
    centre = float(np.mean(values))
    if n < 2:
        return Estimate(centre, float("-inf"), float("inf"), n)
    half = (_T[n - 2] if n - 2 < len(_T) else 1.96) * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(centre, centre - half, centre + half, n)


def components(left: I64, right: I64) -> tuple[I64, I64]:
    """Clusters of a graph with edges between left and right nodes: the number of each left and each right node."""
    lefts, rights = int(left.max()) + 1, int(right.max()) + 1
    own = np.arange(lefts)
    while True:
        of_right = np.full(rights, lefts)
        np.minimum.at(of_right, right, own[left])
        new = own.copy()
        np.minimum.at(new, left, of_right[right])
        if np.array_equal(new, own):
            return own, of_right
        own = new
