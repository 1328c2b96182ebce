"""MinHash signatures of captions (Broder 1997), for a whole column at once.

``signatures`` is what tuwen compares: one 32-bit hash per shingle, mixed once per permutation, the
minimum taken over each caption's run of shingles. ``datasketch_signatures`` gives the values that
``datasketch.MinHash`` gives for the same shingles, for users who exchange signatures with it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import polars as pl

from .shingles import CHUNK_ROWS, U32, U64, VERY_SHORT, Folded, fold, fold_column

PERMUTATIONS = 16
"""Each permutation is a candidate table of its own: at a Jaccard of .5 all 16 miss once in 65,536 pairs."""

CHUNK_CODES = 1 << 18
"""Characters hashed at a time: the work arrays stay in a core's second-level cache."""


@lru_cache(maxsize=4)
def _salts(permutations: int) -> tuple[U32, U32]:
    """Odd multipliers and offsets; drawn from a fixed seed, so that indexes of other runs stay comparable."""
    drawn = np.random.Generator(np.random.PCG64(0x7475_7765_6E)).integers(0, 2**32, (2, permutations), dtype=np.uint32)
    return drawn[0] | np.uint32(1), drawn[1]


def signatures(folded: Folded, permutations: int = PERMUTATIONS, n: int = 2) -> U32:
    """(permutations, captions) minimum of each permutation over each caption's character n-grams."""
    rows = len(folded.starts) - 1
    out: U32 = np.empty((permutations, rows), dtype=np.uint32)
    multipliers, offsets = _salts(permutations)
    first = 0
    while first < rows:
        last = int(np.searchsorted(folded.starts, folded.starts[first] + CHUNK_CODES, side="right")) - 1
        last = min(max(last, first + 1), rows)
        part = folded.codes[folded.starts[first] : folded.starts[last]]
        starts = folded.starts[first : last + 1] - folded.starts[first]
        hashed = Folded(part, starts).shingles(n)
        for p in range(permutations):
            mixed = (hashed ^ offsets[p]) * multipliers[p]
            mixed ^= mixed >> np.uint32(15)
            mixed *= np.uint32(0x2C1B3C6D)
            mixed ^= mixed >> np.uint32(12)
            out[p, first:last] = np.minimum.reduceat(mixed, starts[:-1])
        first = last
    return out


def sign_column(captions: pl.Series, permutations: int = PERMUTATIONS) -> tuple[U32, U64]:
    """(permutations, captions) signatures and (captions,) hashes of the folded texts, without keeping the texts."""
    signed: U32 = np.empty((permutations, len(captions)), dtype=np.uint32)
    text: U64 = np.empty(len(captions), dtype=np.uint64)
    for first in range(0, len(captions), CHUNK_ROWS):
        some = slice(first, first + CHUNK_ROWS)
        folded = fold_column(captions[some])
        signed[:, some], text[some] = signatures(folded, permutations), folded.text_hash()
    return signed, text


def caption_shingles(caption: str, n: int = 2) -> list[str]:
    """The distinct folded n-grams of a caption, in order; the whole text where it is very short."""
    text = fold(caption)
    if len(text) < max(VERY_SHORT, n):
        return [text]
    return list(dict.fromkeys(text[i : i + n] for i in range(len(text) - n + 1)))


_MERSENNE = np.uint64((1 << 61) - 1)
_MAX_HASH = np.uint64((1 << 32) - 1)


def datasketch_signatures(
    captions: list[str], num_perm: int = 128, seed: int = 1, scheme: str = "affine32", n: int = 2
) -> U64:
    """(captions, num_perm) the hash values of ``datasketch.MinHash`` updated with the captions' shingles.

    Both read the first four bytes of SHA-1 of the UTF-8 shingle, little endian. ``affine32`` is the
    scheme of datasketch 2.0 (a h' + b mod 2^32, h' being h after MurmurHash3's finaliser); ``legacy``
    the only one before (((a h + b) mod (2^61 - 1)) & 0xffffffff, where a h + b wraps at 64 bits).
    """
    random = np.random.RandomState(seed)
    if scheme == "affine32":
        a = random.randint(0, 1 << 31, num_perm, dtype=np.uint32).astype(np.uint64) * np.uint64(2) + np.uint64(1)
        b = random.randint(0, 1 << 32, num_perm, dtype=np.uint32).astype(np.uint64)
    elif scheme == "legacy":
        bounds = [(1, _MERSENNE), (0, _MERSENNE)] * num_perm
        drawn = [random.randint(low, high, dtype=np.uint64) for low, high in bounds]
        a, b = np.array(drawn, dtype=np.uint64).reshape(num_perm, 2).T
    else:
        raise ValueError(f"unknown scheme {scheme!r}; expected affine32 or legacy")
    out: U64 = np.empty((len(captions), num_perm), dtype=np.uint64)
    for row, caption in enumerate(captions):
        digests = (hashlib.sha1(s.encode()).digest()[:4] for s in caption_shingles(caption, n))
        hashed = np.frombuffer(b"".join(digests), dtype="<u4").astype(np.uint64)
        legacy = scheme == "legacy"
        values = (hashed[:, None] * a + b) % _MERSENNE if legacy else _fmix32(hashed)[:, None] * a + b
        out[row] = (values & _MAX_HASH).min(axis=0)
    return out


def _fmix32(values: U64) -> U64:
    """MurmurHash3's 32-bit finaliser, on 32-bit values held in 64 bits."""
    values = (values ^ (values >> np.uint64(16))) * np.uint64(0x85EBCA6B) & _MAX_HASH
    values = (values ^ (values >> np.uint64(13))) * np.uint64(0xC2B2AE35) & _MAX_HASH
    return values ^ (values >> np.uint64(16))
