"""TaiSu's rank rule: a pair stays where, within a block, image and caption find each other.

Within blocks of pairs each image is compared with all captions and each caption with all images; a pair is kept
if its caption is the nearest to its image, or its image the nearest to its caption (TaiSu; Liu and others 2022,
blocks of 120). The rule needs no threshold, so it carries over from one scorer to another.

A block must not depend on batches, workers or runners. Blocks are made within a unit, since units are the same on
every runner and vectors then never travel (a kilobyte a pair); within the unit pairs stand in order of a hash
of their keys, since neighbours of one page resemble one another, and are cut into blocks of nearly equal size, so
that no pair stands in a small last block where any rank is easy. A unit of fewer pairs than a block is one
block: ``rank_block`` says how large it was. An equal caption elsewhere in the block is no rival.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from ..filters.shingles import I64, hash_strings
from ..pipeline.columns import with_missing
from ..pipeline.errors import RunError
from ..pipeline.index import indexed
from ..pipeline.stage import Phase, StageModel, threshold
from .score import DECIMALS

F64 = npt.NDArray[np.float64]


class RankRule(StageModel):
    """Drops pairs whose caption and image prefer others of their block. Reads what ``score`` keeps as embeddings."""

    name: ClassVar[str] = "rank_rule"
    adds: ClassVar[tuple[str, ...]] = ("rank_caption", "rank_image", "rank_block")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("image_embedding", "caption_embedding")

    block: int = Field(120, ge=2, description="pairs compared with one another, about (TaiSu: 120)")
    top: int = threshold(1, "rank up to which a pair counts as found (TaiSu: 1)", ge=1)
    needs: Literal["either", "both"] = threshold("either", "directions in which it must be found (TaiSu: either)")

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with the ranks (0: its own is nearest) and the size of the block.

        Raises ``RunError`` where a row carries no vectors.
        """
        rows = with_missing(rows, self.reads).drop(self.adds, strict=False).with_row_index("_row")
        new = rows.filter(~indexed()).select("_row", "unit", "key", "origin", *self.reads)
        _check(new)
        found = [self._unit(some) for _, some in new.group_by("unit", maintain_order=True)]
        if not found:
            return with_missing(rows, self.adds).drop("_row")
        return rows.join(pl.concat(found), on="_row", how="left", maintain_order="left").drop("_row")

    def _unit(self, rows: pl.DataFrame) -> pl.DataFrame:
        order = pl.DataFrame({"hash": hash_strings(rows["key"]), "key": rows["key"], "origin": rows["origin"]})
        at = order.with_row_index("_at").sort("hash", "key", "origin")["_at"].cast(pl.Int64).to_numpy()
        rows = rows[at]
        images, captions = (_matrix(rows[c]) for c in self.reads)
        ranks = [_ranks(images[some], captions[some]) for some in _blocks(rows.height, self.block)]
        table = np.concatenate([np.stack([*r, np.full(len(r[0]), len(r[0]))], axis=1) for r in ranks])
        columns = [pl.Series(name, table[:, i], dtype=pl.UInt32) for i, name in enumerate(self.adds)]
        return rows.select("_row").with_columns(columns)

    def reasons(self) -> Mapping[str, pl.Expr]:
        caption, image = pl.col("rank_caption") < self.top, pl.col("rank_image") < self.top
        return {"low_rank": ~(caption | image if self.needs == "either" else caption & image)}


def _blocks(rows: int, size: int) -> list[slice]:
    """``rows`` cut into blocks of nearly equal size, about ``size`` each."""
    count = max(1, round(rows / size))
    edges = [i * rows // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _ranks(images: F64, captions: F64) -> tuple[I64, I64]:
    """How many captions lie nearer to each image than its own, and how many images to each caption.

    In double precision and rounded, so that equal captions tie whatever their place in the block.
    """
    cosine = np.round(images @ captions.T, DECIMALS)  # (images, captions)
    own = np.diag(cosine)
    return (cosine > own[:, None]).sum(axis=1), (cosine > own[None, :]).sum(axis=0)


def _matrix(vectors: pl.Series) -> F64:
    made = np.frombuffer(b"".join(vectors.to_list()), dtype="<f2").reshape(len(vectors), -1).astype(np.float64)
    return np.asarray(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-6))


def _check(rows: pl.DataFrame) -> None:
    if rows.height and rows["image_embedding"].null_count() + rows["caption_embedding"].null_count():
        raise RunError(
            "rank_rule found pairs without vectors: the recipe's score stage must keep them. "
            "Add `score: {embeddings: true}` to the recipe, or --set score.embeddings=true."
        )
