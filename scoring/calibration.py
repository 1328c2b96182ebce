"""A threshold for one scorer on one kind of data: true pairs against shuffled pairs.

Shuffled pairs stand for mismatched ones: the image of one pair under the caption of another that says something
else. With TPR(t) and FPR(t) the shares of true and of shuffled pairs that score ``t`` or more, and ``m`` the share
of mismatched pairs in the data to be filtered,

    precision(t) = (1 - m) TPR(t) / ((1 - m) TPR(t) + m FPR(t))            (Bayes' rule)
    AUC          = P(true > shuffled) + P(true = shuffled) / 2             (Mann-Whitney; Hanley and McNeil 1982)

Where some of the pairs given as true are mismatched themselves, TPR comes out too low (while the scorer is better
than chance) and with it the precision: what is told is then a lower bound. Intervals are percentiles of a bootstrap
(Efron and Tibshirani 1993, chapter 13) over images, since captions of one image are not independent.
Shuffled pairs are random ones, so the figures speak of captions that belong elsewhere and not of those that
are wrong in one word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DECIMALS = 4
"""As scores in the ledger."""
LEVEL = 0.95
LEAST_TRUE = 20
LEAST_RECALL = 0.02
"""A precision that fewer true pairs or a smaller share of them carry is chance: none of 20 allows for 3 of 20."""
FEW = 200
"""Pairs under which the intervals are too wide to choose by; a warning says so."""
HARDLY = 0.7
"""AUC under which two pairs are told apart in fewer than 7 of 10 cases; a warning says so."""


@dataclass(frozen=True)
class Scores:
    """Scores of true pairs (n,) and shuffled pairs (m,), each with the number of its image (from 0, for resampling)."""

    true: F64
    shuffled: F64
    true_image: I64
    shuffled_image: I64


@dataclass(frozen=True)
class Curve:
    """At each value that a score took, in rising order: shares of true and shuffled pairs with that much or more."""

    value: F64
    tpr: F64
    fpr: F64

    def precision(self, mismatched: float) -> F64:
        """(values,) share of matching pairs among those kept; NaN where none is."""
        good, bad = (1 - mismatched) * self.tpr, mismatched * self.fpr
        with np.errstate(invalid="ignore"):
            return np.asarray(good / (good + bad), dtype=np.float64)

    def at(self, threshold: float) -> tuple[float, float]:
        """(TPR, FPR) of keeping what scores ``threshold`` or more."""
        i = int(np.searchsorted(self.value, threshold - 10.0 ** -(DECIMALS + 1)))
        return (float(self.tpr[i]), float(self.fpr[i])) if i < len(self.value) else (0.0, 0.0)


def shuffle(images: I64, captions: I64, rounds: int = 4, seed: int = 0) -> tuple[I64, I64]:
    """Rows (a, b): the image of pair ``a`` under the caption of pair ``b``, ``rounds`` times over.

    ``images`` and ``captions`` (n,) number what is equal. No image comes under a caption that it has in any of the
    pairs. Each round is a permutation, so captions are as frequent as in the data; what cannot be placed
    (a caption that nearly all pairs share) is left out.
    """
    rng = np.random.default_rng(seed)
    n, width = len(images), int(captions.max(initial=0)) + 1
    own = np.unique(images * width + captions)
    found: list[tuple[I64, I64]] = []
    every = np.arange(n)
    for _ in range(rounds if n else 0):
        order = rng.permutation(n)
        for _ in range(100):
            clash = np.isin(images * width + captions[order], own)
            bad = np.flatnonzero(clash)
            if not len(bad):
                break
            free = np.flatnonzero(~clash)
            with_ = np.concatenate([bad, rng.permutation(free)[: len(bad) + 8]])
            order[with_] = order[rng.permutation(with_)]
        good = ~np.isin(images * width + captions[order], own)
        found.append((every[good], order[good]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def score_pairs(
    images: npt.NDArray[np.float32], captions: npt.NDArray[np.float32], image_number: I64, caption_number: I64,
    rounds: int = 4, seed: int = 0,
) -> Scores:  # fmt: skip
    """Scores of the pairs and of their shuffles; ``images`` and ``captions`` (n, d) are unit vectors."""
    a, b = shuffle(image_number, caption_number, rounds, seed)
    true = np.einsum("nd,nd->n", images, captions).astype(np.float64)
    other = np.einsum("nd,nd->n", images[a], captions[b]).astype(np.float64)
    return Scores(np.round(true, DECIMALS), np.round(other, DECIMALS), image_number, image_number[a])


class _Binned:
    """Scores sorted into their distinct values once, so that a resample costs two counts and two sums."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.value, place = np.unique(np.concatenate([scores.true, scores.shuffled]), return_inverse=True)
        self.true, self.other = place[: len(scores.true)], place[len(scores.true) :]

    def counts(self, weights: F64 | None) -> tuple[F64, F64]:
        """(values,) weight of true and of shuffled pairs at each value; ``weights`` (images,), one each by default."""
        given = self.scores
        pairs = None if weights is None else weights[given.true_image]
        others = None if weights is None else weights[given.shuffled_image]
        size = len(self.value)
        return (
            np.bincount(self.true, pairs, size).astype(np.float64),
            np.bincount(self.other, others, size).astype(np.float64),
        )


