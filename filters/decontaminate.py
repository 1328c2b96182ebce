"""Keeps evaluation sets out: pairs whose image or caption matches an item of one are dropped.

An image matches within ``image_bits`` of 64. A caption matches where it is equal after folding, or
nearly (bigram Jaccard, or with something short before or after it) and long enough to be no commonplace.
Every item is compared with every pair: for images by blocks of the hash, which loses nothing; for
captions by eight bands of three MinHash values, which at a Jaccard of .8 miss 4 in 1,000.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations, pairwise
from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline import files
from ..pipeline.stage import Phase, StageModel
from .minhash import signatures
from .near_captions import CaptionRule
from .shingles import I64, U64, Folded, fold_column, gather_ranges, mix64

BANDS, WIDTH = 8, 3
CHUNK = 1 << 16


class Decontaminate(StageModel):
    """Drops pairs that match an item of an evaluation set."""

    name: ClassVar[str] = "decontaminate"
    adds: ClassVar[tuple[str, ...]] = ("contaminates",)
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "phash", "phash_inside", "phash_mirrored")

    sets: Mapping[str, str] = Field(default_factory=dict, description="name of each evaluation set to its path")
    match: Literal["either", "image", "caption"] = Field(
        "either", description="what of a pair must match: its image or its caption (either), or only one of the two"
    )
    image_bits: int = Field(
        6, ge=0, le=8, description="bits of 64 in which an image may differ from one of the set (re-encoding: 0 to 4)"
    )
    jaccard: float = Field(
        0.8, ge=0.7, le=1, description="least similarity of caption bigrams; below .7 the bands would miss too many"
    )
    shortest: int = Field(
        8, ge=1, description="folded characters; shorter captions are commonplaces (the mean of Flickr8k-CN is 9)"
    )

    def resources(self) -> Mapping[str, str]:
        return {name: _fingerprint(path) for name, path in self.sets.items()}

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with contaminates ("set/item") and, where it is set, detail."""
        rows = rows.with_columns(contaminates=pl.lit(None, dtype=pl.String))
        items = self._items()
        if not items.height or not rows.height:
            return rows
        parts = []
        if self.match != "caption":
            pictures = items.filter(pl.col("phash").is_not_null())
            parts += [self._images(rows[c], pictures) for c in self.reads[1:] if c in rows.columns]
        if self.match != "image":
            parts.append(self._captions(rows["caption"], items.filter(pl.col("caption").is_not_null())))
        best = pl.concat(parts).sort("_at", "rank", "found").unique("_at", keep="first", maintain_order=True)
        return (
            rows.drop("contaminates")
            .with_row_index("_at")
            .join(best.rename({"found": "contaminates"}), on="_at", how="left", maintain_order="left")
            .with_columns(detail=pl.coalesce("told", "detail"))
            .drop("_at", "rank", "told")
        )

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"in_evaluation_set": pl.col("contaminates").is_not_null()}

    def _items(self) -> pl.DataFrame:
        from .evaluation_sets import SCHEMA, read_set

        empty = pl.DataFrame(schema={"found": pl.String, **SCHEMA})
        sets = (
            read_set(path).select(pl.format("{}/{}", pl.lit(name), "item").alias("found"), pl.all())
            for name, path in sorted(self.sets.items())
        )
        return pl.concat([empty, *sets])

    def _images(self, phash: pl.Series, items: pl.DataFrame) -> pl.DataFrame:
        at = np.flatnonzero(phash.is_not_null().to_numpy())
        image, known = phash.drop_nulls().to_numpy(), items["phash"].to_numpy()
        rows, hits = near_hashes(image, known, self.image_bits)
        apart = np.bitwise_count(image[rows] ^ known[hits])
        return _found(at[rows], apart, items["found"], hits).with_columns(
            told=pl.format("image of {}, {} bits of 64 apart", "found", "rank")
        )

    def _captions(self, caption: pl.Series, items: pl.DataFrame) -> pl.DataFrame:
        known = fold_column(items["caption"])
        long = np.flatnonzero(known.lengths >= self.shortest)
        rows, hits = near_texts(
            fold_column(caption), known.take(long), CaptionRule(self.jaccard, self.jaccard, 0, False)
        )
        return _found(rows, np.full(len(rows), 65), items["found"], long[hits]).with_columns(
            told=pl.format("caption of {}", "found")
        )


