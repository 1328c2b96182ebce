"""Whether a difference between two arms is more than chance: paired over seeds and questions.

Two things make a difference vary: the seed (weights, order, which pairs a random draw takes) and which questions
happen to be asked. Its *spread* is both together for a single pair of trainings; a difference counts as proven from
twice that on. The interval is of the mean over the seeds, with Student's t for their small number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """``mean`` of a - b, its ``spread`` (standard deviation), and an interval of 95 %; all as shares, not points."""

    mean: float
    spread: float
    low: float
    high: float

    @property
    def proven(self) -> bool:
        """Whether the difference is at least twice its spread."""
        return bool(abs(self.mean) >= 2 * self.spread and self.mean != 0)

    def describe(self) -> dict[str, Any]:
        """As plain values, rounded, with the word for it."""
        told: dict[str, Any] = {k: round(v, 5) if np.isfinite(v) else None for k, v in asdict(self).items()}
        return {**told, "verdict": ("gain" if self.mean > 0 else "loss") if self.proven else "unproven"}


def difference(a: Sequence[NDArray[np.int32]], b: Sequence[NDArray[np.int32]], k: int = 1) -> Difference:
    """How much more of the questions ``a`` answers within ``k`` than ``b``: ranks (questions,), one array a seed.

    Entry i of both was trained with the same seed and asked the same questions. A question is asked twice, by its
    caption and by its image, so questions are resampled by pair: entries q and q + n are one.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} trainings cannot be paired; expected as many of both, at least one")
    gains = np.stack([(x < k).astype(float) - (y < k) for x, y in zip(a, b, strict=True)])  # (seeds, 2n)
    gains = gains.reshape(len(gains), 2, -1).mean(1)  # (seeds, n)
    means = gains.mean(1)
    asked = gains.mean(0)
    by_seed = float(means.var(ddof=1)) if len(means) > 1 else float("nan")
    by_question = float(asked.var(ddof=1)) / len(asked) if len(asked) > 1 else float("nan")
    mean = float(means.mean())
    half = student(len(means) - 1) * np.sqrt(by_seed / len(means) + by_question)
    return Difference(mean, float(np.sqrt(by_seed + by_question)), float(mean - half), float(mean + half))


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""The 97.5 % quantile of Student's t for 1 to 10 degrees of freedom, from the tables."""


def student(freedom: int) -> float:
    """The 97.5 % quantile for any number of degrees: infinite for 0, within 0.2 % beyond the table (Cornish-Fisher)."""
    if freedom < 1:
        return float("inf")
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96 + 2.372 / freedom + 2.823 / freedom**2


def pairs_to_match(sizes: Sequence[int], recalls: Sequence[float], wanted: float) -> float | None:
    """How many pairs reach ``wanted``, between the measured sizes on a logarithmic scale; None where none do.

    The smallest size where the curve is at ``wanted`` or above; a curve that begins there needs at most its first.
    """
    points = sorted(zip(sizes, recalls, strict=True))
    for i, (size, recall) in enumerate(points):
        if recall >= wanted:
            if i == 0:
                return float(size)
            before, lower = points[i - 1]
            part = (wanted - lower) / (recall - lower)
            return float(np.exp(np.log(before) + part * (np.log(size) - np.log(before))))
    return None