def _curve(value: F64, true: F64, other: F64) -> Curve:
    """From weights at each value; a side without weight has a rate of 0."""
    t, f = np.cumsum(true[::-1])[::-1], np.cumsum(other[::-1])[::-1]
    return Curve(value, t / max(t[0], 1e-300), f / max(f[0], 1e-300))


def curve(scores: Scores) -> Curve:
    """The ROC; ``ValueError`` where a side is empty."""
    _check(scores)
    binned = _Binned(scores)
    return _curve(binned.value, *binned.counts(None))


def _auc(true: F64, other: F64) -> float:
    above = np.cumsum(true[::-1])[::-1] - true
    return float(((above + true / 2) * other).sum() / (true.sum() * other.sum()))


def auc(scores: Scores) -> float:
    """Chance that a true pair scores higher than a shuffled one, ties by half."""
    _check(scores)
    return _auc(*_Binned(scores).counts(None))


def threshold_for(found: Curve, precision: float, mismatched: float, pairs: int) -> float:
    """The lowest value from which the kept pairs reach ``precision``; infinity where none does.

    Values that keep under ``LEAST_TRUE`` of the ``pairs`` true ones, or under ``LEAST_RECALL``, do not count.
    """
    good = np.flatnonzero(_enough(found, pairs) & (found.precision(mismatched) >= precision))
    return float(found.value[good[0]]) if len(good) else math.inf


def _enough(found: Curve, pairs: int) -> npt.NDArray[np.bool_]:
    return found.tpr >= min(1.0, max(LEAST_RECALL, LEAST_TRUE / pairs)) - 1e-12


def mismatched_share(found: Curve) -> float:
    """About the most that can be mismatched among the pairs given as true.

    They are a mixture, and its part of mismatched pairs scores as shuffled ones do: under any value lie at least
    as many given pairs as mismatched ones, so the share is at most the least ratio of the two shares (Blanchard,
    Lee and Scott 2010). Values under which less than a quarter of the shuffled pairs lie are too noisy to count.
    """
    under_true, under_other = 1 - found.tpr, 1 - found.fpr
    counts = under_other >= 0.25
    return float((under_true[counts] / under_other[counts]).min()) if counts.any() else 1.0


@dataclass(frozen=True)
class Calibration:
    """What ``calibrate`` found; every ``*_interval`` is a (low, high) of ``LEVEL`` by bootstrap.

    ``threshold`` is None where the wanted precision is out of reach, a None in its interval where more than the
    interval's tail of the resamples do not reach it. ``keep`` is the share of the pairs as given that
    score the threshold or more: the equivalent percentile. ``youden`` is where TPR - FPR is largest (Youden 1950).
    ``mismatched_found`` is about the most that can be mismatched among the pairs as given.
    """

    pairs: int
    images: int
    shuffled: int
    wanted: float
    mismatched: float
    auc: float
    auc_interval: tuple[float, float]
    threshold: float | None
    threshold_interval: tuple[float | None, float | None]
    keep: float | None
    false_keep: float | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    best_precision: float
    youden: float
    mismatched_found: float
    warnings: tuple[str, ...]

    @property
    def separates(self) -> bool:
        """Whether the interval of the AUC lies above chance."""
        return self.auc_interval[0] > 0.5

    def describe(self) -> dict[str, Any]:
        """As plain values, rounded to what the sample can carry."""
        told: dict[str, Any] = {k: _rounded(v) for k, v in vars(self).items() if k != "warnings"}
        return {**told, "level": LEVEL, "separates": self.separates, "warnings": list(self.warnings)}


