"""Edit distance of many caption pairs at once, as far as a small limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .shingles import U32, Folded, gather_ranges


def edit_distance(a: Folded, b: Folded, limit: int = 2) -> npt.NDArray[np.uint8]:
    """(pairs,) Levenshtein distance of caption i of ``a`` and caption i of ``b``, ``limit`` + 1 where it is more.

    The dynamic programme of Ukkonen (1985), kept to the 2 ``limit`` + 1 diagonals that matter; each step
    is one row of all pairs.
    """
    out = np.full(len(a.lengths), limit + 1, dtype=np.uint8)
    todo = np.flatnonzero(np.abs(a.lengths - b.lengths) <= limit)
    if not len(todo):
        return out
    a, b = a.take(todo), b.take(todo)
    width = 2 * limit + 1
    left = _padded(a, 0, np.uint32(0xFFFFFFFE))
    right = _padded(b, limit, np.uint32(0xFFFFFFFF))  # (pairs, limit + longest + limit)
    right = np.pad(right, ((0, 0), (0, max(0, left.shape[1] + width - right.shape[1]))), constant_values=0xFFFFFFFF)
    # costs[:, k] is the distance of the first i characters of a and the first i + k - limit of b.
    steps = np.arange(width) - limit
    far = np.uint8(limit + 1)
    costs = np.broadcast_to(np.where(steps < 0, far, steps), (len(todo), width)).astype(np.uint8)
    end = b.lengths - a.lengths + limit
    found = np.full(len(todo), far, dtype=np.uint8)
    rows = np.arange(len(todo))
    for i in range(1, left.shape[1] + 1):
        same = left[:, i - 1, None] == right[:, i - 1 : i - 1 + width]
        new = costs + ~same
        new[:, :-1] = np.minimum(new[:, :-1], costs[:, 1:] + 1)
        if i <= limit:
            new[:, : limit - i] = far
            new[:, limit - i] = i
        for k in range(1, width):
            new[:, k] = np.minimum(new[:, k], new[:, k - 1] + 1)
        costs = np.minimum(new, far)
        done = a.lengths == i
        found[done] = costs[rows[done], end[done]]
    out[todo] = found
    return out


def _padded(folded: Folded, before: int, filler: np.uint32) -> U32:
    """(captions, before + longest + before) code points, ``filler`` around them."""
    lengths = folded.lengths
    out: U32 = np.full((len(lengths), int(lengths.max()) + 2 * before), filler, dtype=np.uint32)
    starts = np.arange(len(lengths)) * out.shape[1] + before
    out.reshape(-1)[gather_ranges(starts, lengths)] = folded.codes
    return out
