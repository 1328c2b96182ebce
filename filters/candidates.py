"""Candidate pairs: rows whose captions share a MinHash value and whose images are a few bits apart.

One table per permutation t: rows are sorted by (value t of the caption's signature, image hash
rotated by its own number of bits) and each row is compared with the next ``window`` rows of the same
value. So caption band and image band work together in one 64-bit sort key:

- a rare value gives a bucket smaller than the window, where every two rows are compared;
- a value shared by a million rows (one caption on a million images, one word in many captions) is
  ordered by image, where near-identical images stand side by side unless an early bit differs: and
  the rotations put other bits first in each table.

The work is linear in rows whatever the bucket sizes. What comes out is verified on the captions by
``near_captions``; what a table misses, the other fifteen mostly find (benchmarks/duplicates.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .shingles import I64, U32, U64

WINDOW = 8
PART = 1 << 15
BITS = 64
SHARED_STEP = 16
"""Each time as many more pairs share a caption, the image must be 2 bits nearer: see ``allowed_bits``."""

Pairs = tuple[I64, I64]


def allowed_bits(shared: I64, most: int, least: int = 2) -> U32:
    """Bits that two image hashes may differ in, where ``shared`` pairs carry the same caption.

    Among n images under one caption the chance of an unrelated near match grows with n. On photos the
    chance of a match within k bits falls by more than 16 for each 2 bits (measured: of 179,700
    unrelated pairs 36 are within 16 bits, 3 within 14, none within 12), so 2 bits less for each factor
    of 16 keeps it level: ``most`` below 16 pairs, and never under ``least`` (re-encoding moves 2).
    """
    steps = np.floor(np.log2(np.maximum(shared, 1)) / np.log2(SHARED_STEP)).astype(np.int64)
    bits: U32 = np.maximum(most - 2 * steps, min(least, most)).astype(np.uint32)
    return bits


def table_pairs(table: int, tables: int, values: U32, image: U64, bits: U32, window: int = WINDOW) -> Pairs:
    """Rows (i, j) of one table that share a value and whose images differ in at most ``bits`` of both.

    ``values`` (rows,) is the table's signature value, ``image`` (rows,) the image hash. Equal keys keep
    the order of the rows, so the result is a function of the rows' order and nothing else: not of the
    parts of about ``PART`` rows, by leading bits, in which sorting stays within a core's cache.
    """
    # The least of many hashes is small; multiplying by an odd number spreads values and keeps them apart.
    values = values * np.uint32(0x9E3779B1)
    parts = 1 << max(0, min(8, (len(values) // PART).bit_length()))
    lead = (values >> np.uint32(24)).astype(np.uint8) // np.uint8(256 // parts) if parts > 1 else None
    by_part = np.arange(len(values)) if lead is None else np.argsort(lead, kind="stable")
    sizes = [len(values)] if lead is None else np.bincount(lead, minlength=parts).tolist()
    rotation, found, start = table * BITS // tables, [], 0
    for size in sizes:
        rows = by_part[start : start + size]
        start += size
        own, hashes = values[rows], image[rows]
        turned = rotate(hashes, rotation) >> np.uint64(32)
        order = np.argsort((own.astype(np.uint64) << np.uint64(32)) | turned, kind="stable")
        a, b = window_pairs(order, own, hashes, bits[rows], window)
        found.append((rows[a], rows[b]))
    a, b = (np.concatenate([f[side] for f in found]) for side in (0, 1))
    return np.minimum(a, b), np.maximum(a, b)


def rotate(image: U64, bits: int) -> U64:
    """Image hashes turned left by ``bits``, so that other bits lead."""
    if not bits:
        return image
    return (image << np.uint64(bits)) | (image >> np.uint64(BITS - bits))


def window_pairs(order: I64, bucket: U32 | U64, image: U64, bits: U32, window: int) -> Pairs:
    """Pairs of ``order`` at most ``window`` places apart, of one bucket, near in image.

    ``bucket``, ``image`` and ``bits`` are by row, ``order`` is the rows sorted by bucket and image.
    """
    hashes = image[order]
    most = int(bits.max()) if len(bits) else 0
    left, right = [], []
    for step in range(1, min(window, len(order) - 1) + 1):
        apart = np.bitwise_count(hashes[:-step] ^ hashes[step:])
        at = np.flatnonzero(apart <= most)
        a, b = order[at], order[at + step]
        good = (bucket[a] == bucket[b]) & (apart[at] <= np.minimum(bits[a], bits[b]))
        left.append(a[good])
        right.append(b[good])
    if not left:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(left), np.concatenate(right)


def all_pairs(signature: Iterable[U32], tables: int, image: U64, bits: U32, window: int = WINDOW) -> Pairs:
    """The distinct pairs of all ``tables``, in ascending order; ``signature`` gives (rows,) values per table."""
    rows = np.uint64(max(len(image), 1))
    codes = [np.empty(0, dtype=np.uint64)]
    for table, values in enumerate(signature):
        a, b = table_pairs(table, tables, values, image, bits, window)
        codes.append(a.astype(np.uint64) * rows + b.astype(np.uint64))
    found = np.unique(np.concatenate(codes))
    return (found // rows).astype(np.int64), (found % rows).astype(np.int64)
