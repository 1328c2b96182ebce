"""Whether two captions say the same in nearly the same characters.

They do where their folded texts are equal, where one or two characters were changed, where the Jaccard
similarity of their character bigrams reaches a threshold, or where one is the other with something put
before or after it (a repost's suffix); and never where they contrast (see ``contrast``). The texts
themselves are compared: MinHash values only say which pairs are worth it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .contrast import contrasts, telling
from .edits import edit_distance
from .shingles import I64, U32, U64, VERY_SHORT, Folded, gather_ranges

WITH_SUFFIX, WITH_PREFIX = 4, 6
"""Characters from which a caption with something after or before it is a repost; what stands before is more
often a change of meaning ("洞里的人", "睡在洞里的人")."""

ONE_EDIT, TWO_EDITS = 5, 10
"""Characters of the shorter caption from which one and two changed characters are a misprint."""

MAX_EDITED = 128
"""Characters; in longer captions two changes leave the bigrams alike enough."""

CHUNK_PAIRS = 1 << 12
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CaptionRule:
    """What near-identical means: ``jaccard`` of bigrams, ``affix``, the share that a caption must make of
    a longer one that begins or ends with it, ``edits`` to allow at most, and whether contrast counts."""

    jaccard: float = 0.7
    affix: float = 0.4
    edits: int = 2
    contrast: bool = True

    def near(self, folded: Folded, a: I64, b: I64, text: U64 | None = None) -> Flags:
        """(pairs,) for row numbers ``a`` and ``b`` of ``folded``; ``text`` are its hashes where known."""
        text = folded.text_hash() if text is None else text
        out: Flags = text[a] == text[b]
        todo = np.flatnonzero(~out & (np.minimum(folded.lengths[a], folded.lengths[b]) >= VERY_SHORT))
        for first in range(0, len(todo), CHUNK_PAIRS):
            some = todo[first : first + CHUNK_PAIRS]
            out[some] = self._near(folded.take(a[some]), folded.take(b[some]))
        return out

    def _near(self, a: Folded, b: Folded) -> Flags:
        near = (jaccard(a, b) >= self.jaccard) | self._affixed(a, b)
        rest = np.flatnonzero(~near & (np.maximum(a.lengths, b.lengths) <= MAX_EDITED))
        if self.edits and len(rest):
            near[rest] = self._edited(a.take(rest), b.take(rest))
        if self.contrast:
            near &= ~contrasts(telling(a), telling(b))
        return near

    def _edited(self, a: Folded, b: Folded) -> Flags:
        """Whether at most as many characters were changed as the shorter caption's length allows."""
        short = np.minimum(a.lengths, b.lengths)
        allowed = np.minimum(np.where(short >= TWO_EDITS, 2, np.where(short >= ONE_EDIT, 1, 0)), self.edits)
        near: Flags = edit_distance(a, b, self.edits) <= allowed
        return near

    def _affixed(self, a: Folded, b: Folded) -> Flags:
        """Whether the shorter caption is the longer one's beginning or end, and ``affix`` of it at least."""
        short, long = np.minimum(a.lengths, b.lengths), np.maximum(a.lengths, b.lengths)
        swap = a.lengths > b.lengths
        merged = np.concatenate([a.codes, b.codes])
        start_b = b.starts[:-1] + len(a.codes)
        of_short, of_long = np.where(swap, start_b, a.starts[:-1]), np.where(swap, a.starts[:-1], start_b)
        runs = np.concatenate([[0], np.cumsum(short)])[:-1]

        def equal(of: I64) -> Flags:
            same = merged[gather_ranges(of_short, short)] == merged[gather_ranges(of, short)]
            return np.logical_and.reduceat(same, runs)

        after = equal(of_long) & (short >= WITH_SUFFIX)
        before = equal(of_long + long - short) & (short >= WITH_PREFIX)
        near: Flags = (after | before) & (short >= self.affix * long)
        return near


def jaccard(a: Folded, b: Folded, n: int = 2) -> npt.NDArray[np.float64]:
    """(pairs,) Jaccard similarity of the sets of n-grams of caption i of ``a`` and caption i of ``b``."""
    sets = [_distinct(f, n) for f in (a, b)]
    sizes = [np.bincount((s >> np.uint64(32)).astype(np.int64), minlength=len(a.starts) - 1) for s in sets]
    both = np.sort(np.concatenate(sets))
    shared = both[1:][both[1:] == both[:-1]]
    common = np.bincount((shared >> np.uint64(32)).astype(np.int64), minlength=len(a.starts) - 1)
    union = np.maximum(sizes[0] + sizes[1] - common, 1)
    return np.asarray(common / union)


def _distinct(folded: Folded, n: int) -> U64:
    """Distinct (caption number << 32 | shingle), sorted."""
    shingles: U32 = folded.shingles(n)
    rows = np.repeat(np.arange(len(folded.starts) - 1, dtype=np.uint64), folded.lengths)
    values: U64 = np.sort((rows << np.uint64(32)) | shingles)
    new = np.concatenate([[True], values[1:] != values[:-1]])
    distinct: U64 = values[new]
    return distinct
