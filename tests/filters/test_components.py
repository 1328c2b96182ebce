from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tuwen.filters.cautious import cautious_components
from tuwen.filters.components import components
from tuwen.filters.contrast import MEMBERS, telling
from tuwen.filters.shingles import fold_column

N = 20_000
RNG = np.random.default_rng(2)
ORDER = RNG.permutation(N)
GRAPHS = {
    "sparse": RNG.integers(0, N, (2, N // 3)),
    "critical": RNG.integers(0, N, (2, N // 2)),
    "dense": RNG.integers(0, N, (2, 2 * N)),
    "chain": np.stack([np.arange(N - 1), np.arange(1, N)]),
    "shuffled chain": np.stack([ORDER[:-1], ORDER[1:]]),
    "star": np.stack([np.full(N, 77), np.arange(N)]),
    "star of the last": np.stack([np.full(N, N - 1), ORDER]),
    "binary tree": np.stack([ORDER[1:], ORDER[(np.arange(1, N) - 1) // 2]]),
    "loops": np.stack([np.arange(50), np.arange(50)]),
    "none": np.empty((2, 0), dtype=np.int64),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_equals_scipy(name: str) -> None:
    a, b = GRAPHS[name]
    ours = components(N, a, b)
    _, theirs = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (N, N)), directed=False)
    first = np.full(N, N)
    np.minimum.at(first, theirs, np.arange(N))
    assert np.array_equal(ours, first[theirs])
    # Converged: no edge joins two labels, and each label is its own smallest node.
    assert (ours[a] == ours[b]).all()
    assert (ours[ours] == ours).all()


def cautious(captions: list[str], edges: list[tuple[int, int]]) -> list[int]:
    a, b = np.array(edges).T
    words = telling(fold_column(pl.Series(captions)))
    return [int(label) for label in cautious_components(len(captions), a, b, words)]


def test_a_garbled_caption_bridges_nothing() -> None:
    captions = ["一个男人在攀岩", "个男人在攀岩", "两个男人在攀岩", "两个男人在攀岩。"]
    assert cautious(captions, [(0, 1), (1, 2), (2, 3)]) == [0, 0, 2, 2]
    # Whatever the order of the edges; and a bridge of several garbled ones holds no better.
    assert cautious(captions, [(2, 3), (1, 2), (0, 1)]) == [0, 0, 2, 2]
    captions = ["一个男人", "个男人", "某个男人", "两个男人"]
    assert cautious(captions, [(0, 1), (1, 2), (2, 3)]) == [0, 0, 0, 3]


def test_without_contrast_it_is_plain_components() -> None:
    a, b = RNG.integers(0, 200, (2, 120))
    words = np.zeros((200, MEMBERS), dtype=np.int16)
    words[::3, 2] = 1
    assert np.array_equal(cautious_components(200, a, b, words), components(200, a, b))
