"""A model that never sees the image: if it can tell captions from hard negatives, the negatives give themselves away.

Logistic regression over hashed runs of one to three characters, trained on pairs (a caption, its negative). A test
on which such a model is far from 0.5 is what SugarCrepe calls hackable (Hsieh et al. 2023, arXiv 2306.14610).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BUCKETS = 1 << 16


def grams(text: str) -> list[int]:
    """Hashes of the runs of one, two and three characters in ``text`` with its ends marked."""
    marked = f"^{text}$"
    return [zlib.crc32(marked[i : i + n].encode()) % BUCKETS for n in (1, 2, 3) for i in range(len(marked) - n + 1)]


def preferred(
    train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], epochs: int = 10, seed: int = 0
) -> NDArray[np.float64]:
    """(test,) 1 where a model trained on (caption, negative) pairs prefers the caption, 0 where not, 0.5 at a tie."""
    if not train or not test:
        return np.full(len(test), 0.5)
    torch.manual_seed(seed)
    bag = torch.nn.EmbeddingBag(BUCKETS, 1, mode="sum")
    torch.nn.init.zeros_(bag.weight)
    optimiser = torch.optim.Adam(bag.parameters(), lr=0.02)
    right, wrong = ([grams(pair[i]) for pair in train] for i in (0, 1))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(train), generator=order).split(256):
            rows = chosen.tolist()
            margin = _scores(bag, [right[i] for i in rows]) - _scores(bag, [wrong[i] for i in rows])
            loss = torch.nn.functional.softplus(-margin).mean() + 1e-5 * (bag.weight**2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        margin = _scores(bag, [grams(a) for a, _ in test]) - _scores(bag, [grams(b) for _, b in test])
    won: NDArray[np.float64] = ((margin > 0).double() + 0.5 * (margin == 0).double()).numpy()
    return won


def across_folds(pairs: list[tuple[str, str]], clusters: NDArray[np.int64], folds: int = 5) -> NDArray[np.float64]:
    """The same for each pair, by a model trained on the pairs of other clusters."""
    fold = np.unique(clusters, return_inverse=True)[1] % folds
    won = np.empty(len(pairs))
    for i in range(folds):
        held = np.flatnonzero(fold == i)
        if len(held):
            won[held] = preferred(_some(pairs, fold != i), _some(pairs, fold == i))
    return won


def _some(pairs: list[tuple[str, str]], chosen: NDArray[np.bool_]) -> list[tuple[str, str]]:
    return [pair for pair, keep in zip(pairs, chosen.tolist(), strict=True) if keep]


def _scores(bag: torch.nn.EmbeddingBag, texts: Sequence[Sequence[int]]) -> Tensor:
    lengths = torch.tensor([0, *(len(t) for t in texts[:-1])]).cumsum(0)
    flat = torch.tensor([g for t in texts for g in t])
    out: Tensor = bag(flat, lengths)[:, 0] / torch.tensor([len(t) for t in texts]) ** 0.5
    return out
