"""Whether Han characters alone read as Japanese: the evidence of characters and of their neighbours.

残高, 調理場 and 砂漠 are written in characters that Chinese has too, so no repertoire tells them apart
(``scripts.py``); which characters stand beside each other does. The weights come from dictionaries
(``trainers/han_words.py``); they are bytes and are added as integers, so a text's evidence is the same in any
company.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from .shingles import I64, U32

FIRST = 0x3000
CHARACTERS = 0x9FFF - FIRST + 1
"""Characters from U+3000 to U+9FFF have a weight each."""
BUCKET_BITS = 22
BUCKETS = 1 << BUCKET_BITS
"""Pairs, triples and fours share so many weights: the dictionaries have millions, and 2^19 made them collide."""
FEATURES = 5
SCALE = 16
"""Evidence is in units of 1/16 nat."""

_ITERATED = (0x3005, 0x3008)
_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000))


Indices = npt.NDArray[np.int32]


def evidence(codes: U32, starts: I64) -> npt.NDArray[np.float64]:
    """(rows,) evidence that each text is Japanese and not Chinese, in nats; letters that are not Han say nothing.

    ``codes`` are the texts' code points end to end; text ``i`` is ``codes[starts[i]:starts[i + 1]]``.
    """
    weights, bias = _weights()
    total = np.zeros(len(codes) + 1, dtype=np.int64)
    np.cumsum(sum(weights[index] for index in indices(codes, starts)), out=total[1:])
    return (np.diff(total[starts]) + bias) / SCALE


def indices(codes: U32, starts: I64) -> tuple[Indices, ...]:
    """FEATURES times (characters,): which weights each Han character has, by itself and by what it begins; 0 for none.

    The character; the pair, the triple and the four that begin with it; and, where it begins a run of Han characters,
    that. What follows the last character of a run counts as one sign, whatever it is.
    """
    plain = np.minimum(codes, 0xFFFF)
    han = _is_han()[plain]
    plain = np.where(han, plain, 0).astype(np.uint32)
    some = np.diff(starts) > 0
    after = np.append(plain[1:], np.uint32(0))
    after[starts[1:][some] - 1] = 0  # the neighbour of a text's last character is another text's
    second = np.append(after[1:], np.uint32(0))
    second[after == 0] = 0
    third = np.append(second[1:], np.uint32(0))
    third[second == 0] = 0
    before = np.append(np.uint32(0), plain[:-1])
    before[starts[:-1][some]] = 0
    pair = plain * np.uint32(0x9E3779B1) ^ after * np.uint32(0x85EBCA77)
    triple = pair * np.uint32(0x27D4EB2F) ^ second * np.uint32(0xC2B2AE3D)
    four = triple * np.uint32(0x165667B1) ^ third * np.uint32(0x9E3779B1)
    first = plain * np.uint32(0x85EBCA77) ^ np.uint32(0x01234567)
    return (
        np.where(han, plain - np.uint32(FIRST), 0).astype(np.int32),
        _bucket(pair, han),
        _bucket(triple, han & (after > 0)),
        _bucket(four, han & (second > 0)),
        _bucket(first, han & (before == 0)),
    )


def _bucket(mixed: U32, there: npt.NDArray[np.bool_]) -> Indices:
    """The bucket of each where there is one; the finaliser of Ettinger's lowbias32 spreads the bits."""
    mixed = mixed ^ (mixed >> np.uint32(16))
    mixed = mixed * np.uint32(0x7FEB352D)
    mixed = mixed ^ (mixed >> np.uint32(15))
    mixed = mixed * np.uint32(0x846CA68B)
    mixed = mixed ^ (mixed >> np.uint32(16))
    return np.where(there, (mixed >> np.uint32(32 - BUCKET_BITS)) + np.uint32(CHARACTERS), 0).astype(np.int32)


@cache
def _is_han() -> npt.NDArray[np.bool_]:
    """(0x10000,) Han characters and the signs that stand for one (々 〆 〇); what lies beyond says nothing."""
    table = np.zeros(0x10000, dtype=np.bool_)
    for start, end in (_ITERATED, *_HAN):
        table[start:end] = True
    table[[0x30F5, 0x30F6]] = True
    return table


@cache
def fingerprint() -> str:
    """What run.json says of the weights."""
    return hashlib.sha256((files(__package__) / "models" / "han_words.npz").read_bytes()).hexdigest()


@cache
def _weights() -> tuple[npt.NDArray[np.int16], int]:
    with (files(__package__) / "models" / "han_words.npz").open("rb") as handle:
        held = np.load(handle)
        return held["weights"].astype(np.int16), int(held["bias"])
