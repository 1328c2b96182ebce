"""Pairs whose images, and where asked whose captions, mean nearly the same to the scorer.

Semantic duplicates (SemDeDup; Abbas and others 2023) are other photos of one thing, or one photo edited past
what an image hash knows again. Dropping them is a choice with a cost, so it is a stage of its own, in no recipe
that ships, with a reason of its own. It reads the unit vectors that ``score`` keeps with ``embeddings: true``.

Candidates: the signs of 64 projections onto fixed random directions (Charikar 2002) differ in an expected
64 angle / pi bits, so near vectors have near codes, which the tables for image hashes find. What they
find is verified by the cosines themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from ..pipeline.columns import with_missing
from ..pipeline.errors import RunError
from ..pipeline.stage import Phase, StageModel
from .components import components
from .duplicates import mark
from .joins import Joins
from .shingles import I64, U64

BITS = 64
CODE_BITS = 9
"""At a cosine of .97 codes are 5 bits apart on the mean and within 9 in 97 of 100 pairs; at .99 in nearly all."""
CHUNK = 1 << 14
Vectors = npt.NDArray[np.float32]


class SemanticDuplicates(StageModel):
    """Drops a pair whose image's vector, and where asked whose caption's, is nearly that of a better pair."""

    name: ClassVar[str] = "semantic_duplicates"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = (
        *("caption", "image_embedding", "caption_embedding", "score", "width", "height", "duplicate_of"),
    )

    image_cosine: float = Field(0.97, ge=0.9, le=1, description="least cosine of the images' vectors")
    caption_cosine: float | None = Field(
        0.9, ge=-1, le=1, description="least cosine of the captions' vectors; null asks nothing of the captions"
    )

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of, duplicate_kind and detail on all but the best of each group.

        Raises ``RunError`` where no row carries a vector.
        """
        ordered = with_missing(rows, self.reads).with_row_index("_at").sort("key", "origin")
        coded = _coded(ordered)
        return self.settle(ordered, *_JOINS.pairs(coded)).sort("_at").drop("_at")

    @property
    def entries_per_row(self) -> int:
        """One per block of the image's hash, and for whatever else ties two rows."""
        return _JOINS.entries_per_row

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: entries of ``rows`` (with ``node``), by partition."""
        return _JOINS.spread(_coded(with_missing(rows, self.reads)), partitions)

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) of the candidates of one partition."""
        return _JOINS.meet(entries)

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """``rows``, in order of key, with verdicts: candidates (a, b) are verified, the best of a group stays."""
        good = _near(rows["image_embedding"], a, b, self.image_cosine)
        if self.caption_cosine is not None:
            good &= _near(rows["caption_embedding"], a, b, self.caption_cosine)
        return mark(rows, pl.Series(components(rows.height, a[good], b[good])), "semantic")

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"semantic_duplicate": pl.col("duplicate_kind") == "semantic"}


_JOINS = Joins(CODE_BITS, hashes=("_code",))


def _coded(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with ``_code``, the 64 signs of each image's vector."""
    vectors = rows["image_embedding"]
    known = vectors.drop_nulls()
    if rows.height and not len(known):
        raise RunError(
            "semantic_duplicates found no vectors: the recipe's score stage must keep them. "
            "Add `score: {embeddings: true}` to the recipe, or --set score.embeddings=true."
        )
    codes = np.zeros(len(known), dtype=np.uint64)
    for first in range(0, len(known), CHUNK):
        some = _matrix(known[first : first + CHUNK])
        signs = some @ _directions(some.shape[1]).T > 0
        codes[first : first + CHUNK] = np.packbits(signs, axis=1).view(">u8").ravel()
    at = vectors.is_not_null().arg_true()
    column = pl.Series("_code", [None] * rows.height, dtype=pl.UInt64)
    return rows.with_columns(column.scatter(at, codes) if len(codes) else column)


@lru_cache(maxsize=4)
def _directions(dimensions: int) -> Vectors:
    """(64, dimensions) directions; entries of one fixed draw, so that codes of other runs stay comparable."""
    drawn = np.random.Generator(np.random.PCG64(0x7475_7765_6E)).standard_normal((BITS, dimensions))
    return drawn.astype(np.float32)


def _near(vectors: pl.Series, a: I64, b: I64, least: float) -> npt.NDArray[np.bool_]:
    """(pairs,) whether the cosine of vectors ``a`` and ``b`` is ``least`` or more."""
    out = np.zeros(len(a), dtype=np.bool_)
    for first in range(0, len(a), CHUNK):
        some = slice(first, first + CHUNK)
        one, other = _matrix(vectors.gather(a[some])), _matrix(vectors.gather(b[some]))
        # Rounded, so that the order in which a machine sums cannot turn a verdict.
        cosine = np.einsum("nd,nd->n", one, other) / np.maximum(np.linalg.norm(one, axis=1), 1e-6)
        out[some] = np.round(cosine / np.maximum(np.linalg.norm(other, axis=1), 1e-6), 4) >= least
    return out


def _matrix(vectors: pl.Series) -> Vectors:
    if not len(vectors):
        return np.empty((0, 1), dtype=np.float32)
    return np.frombuffer(b"".join(vectors.to_list()), dtype="<f2").reshape(len(vectors), -1).astype(np.float32)
