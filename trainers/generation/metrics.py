"""Figures of generated images against real ones, each with a 95 % interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import bootstrap
from ..bootstrap import Estimate
from ..diversity import vendi

F64 = NDArray[np.float64]
REPLICATES = 100


def frechet(a: F64, b: F64) -> float:
    """The squared Fréchet distance of two Gaussians fitted to rows (n, d) (Heusel et al. 2017, arXiv 1706.08500).

    |μ_a − μ_b|² + tr(A + B − 2 (A B)^½); the last trace is the sum of the square roots of A B's eigenvalues.
    """
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * inner)


def frechet_estimate(made: F64, real: F64, seed: int = 0) -> Estimate:
    """The distance with a bootstrap over both sets.

    A resampled set repeats rows, which raises the distance, so the replicates are moved down by their mean excess.
    """
    value = frechet(made, real)
    rng = np.random.default_rng(seed)
    drawn = np.array([
        frechet(made[rng.integers(len(made), size=len(made))], real[rng.integers(len(real), size=len(real))])
        for _ in range(REPLICATES)
    ])  # fmt: skip
    return bootstrap.of_replicates(value, np.maximum(0.0, drawn - drawn.mean() + value), len(made))


def diversity(rows: F64, most: int = 512) -> Estimate:
    """The Vendi score (effective number of different images) of at most ``most`` feature rows; its share of n."""
    unit = rows[:most] / np.linalg.norm(rows[:most], axis=1, keepdims=True).clip(1e-9)
    value = vendi(unit)
    rng = np.random.default_rng(0)
    halves = np.array([vendi(unit[rng.permutation(len(unit))[: len(unit) // 2]]) for _ in range(20)])
    return bootstrap.of_replicates(value, halves - halves.mean() + value, len(unit))


def contrastive(images: F64, texts: F64) -> Estimate:
    """The mean cosine of each image with its prompt, in a scorer's space (unit rows)."""
    return bootstrap.mean((images * texts).sum(1))
