"""Near-identical images by their 64-bit hash alone.

The hash is cut into ``bits + 2`` blocks. Two hashes at most ``bits`` bits apart agree in at least two
of them, so one table per two blocks, sorted by those blocks, brings every such pair into one bucket
(multi-index hashing; Norouzi, Punjani and Fleet 2012). Within a bucket each hash is joined to the
next few; a bucket is ordered by the whole hash, so that in a crowded one the nearest
stand together.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from .candidates import Pairs, window_pairs
from .shingles import U64

WINDOW = 16


def block_masks(bits: int) -> list[np.uint64]:
    """One mask per table: two of ``bits`` + 2 blocks. Hashes within ``bits`` agree under one of them at least."""
    edges = np.linspace(0, 64, bits + 3).astype(int).tolist()
    blocks = [np.uint64(((1 << (high - low)) - 1) << low) for low, high in pairwise(edges)]
    return [one | other for one, other in combinations(blocks, 2)]


def image_pairs(image: U64, bits: int, masks: list[np.uint64] | None = None, window: int = WINDOW) -> Pairs:
    """Row numbers (a, b) whose hashes differ in at most ``bits`` bits, as the tables of ``masks`` (all) show them.

    Rows of one hash are joined to the first of them, which alone enters the tables.
    """
    distinct, first, at = np.unique(image, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[at] != np.arange(len(image)))
    left, right = [first[at[again]]], [again]
    allowed = np.full(len(distinct), bits, dtype=np.uint32)
    for mask in block_masks(bits) if masks is None else masks:
        bucket = distinct & mask
        order = np.argsort(bucket, kind="stable")  # within a bucket the hashes ascend already
        a, b = window_pairs(order, bucket, distinct, allowed, window)
        left.append(first[a])
        right.append(first[b])
    a, b = np.concatenate(left), np.concatenate(right)
    return np.minimum(a, b), np.maximum(a, b)
