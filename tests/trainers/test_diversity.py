from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from tuwen.trainers import diversity


def series(*captions: str) -> pl.Series:
    return pl.Series("caption", captions)


def test_distinct_counts_grams_within_captions_only() -> None:
    # 红车, 红车: four characters of which two differ; two pairs of which one differs.
    assert diversity.distinct(series("红车", "红车"), 1) == 0.5
    assert diversity.distinct(series("红车", "红车"), 2) == 0.5
    # No pair spans two captions: 车红 would be a third.
    assert diversity.distinct(series("红车", "红猫", "红车"), 2) == pytest.approx(2 / 3)


def test_distinct_folds_width_and_script() -> None:
    assert diversity.distinct(series("紅車ＡＢ", "红车ab"), 1) == 0.5


def test_entropy_of_captions_is_that_of_whole_captions() -> None:
    assert diversity.entropy(series("猫", "狗", "鸟", "鱼")) == pytest.approx(2)
    assert diversity.entropy(series("猫", "猫", "猫", "猫")) == 0
    assert diversity.entropy(series("猫", "猫", "狗", "鸟")) == pytest.approx(1.5)


def test_effective_size_is_the_number_of_equal_clusters_that_would_do_the_same() -> None:
    assert diversity.effective_size(np.array([1, 2, 3, 4])) == 4
    assert diversity.effective_size(np.array([1, 1, 2, 2])) == 2
    assert diversity.effective_size(np.array([5] * 9)) == 1
    assert diversity.effective_size(np.array([1, 1, 1, 2])) == pytest.approx(16 / 10)
    assert diversity.duplicate_share(np.array([1, 1, 2, 3])) == 0.25


def test_vendi_is_the_number_of_different_rows() -> None:
    axes = np.eye(6)
    assert diversity.vendi(axes) == pytest.approx(6)
    assert diversity.vendi(axes[[0] * 10]) == pytest.approx(1)
    assert diversity.vendi(axes[[0, 1] * 20]) == pytest.approx(2)  # more rows than dimensions
    # Three of one and one of another: the exponential of the entropy of (3/4, 1/4).
    mixed = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert diversity.vendi(axes[[0, 0, 0, 1]]) == pytest.approx(mixed)


def test_vendi_is_the_same_from_either_gram_matrix() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 7))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    padded = np.hstack([rows, np.zeros((7, 5))])  # n < d takes the other branch
    assert diversity.vendi(padded) == pytest.approx(diversity.vendi(rows))


def test_vectors_are_read_as_the_ledger_holds_them() -> None:
    given = np.array([[0.6, 0.8], [1.0, 0.0]], "<f2")
    column = pl.Series([given[0].tobytes(), None, given[1].tobytes()], dtype=pl.Binary)
    assert np.allclose(diversity.vectors(column), given, atol=1e-3)


def test_concepts_need_several_captions() -> None:
    captions = series(*["草地上的汽车"] * 5, *["沙滩上的汽车"] * 2)
    assert {"草地", "汽车"} <= diversity.concepts(captions)
    assert "沙滩" not in diversity.concepts(captions)


def test_describe_compares_on_samples_of_one_size() -> None:
    rows = pl.DataFrame({"key": [f"{i}" for i in range(30)]})
    told = diversity.describe(rows, ["一只猫"] * 10 + [f"第{i}只狗" for i in range(20)], np.arange(30) // 2)
    assert told["pairs"] == told["sample"] == 30
    assert told["duplicate_share"] == 0.5
    assert told["effective_pairs"] == 15
    assert told["shared_captions"] == pytest.approx(0.3)


def test_a_histogram_of_nothing_is_empty() -> None:
    assert diversity.histogram(pl.Series([None, None], dtype=pl.Float32)) == {"edges": [], "counts": []}
    assert sum(diversity.histogram(pl.Series([0.1, 0.2, None]))["counts"]) == 2