def calibrate(
    scores: Scores, precision: float = 0.95, mismatched: float = 0.5, resamples: int = 1000, seed: int = 0
) -> Calibration:
    """AUC, and the threshold at which a share ``precision`` of the kept pairs match, with their intervals.

    ``mismatched`` is the share of mismatched pairs assumed in the data to be filtered. Raises ``ValueError``
    where a side is empty or a share is not strictly between 0 and 1.
    """
    _check(scores)
    for name, share in (("precision", precision), ("mismatched", mismatched)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: given {share}; expected a share above 0 and below 1")
    n, binned = len(scores.true), _Binned(scores)
    whole = _curve(binned.value, *binned.counts(None))
    chosen = threshold_for(whole, precision, mismatched, n)
    rng = np.random.default_rng(seed)
    images = int(scores.true_image.max()) + 1
    areas, thresholds, precisions = [], [], []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, images, images), minlength=images).astype(np.float64)
        true, other = binned.counts(weights)
        if not (true.sum() and other.sum()):
            continue
        again = _curve(binned.value, true, other)
        areas.append(_auc(true, other))
        thresholds.append(threshold_for(again, precision, mismatched, n))
        if math.isfinite(chosen):
            precisions.append(_precision(*again.at(chosen), mismatched))
    found = math.isfinite(chosen)
    tpr, fpr = whole.at(chosen) if found else (None, None)
    reach = whole.precision(mismatched)[_enough(whole, n)]
    low, high = _interval(thresholds)
    made = Calibration(
        pairs=n,
        images=len(np.unique(scores.true_image)),
        shuffled=len(scores.shuffled),
        wanted=precision,
        mismatched=mismatched,
        auc=_auc(*binned.counts(None)),
        auc_interval=_interval(areas),
        threshold=chosen if found else None,
        threshold_interval=(low if math.isfinite(low) else None, high if math.isfinite(high) else None),
        keep=tpr,
        false_keep=fpr,
        precision=_precision(tpr, fpr, mismatched) if tpr is not None and fpr is not None else None,
        precision_interval=_interval(precisions) if found else None,
        best_precision=float(np.nanmax(reach)),
        youden=float(whole.value[np.argmax(whole.tpr - whole.fpr)]),
        mismatched_found=mismatched_share(whole),
        warnings=(),
    )
    return Calibration(**{**vars(made), "warnings": tuple(_warnings(made))})


def _precision(tpr: float, fpr: float, mismatched: float) -> float:
    kept = (1 - mismatched) * tpr + mismatched * fpr
    return (1 - mismatched) * tpr / kept if kept else math.nan


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Percentile interval; infinite values (a threshold out of reach) keep their place at the end."""
    kept = np.sort([v for v in values if not math.isnan(v)])
    if not len(kept):
        return math.nan, math.nan
    low = int((1 - LEVEL) / 2 * (len(kept) - 1))
    return float(kept[low]), float(kept[len(kept) - 1 - low])


def _warnings(made: Calibration) -> list[str]:
    told = []
    low, high = made.auc_interval
    if not made.separates:
        told.append(
            f"no threshold separates: AUC {made.auc:.3f} ({low:.3f} to {high:.3f}) is no better than chance. This "
            "scorer does not know this data; use another one"
        )
    elif made.auc < HARDLY:
        told.append(f"this scorer hardly separates: AUC {made.auc:.3f}; any threshold loses much or keeps much")
    if made.threshold is None:
        told.append(
            f"a precision of {made.wanted:g} is out of reach; the most that a threshold gives is "
            f"{made.best_precision:.3f}. Ask for less (--precision) or use another scorer"
        )
    elif made.threshold_interval[1] is None:
        told.append("in some resamples the precision is out of reach: the threshold has no upper end; take more pairs")
    if made.keep is not None and made.false_keep == 1.0:
        told.append(
            f"with {made.mismatched:g} of the pairs mismatched a precision of {made.wanted:g} holds without a threshold"
        )
    if made.pairs < FEW:
        told.append(f"only {made.pairs} pairs: the intervals are wide; {FEW} or more are better")
    return told


def _check(scores: Scores) -> None:
    if not len(scores.true):
        raise ValueError("there are no pairs to score")
    if not len(scores.shuffled):
        raise ValueError("no pair can be shuffled: all captions are equal, or all images are")


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DECIMALS)
    return value
