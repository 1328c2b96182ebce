"""What else is said of an image: the captions of the other pairs that show the very same one.

Hard negatives are made where shards are written, and a shard does not hold all pairs of an image (Flickr8k-CN has five
captions for each). So this is gathered in the relate phase, where all pairs meet, by the SHA-256 of the bytes
and, where there are none, by the image's address.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ..filters.joins import equal_values
from ..filters.shingles import I64, U64, hash_strings
from ..pipeline.columns import with_missing
from ..pipeline.stage import Phase, StageModel


class CaptionsBeside(StageModel):
    """Notes for each pair the captions of the others with its image, so that no hard negative says one of them."""

    name: ClassVar[str] = "captions_beside"
    adds: ClassVar[tuple[str, ...]] = ("captions_beside",)
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "image_sha256", "image_url")

    most: int = Field(20, ge=1, description="captions noted for a pair; a logo may have thousands")

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with captions_beside; null where no other pair shows the image."""
        rows = with_missing(rows, self.reads).drop("captions_beside", strict=False)
        image = pl.coalesce("image_sha256", "image_url")
        several = rows.select("caption", _image=image).drop_nulls()
        several = several.filter(pl.col("_image").is_duplicated())
        told = several.group_by("_image").agg(pl.col("caption").unique().sort().alias("_told"))
        others = pl.col("_told").list.set_difference(pl.concat_list("caption")).list.sort().list.head(self.most)
        return (
            rows.with_columns(_image=image)
            .join(told, on="_image", how="left", maintain_order="left")
            .with_columns(captions_beside=pl.when(others.list.len() > 0).then(others))
            .drop("_image", "_told")
        )

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: a number per image of ``rows`` (with ``node``), by partition."""
        held = with_missing(rows, self.reads).select("node", "key", _image=pl.coalesce("image_sha256", "image_url"))
        held = held.drop_nulls("_image")
        entries = held.select("node", "key", value=pl.Series(hash_strings(held["_image"]), dtype=pl.UInt64))
        to = pl.Series(entries["value"].to_numpy() % np.uint64(partitions), dtype=pl.UInt64)
        for (partition,), some in entries.with_columns(_to=to).group_by("_to"):
            yield int(str(partition)), some.drop("_to")

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) that show one image."""
        rows = entries.sort("key", "node")
        a, b = equal_values(rows["value"])
        node = rows["node"].to_numpy()
        return node[a], node[b]

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """As ``relate``: the rows of an image stand together."""
        return self.relate(rows)
