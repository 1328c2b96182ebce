"""The order in which pairs are read: a pure function of the seed, known without reading a byte.

Shards are passed over again and again, each pass in an order of its own, and dealt out in turn to all readers (ranks
times workers). The sequence has no end, so ranks whose shards differ in size never wait for one another; training
counts steps instead. Within a reader a shuffle buffer mixes neighbouring shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Slot(NamedTuple):
    """A sample's place: the ``turn`` (how many shards were dealt before its own), the shard, the sample within it."""

    turn: int
    shard: int
    sample: int


def entries(counts: Sequence[int], seed: int, reader: int, readers: int, start: int | None = None) -> Iterator[Slot]:
    """The samples as reader ``reader`` of ``readers`` meets them in its shards, from turn ``start`` on, without end.

    ``counts`` are the samples of each shard.
    """
    shards = len(counts)
    if not sum(counts):
        raise ValueError("all shards are empty")
    known: tuple[int, Sequence[int]] = (-1, ())
    for turn in itertools.count(reader if start is None else start, readers):
        pass_, place = divmod(turn, shards)
        if known[0] != pass_:
            known = (pass_, np.random.default_rng([seed, pass_]).permutation(shards).tolist())
        shard = known[1][place]
        yield from (Slot(turn, shard, i) for i in range(counts[shard]))


class Order:
    """The same samples after a shuffle buffer of ``size``; an endless iterator.

    ``waiting`` is what has entered the buffer and not left it.
    """

    def __init__(self, counts: Sequence[int], seed: int, reader: int, readers: int, size: int) -> None:
        self._entries = entries(counts, seed, reader, readers)
        self._rng = np.random.default_rng([seed, 1 << 20, reader])
        self._size = max(1, size)
        self.waiting: list[Slot] = []

    def __iter__(self) -> Iterator[Slot]:
        return self

    def __next__(self) -> Slot:
        while len(self.waiting) < self._size:
            self.waiting.append(next(self._entries))
        chosen = int(self._rng.integers(len(self.waiting)))
        slot, self.waiting[chosen] = self.waiting[chosen], self.waiting[-1]
        self.waiting.pop()
        return slot
