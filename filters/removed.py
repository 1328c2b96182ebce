"""What was taken down stays out of later runs.

``curate remove`` writes RUN/removed.parquet; ``curate run --removed RUN`` puts these two stages into the recipe:
one before the fetch, by key and URL, so that the image is not even asked for; one after the decoding, by the
SHA-256 of the bytes, so that the same file from another address stays out too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline import files
from ..pipeline.errors import InputError
from ..pipeline.stage import StageModel

SCHEMA = {"key": pl.String, "image_url": pl.String, "image_sha256": pl.String, "at": pl.String}
"""Columns of removed.parquet; a null names nothing. ``at`` is when, in ISO 8601."""


class _Removed(StageModel):
    columns: ClassVar[tuple[str, ...]]

    lists: tuple[str, ...] = Field((), description="runs that something was removed from, or their removed.parquet")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """``batch`` with ``taken_down``: the date on which a row was removed, null for all others."""
        dates = [pl.col(c).replace_strict(_listed(self.lists, c), default=None) for c in self.columns if c in batch]
        return batch.with_columns(taken_down=pl.coalesce(*dates, pl.lit(None, dtype=pl.String)).cast(pl.String))

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"removed": pl.col("taken_down").is_not_null()}

    def resources(self) -> Mapping[str, str]:
        return {path: sha256(files.read_bytes(_file(path))).hexdigest()[:16] for path in self.lists}


class RemovedPairs(_Removed):
    """Drops pairs whose key or image URL was taken down in an earlier run."""

    name: ClassVar[str] = "removed_pairs"
    adds: ClassVar[tuple[str, ...]] = ("taken_down",)
    columns: ClassVar[tuple[str, ...]] = ("key", "image_url")


class RemovedImages(_Removed):
    """Drops pairs whose image, byte for byte, was taken down in an earlier run."""

    name: ClassVar[str] = "removed_images"
    adds: ClassVar[tuple[str, ...]] = ("taken_down",)
    columns: ClassVar[tuple[str, ...]] = ("image_sha256",)


def _file(path: str) -> str:
    """``path`` itself or the list in the run that it names; ``InputError`` where there is none."""
    for found in (path, files.join(path, "removed.parquet")):
        if found.endswith(".parquet") and files.exists(found):
            return found
    raise InputError(f"{path} is no removed.parquet and no run that holds one (curate remove writes it)")


@lru_cache(maxsize=8)
def _listed(lists: tuple[str, ...], column: str) -> dict[str, str]:
    """Value of ``column`` to the date of its removal."""
    frames = [files.read_parquet(_file(path), [column, "at"]).drop_nulls() for path in lists]
    return {value: at for frame in frames for value, at in frame.rows()}
