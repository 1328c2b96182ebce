"""Other policies a recipe may choose: at most so many captions of one image, so many images of one caption.

``pair_duplicates`` drops a pair only where image and caption both match. These drop more, each under its
own reason: with ``most: 1`` they are image-only and caption-only removal, which lose good pairs (see
``duplicates``); with more they cap how often one picture or one phrase is seen. The best stay, in the
order in which ``pair_duplicates`` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel
from .components import components
from .duplicates import mark
from .joins import HASHES, Joins
from .shingles import I64, U64


class _Repeats(StageModel):
    """Keeps the best ``most`` rows of each group that ``joins`` ties together."""

    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", *HASHES, "score", "width", "height", "duplicate_of")
    kind: ClassVar[str]

    most: int = Field(1, ge=1, description="pairs of a group that stay")

    def joins(self) -> Joins:
        """What ties pairs into a group."""
        raise NotImplementedError

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of, duplicate_kind and detail on those beyond the best ``most``."""
        ordered = with_missing(rows, self.reads).with_row_index("_at").sort("key", "origin")
        return self.settle(ordered, *self.joins().pairs(ordered)).sort("_at").drop("_at")

    @property
    def entries_per_row(self) -> int:
        """One per block of the image's hash, and for whatever else ties two rows."""
        return self.joins().entries_per_row

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: entries of ``rows`` (with ``node``), by partition."""
        return self.joins().spread(with_missing(rows, self.reads), partitions)

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) of one group, as one partition shows them."""
        return self.joins().meet(entries)

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """``rows``, in order of key, with verdicts, where (a, b) are of one group."""
        return mark(rows, pl.Series(components(rows.height, a, b)), self.kind, self.most)


class ImageRepeats(_Repeats):
    """Keeps at most so many captions of one image, as pairs or as captions of the best pair."""

    name: ClassVar[str] = "image_repeats"
    kind: ClassVar[str] = "image"
    adds: ClassVar[tuple[str, ...]] = (*_Repeats.adds, "captions_merged")

    most: int = Field(5, ge=1, description="captions of one image that stay (Flickr8k-CN and COCO-CN: 5)")
    merge: int = Field(
        0, ge=0, description="captions of the pairs that go, the best first, that the best pair carries along"
    )
    image_bits: int = Field(
        4, ge=0, le=10, description="image hashes at most so many bits of 64 apart are one image (as for split)"
    )

    def joins(self) -> Joins:
        """Near-identical images."""
        return Joins(self.image_bits)

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """As for all repeats; with ``merge`` the best of a group gets ``captions_merged`` from those that go."""
        rows = super().settle(rows, a, b)
        if not self.merge:
            return rows.with_columns(captions_merged=pl.lit(None, dtype=pl.List(pl.String)))
        gone = rows.filter(pl.col("duplicate_kind") == self.kind).sort("score", "key", descending=[True, False])
        texts = gone.group_by(key="duplicate_of").agg(pl.col("caption").unique(maintain_order=True).alias("_gone"))
        # The best pair's own caption is not told twice.
        others = pl.col("_gone").list.set_difference(pl.concat_list("caption")).list.head(self.merge)
        return (
            rows.join(texts, on="key", how="left", maintain_order="left")
            .with_columns(captions_merged=pl.when(others.list.len() > 0).then(others))
            .drop("_gone")
        )

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"image_repeated": pl.col("duplicate_kind") == "image"}


class CaptionRepeats(_Repeats):
    """Keeps at most so many images of one caption."""

    name: ClassVar[str] = "caption_repeats"
    kind: ClassVar[str] = "caption"

    most: int = Field(10, ge=1, description="images of one caption, equal after folding, that stay (Wukong, COYO: 10)")

    def joins(self) -> Joins:
        """Equal folded captions."""
        return Joins(None, caption=True)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"caption_repeated": pl.col("duplicate_kind") == "caption"}
