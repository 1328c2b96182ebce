"""Connected components of a graph given by its edges, in whole-array steps.

Hooking and pointer jumping (Shiloach and Vishkin 1982): every root hooks to the smallest label that
an edge shows it, then all paths are shortened to their roots. The loop ends only when no edge joins
two labels, which *is* the definition of the result; in each round every component that is still in
pieces loses at least one root (the larger end of any open edge hooks), so it does end.
"""

from __future__ import annotations

import numpy as np

from .shingles import I64


def components(nodes: int, a: I64, b: I64) -> I64:
    """(nodes,) the smallest node number of each node's component; ``a[i]`` and ``b[i]`` are joined."""
    label = np.arange(nodes, dtype=np.int64)
    a, b = np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)
    while len(a):
        low, high = np.minimum(a, b), np.maximum(a, b)
        # Labels are roots here, and a root only ever points to a smaller one: no cycle can form.
        np.minimum.at(label, high, low)
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter
        a, b = label[a], label[b]
        open_ = a != b
        a, b = a[open_], b[open_]
    return label
