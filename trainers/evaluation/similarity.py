"""Ranks, AUC against shuffled pairs, alignment and uniformity of an evaluation set, with intervals."""

from __future__ import annotations

import numpy as np

from .. import bootstrap
from ..bootstrap import F64, I64, Estimate
from .pairs import F32, KERNEL, Pairs


def ranks(queries: F32, keys: F32, right: I64) -> I64:
    """(n,) the place, from 1, of the best right key of each query; what scores the same as it comes before it.

    ``right`` (p, 2) are the pairs (query, key) that belong together. Where a query has several right keys the others
    do not stand in its way.
    """
    order = np.argsort(right[:, 0], kind="stable")
    pairs = right[order]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(queries) + 1))
    found = np.empty(len(queries), np.int64)
    for begin in range(0, len(queries), 512):
        cosine = queries[begin : begin + 512] @ keys.T
        for row, scores in enumerate(cosine):
            own = pairs[starts[begin + row] : starts[begin + row + 1], 1]
            best = scores[own].max()
            found[begin + row] = 1 + int((scores >= best).sum()) - int((scores[own] >= best).sum())
    return found


def retrieval(queries: F32, keys: F32, right: I64, clusters: I64) -> dict[str, Estimate]:
    """R@1, R@5, R@10 and the median rank."""
    found = ranks(queries, keys, right)
    told = {f"R@{k}": bootstrap.mean((found <= k).astype(np.float64), clusters) for k in (1, 5, 10)}
    return {**told, "median rank": bootstrap.median(found.astype(np.float64), clusters)}


def auc(pairs: Pairs, seed: int = 0) -> Estimate:
    """How often a true pair scores above a shuffled one (ties count half), over at most ``KERNEL`` of each."""
    rng = np.random.default_rng(seed)
    chosen = pairs.right[rng.permutation(len(pairs.right))[:KERNEL]]
    held = set(map(tuple, pairs.right.tolist()))
    other = rng.integers(len(pairs.captions), size=len(chosen))
    apart = np.array([(int(i), int(c)) not in held for i, c in zip(chosen[:, 0], other, strict=True)])
    true = _cosine(pairs, chosen[apart])
    wrong = np.einsum("nd,nd->n", pairs.images[chosen[apart, 0]], pairs.texts[other[apart]])
    kernel = (true[:, None] > wrong[None, :]) + 0.5 * (true[:, None] == wrong[None, :])
    return bootstrap.of_replicates(float(kernel.mean()), bootstrap.pairwise(kernel.astype(np.float64)), len(true))


def alignment(pairs: Pairs) -> Estimate:
    """Mean squared distance of true pairs (Wang and Isola 2020, arXiv 2005.10242); less is closer."""
    return bootstrap.mean(2 - 2 * _cosine(pairs, pairs.right), pairs.clusters[0][pairs.right[:, 0]])


def uniformity(rows: F32, seed: int = 0) -> Estimate:
    """``log mean exp(-2 |u - v|^2)`` over different rows (the same paper, t = 2); less is more evenly spread."""
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:KERNEL]].astype(np.float64)
    kernel = np.exp(-4 + 4 * (some @ some.T))
    np.fill_diagonal(kernel, 0)
    n = len(some)
    drawn = bootstrap.draws(n).astype(np.float64)
    different = 1 - (drawn**2).sum(1) / n**2  # a row drawn twice is no pair with itself
    value = float(np.log(kernel.sum() / (n * (n - 1))))
    return bootstrap.of_replicates(value, np.log(bootstrap.pairwise(kernel) / different), n)


def _cosine(pairs: Pairs, chosen: I64) -> F64:
    found: F64 = np.einsum("nd,nd->n", pairs.images[chosen[:, 0]], pairs.texts[chosen[:, 1]]).astype(np.float64)
    return found
