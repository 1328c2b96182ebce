from __future__ import annotations

import numpy as np
import pytest

from tuwen.filters.candidates import all_pairs, allowed_bits
from tuwen.filters.near_images import image_pairs

RNG = np.random.default_rng(4)


def flipped(image: np.ndarray, bits: int) -> np.ndarray:
    """``image`` with ``bits`` bits (or fewer, where one is drawn twice) changed in each."""
    for _ in range(bits):
        image = image ^ (np.uint64(1) << RNG.integers(0, 64, len(image), dtype=np.uint64))
    return image


def test_small_buckets_are_compared_in_full() -> None:
    """With few rows per signature value the tables find exactly what comparing all pairs finds."""
    rows = 400
    values = RNG.integers(0, 100, (3, rows), dtype=np.uint32)
    image = RNG.integers(0, 2**64, rows, dtype=np.uint64)
    image[200:] = flipped(image[:200], 9)
    a, b = all_pairs(values, len(values), image, np.full(rows, 12, np.uint32), window=rows)
    i, j = np.triu_indices(rows, 1)
    near = (np.bitwise_count(image[i] ^ image[j]) <= 12) & (values[:, i] == values[:, j]).any(axis=0)
    assert near.sum() > 3
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == list(zip(i[near].tolist(), j[near].tolist(), strict=True))


@pytest.mark.parametrize(("bits", "found"), [(0, 1.0), (2, 0.99), (4, 0.85)])
def test_one_value_for_all_rows_still_finds_near_images(bits: int, found: float) -> None:
    rows = 20_000
    image = RNG.integers(0, 2**64, rows, dtype=np.uint64)
    image[rows // 2 :] = flipped(image[: rows // 2], bits)
    values = np.zeros((16, rows), dtype=np.uint32)
    a, b = all_pairs(values, len(values), image, np.full(rows, 6, np.uint32))
    assert (b - a == rows // 2).all()
    assert len(a) >= found * rows // 2


def test_the_bits_of_both_rows_count() -> None:
    image = np.array([0b111, 0], dtype=np.uint64)
    values = np.zeros((1, 2), dtype=np.uint32)
    assert len(all_pairs(values, len(values), image, np.array([3, 3], np.uint32))[0]) == 1
    assert len(all_pairs(values, len(values), image, np.array([3, 2], np.uint32))[0]) == 0


def test_fewer_bits_where_more_pairs_share_the_caption() -> None:
    shared = np.array([1, 15, 16, 255, 256, 10**6, 10**9])
    assert allowed_bits(shared, 14).tolist() == [14, 14, 12, 12, 10, 6, 2]
    assert allowed_bits(shared, 1).tolist() == [1] * 7


@pytest.mark.parametrize("bits", [0, 1, 4, 8])
def test_images_within_the_bits_are_all_joined(bits: int) -> None:
    image = RNG.integers(0, 2**64, 3000, dtype=np.uint64)
    image[1000:2000] = flipped(image[:1000], bits)
    image[2000:2500] = image[:500]
    a, b = image_pairs(image, bits)
    joined = set(zip(a.tolist(), b.tolist(), strict=True))
    assert all((i, i + 2000) in joined for i in range(500))
    assert all((i, i + 1000) in joined for i in range(1000))
    assert (np.bitwise_count(image[a] ^ image[b]) <= bits).all()


def test_no_rows() -> None:
    nothing = np.empty(0, dtype=np.uint64)
    assert all_pairs(np.empty((16, 0), np.uint32), 16, nothing, np.empty(0, np.uint32))[0].tolist() == []
    assert image_pairs(nothing, 4)[0].tolist() == []
