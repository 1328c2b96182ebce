"""Components that a garbled caption cannot bridge.

"个男人在攀岩" is one character away from "一个男人在攀岩" and from "两个男人在攀岩", which contrast. Plain
components would drop one of the two for the sake of the garbled third. So edges between rows with the
same telling words are joined first, and each other edge only where no two members of the joined
component contrast. With contrast left out this is plain connected components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .components import components
from .contrast import contrasts
from .shingles import I64

Telling = npt.NDArray[np.int16]


def cautious_components(nodes: int, a: I64, b: I64, words: Telling) -> I64:
    """(nodes,) smallest node number of each node's component; ``words`` (nodes, members) are from ``telling``.

    The doubtful edges are taken in ascending order, so the result depends on the nodes' order alone.
    """
    same = (words[a] == words[b]).all(axis=1)
    label = components(nodes, a[same], b[same])
    doubtful = np.unique(np.sort(np.stack([label[a[~same]], label[b[~same]]], axis=1), axis=1), axis=0)
    parent: dict[int, int] = {}
    members: dict[int, Telling] = {}

    def root(node: int) -> int:
        while parent.get(node, node) != node:
            node = parent[node]
        return node

    # A component joined by sure edges has one vector of telling words, its first node's.
    for one, other in doubtful.tolist():
        low, high = sorted((root(one), root(other)))
        if low == high:
            continue
        ours, theirs = (members.get(r, words[r : r + 1]) for r in (low, high))
        if not _any_contrast(ours, theirs):
            parent[high] = low
            members[low] = np.unique(np.concatenate([ours, theirs]), axis=0)
    if parent:
        moved = np.array(sorted(parent))
        label_of = np.arange(nodes)
        label_of[moved] = [root(int(node)) for node in moved]
        label = label_of[label]
    return label


def _any_contrast(ours: Telling, theirs: Telling) -> bool:
    one = np.repeat(ours, len(theirs), axis=0)
    return bool(contrasts(one, np.tile(theirs, (len(ours), 1))).any())