def near_hashes(image: U64, known: U64, bits: int) -> tuple[I64, I64]:
    """All (i, j) with ``image[i]`` at most ``bits`` bits from ``known[j]``; ``bits`` + 2 blocks, two of which agree."""
    left, right = [], []
    edges = np.linspace(0, 64, bits + 3).astype(int).tolist()
    blocks = [np.uint64(((1 << (high - low)) - 1) << low) for low, high in pairwise(edges)]
    for one, other in combinations(blocks, 2):
        mask = one | other
        rows, hits = _equal(image & mask, known & mask)
        near = np.bitwise_count(image[rows] ^ known[hits]) <= bits
        left.append(rows[near])
        right.append(hits[near])
    return _distinct(np.concatenate(left), np.concatenate(right), len(known))


def near_texts(folded: Folded, known: Folded, rule: CaptionRule) -> tuple[I64, I64]:
    """(i, j) with caption i of ``folded`` near caption j of ``known`` by ``rule``, as far as a band shows them."""
    ours, theirs = signatures(folded, BANDS * WIDTH), signatures(known, BANDS * WIDTH)
    left, right = [], []
    for band in range(BANDS):
        rows, hits = _equal(_band(ours, band), _band(theirs, band))
        left.append(rows)
        right.append(hits)
    rows, hits = _distinct(np.concatenate(left), np.concatenate(right), len(known.starts) - 1)
    good = np.zeros(len(rows), dtype=np.bool_)
    for first in range(0, len(rows), CHUNK):
        some = slice(first, first + CHUNK)
        a, b = folded.take(rows[some]), known.take(hits[some])
        both = Folded(np.concatenate([a.codes, b.codes]), np.concatenate([a.starts[:-1], b.starts + len(a.codes)]))
        n = len(a.starts) - 1
        good[some] = rule.near(both, np.arange(n), np.arange(n, 2 * n))
    return rows[good], hits[good]


def _band(signature: np.typing.NDArray[np.uint32], band: int) -> U64:
    out = np.zeros(signature.shape[1], dtype=np.uint64)
    for row in signature[band * WIDTH : (band + 1) * WIDTH]:
        out = mix64(out ^ row)
    return out


def _equal(values: U64, known: U64) -> tuple[I64, I64]:
    """All (i, j) with ``values[i] == known[j]``."""
    order = np.argsort(known, kind="stable")
    held = known[order]
    first, last = np.searchsorted(held, values, "left"), np.searchsorted(held, values, "right")
    counts = last - first
    return np.repeat(np.arange(len(values)), counts), order[gather_ranges(first, counts)]


def _distinct(a: I64, b: I64, width: int) -> tuple[I64, I64]:
    codes = np.unique(a * max(width, 1) + b)
    return codes // max(width, 1), codes % max(width, 1)


def _found(rows: I64, rank: np.typing.NDArray[np.integer], found: pl.Series, hits: I64) -> pl.DataFrame:
    return pl.DataFrame(
        {"_at": rows, "rank": rank, "found": found.gather(hits)},
        schema={"_at": pl.UInt32, "rank": pl.UInt32, "found": pl.String},
    )


def _fingerprint(path: str) -> str:
    """A hash of the names and sizes of the set's files: tells whether a set was changed between runs."""
    fs, inner = files.filesystem(path)
    found = fs.find(inner, detail=True) if fs.exists(inner) else {}
    told = sorted((name.removeprefix(inner), info.get("size")) for name, info in found.items())
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
