from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from tuwen.scoring.calibration import (
    Scores,
    auc,
    calibrate,
    curve,
    mismatched_share,
    score_pairs,
    shuffle,
    threshold_for,
)
from tuwen.scoring.calibration_picture import svg


def normal(n: int, m: int, apart: float, seed: int = 0) -> Scores:
    """True scores around ``apart`` and shuffled ones around 0, both of deviation 0.1."""
    rng = np.random.default_rng(seed)
    rounded = [np.round(rng.normal(mean, 0.1, size), 4) for mean, size in ((apart, n), (0.0, m))]
    return Scores(rounded[0], rounded[1], np.arange(n), np.arange(m) % n)


def test_no_image_comes_under_a_caption_that_it_has() -> None:
    rng = np.random.default_rng(1)
    images, captions = np.repeat(np.arange(40), 5), rng.integers(0, 60, 200)
    a, b = shuffle(images, captions, rounds=3)
    own = set(zip(images.tolist(), captions.tolist(), strict=True))
    assert not own & set(zip(images[a].tolist(), captions[b].tolist(), strict=True))
    assert len(a) == 600
    assert sorted(b[:200].tolist()) == list(range(200)), "each caption is used once in a round"
    again = shuffle(images, captions, rounds=3)
    assert (again[0] == a).all() and (again[1] == b).all()
    assert not (shuffle(images, captions, rounds=3, seed=1)[1] == b).all()


def test_pairs_that_share_one_caption_cannot_be_shuffled() -> None:
    a, _ = shuffle(np.arange(5), np.zeros(5, np.int64))
    assert not len(a)
    vectors = np.eye(5, dtype=np.float32)
    with pytest.raises(ValueError, match="all captions are equal"):
        auc(score_pairs(vectors, vectors, np.arange(5), np.zeros(5, np.int64)))
    a, b = shuffle(np.arange(6), np.array([0, 0, 0, 0, 0, 1]), rounds=1)
    assert {(i, j) for i, j in zip(a.tolist(), b.tolist(), strict=True)} <= {(i, 5) for i in range(5)} | {
        (5, j) for j in range(5)
    }


def test_auc_is_mann_whitneys_u_with_ties() -> None:
    rng = np.random.default_rng(2)
    true, other = rng.integers(0, 12, 80) / 10, rng.integers(0, 9, 130) / 10
    scores = Scores(true, other, np.arange(80), np.arange(130) % 80)
    assert auc(scores) == pytest.approx(mannwhitneyu(true, other).statistic / (80 * 130), abs=1e-12)


def test_threshold_precision_and_percentile_are_those_of_known_distributions() -> None:
    made = calibrate(normal(20_000, 20_000, 0.3), precision=0.95, mismatched=0.3, resamples=200)
    at = np.linspace(-0.2, 0.6, 80_001)
    tpr, fpr = norm.sf(at, 0.3, 0.1), norm.sf(at, 0, 0.1)
    exact = at[np.argmax(0.7 * tpr / (0.7 * tpr + 0.3 * fpr) >= 0.95)]
    assert made.threshold is not None and made.keep is not None
    assert made.threshold == pytest.approx(exact, abs=0.01)
    low, high = made.threshold_interval
    assert low is not None and high is not None and low <= exact <= high
    assert high - low < 0.03
    assert made.keep == pytest.approx(norm.sf(exact, 0.3, 0.1), abs=0.01)
    assert made.auc == pytest.approx(norm.cdf(0.3 / (0.1 * math.sqrt(2))), abs=0.003)
    assert made.youden == pytest.approx(0.15, abs=0.03)
    assert made.separates and not made.warnings


def test_the_intervals_hold_what_they_say() -> None:
    exact = norm.cdf(0.1 / (0.1 * math.sqrt(2)))
    held = 0
    for seed in range(60):
        low, high = calibrate(normal(150, 600, 0.1, seed), precision=0.7, resamples=150, seed=seed).auc_interval
        held += low <= exact <= high
    assert held >= 51, "a 95 % interval misses 3 of 60 on average, and 9 in one of 500 cases"


def test_pairs_of_one_image_widen_the_interval() -> None:
    single = normal(1000, 1000, 0.1)
    groups = np.arange(1000) // 50
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.1, 20)[groups]
    clustered = Scores(single.true + shift, single.shuffled, groups, groups)
    alone = Scores(single.true + shift, single.shuffled, np.arange(1000), np.arange(1000))
    wide, narrow = (calibrate(s, 0.7, resamples=200).auc_interval for s in (clustered, alone))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_warns_where_nothing_separates_and_where_the_precision_is_out_of_reach() -> None:
    none = calibrate(normal(400, 1600, 0.0), resamples=100)
    assert not none.separates
    assert none.threshold is None and none.threshold_interval == (None, None) and none.keep is None
    assert "no threshold separates" in none.warnings[0]
    assert "out of reach" in none.warnings[1]
    told = none.describe()
    assert told["threshold"] is None and told["separates"] is False and told["warnings"]
    weak = calibrate(normal(400, 1600, 0.05), resamples=100)
    assert weak.separates and "hardly separates" in weak.warnings[0]
    few = calibrate(normal(50, 200, 0.5), resamples=50)
    assert "only 50 pairs" in few.warnings[-1]
    easy = calibrate(normal(400, 1600, 0.5), precision=0.5, mismatched=0.1, resamples=50)
    assert "without a threshold" in easy.warnings[0]


def test_a_lucky_tail_is_no_threshold() -> None:
    scores = normal(1000, 1000, 0.0)
    lucky = Scores(np.concatenate([scores.true, [0.9]]), scores.shuffled, np.arange(1001), np.arange(1000))
    assert threshold_for(curve(lucky), 0.95, 0.5, 1001) == math.inf


def test_the_mismatched_among_the_given_pairs_are_bounded() -> None:
    clean, dirty = normal(4000, 4000, 0.6), normal(4000, 4000, 0.0, seed=5)
    mixed = Scores(
        np.concatenate([clean.true[:3000], dirty.true[:1000]]), clean.shuffled, clean.true_image, clean.true_image
    )
    assert mismatched_share(curve(mixed)) == pytest.approx(0.25, abs=0.03)
    assert mismatched_share(curve(clean)) < 0.01


@pytest.mark.parametrize(("precision", "mismatched"), [(1.0, 0.5), (0.0, 0.5), (0.9, 0.0), (0.9, 1.5)])
def test_shares_out_of_range_are_refused(precision: float, mismatched: float) -> None:
    with pytest.raises(ValueError, match="share above 0 and below 1"):
        calibrate(normal(30, 30, 0.1), precision, mismatched)


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_the_picture_is_well_formed_and_shows_what_was_found(apart: float) -> None:
    scores = normal(300, 900, apart)
    made = calibrate(scores, resamples=50)
    root = ElementTree.fromstring(svg(scores, curve(scores), made, "照片 <& 分数"))
    words = " ".join(root.itertext())
    assert "照片 <& 分数" in words and f"AUC {made.auc:.3f}" in words
    assert ("threshold" in words) == (made.threshold is not None)
