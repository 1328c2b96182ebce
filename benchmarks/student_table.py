"""Scores by seed and scene, their intervals, and the lines that hold them against a goal (``student``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Score = NDArray[np.float64]
"""(scenes,) share of the two questions about a scene that were answered rightly at first rank."""


def bootstrap(values: Callable[[NDArray[np.int64], NDArray[np.int64]], float], seeds: int, scenes: int) -> str:
    """A value and its 95 % interval over resampled seeds and scenes."""
    rng = np.random.default_rng(0)
    drawn = [values(rng.integers(0, seeds, seeds), rng.integers(0, scenes, scenes)) for _ in range(2000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values(np.arange(seeds), np.arange(scenes)):6.1f}  [{low:6.1f}, {high:6.1f}]"


class Table:
    """Scores by name, (seeds, scenes), and what is said of them."""

    def __init__(self, seeds: int, scenes: int) -> None:
        self.rows: dict[str, Score] = {}
        self.shape = (seeds, scenes)
        self.missed: list[str] = []

    def put(self, name: str, scores: list[Score]) -> None:
        """One model's scores, seed by seed."""
        self.rows[name] = np.broadcast_to(np.stack(scores), self.shape)
        print(f"{name:44} {self.interval(lambda s, q: 100 * self.mean(name, s, q))}", flush=True)

    def interval(self, values: Callable[[NDArray[np.int64], NDArray[np.int64]], float]) -> str:
        return bootstrap(values, *self.shape)

    def mean(self, name: str, seeds: Any = slice(None), scenes: Any = slice(None)) -> float:
        return float(self.rows[name][seeds][:, scenes].mean())

    def gap(self, scratch: str) -> bool:
        """Whether there is a gap of 5 points between ``scratch`` and the teacher."""
        return self.mean("teacher") - self.mean(scratch) >= 0.05

    def closed(self, name: str, scratch: str, goal: float) -> None:
        """The share of the gap from scratch to teacher that a student closes."""

        def share(s: Any, q: Any) -> float:
            base = self.mean(scratch, s, q)
            return 100 * (self.mean(name, s, q) - base) / max(1e-9, self.mean("teacher", s, q) - base)

        self.verdict(f"{name}: gap closed, %", share, lambda v: v >= goal, f">= {goal:.0f}", self.gap(scratch))

    def behind(self, name: str, other: str, goal: float, valid: bool) -> None:
        """By how many points ``name`` is behind ``other``."""

        def points(s: Any, q: Any) -> float:
            return 100 * (self.mean(other, s, q) - self.mean(name, s, q))

        self.verdict(f"{name}: points behind {other}", points, lambda v: v <= goal, f"<= {goal:.0f}", valid)

    def verdict(self, name: str, values: Any, holds: Callable[[float], bool], goal: str, valid: bool) -> None:
        """One line with its goal."""
        met = holds(values(slice(None), slice(None)))
        word = "INVALID" if not valid else "PASS" if met else "MISS"
        if word != "PASS":
            self.missed.append(name)
        print(f"{name:64} {self.interval(values)}  goal {goal:6} {word}", flush=True)
