"""A pair's picture: from the part files where the run kept them, its shard, or the report's thumbnails.

Names of files come from the run's own listing, never from a row or a request, and what leaves here is a JPEG that
was made anew from the pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import IO, Any

import polars as pl

from ...pipeline import files
from ...pipeline.finish import REMOVED
from ...pipeline.measure import PLACE
from ...pipeline.thumbs import LONGEST, thumbnail
from ..ustar import BLOCK

SIZES = {"small": 240, "large": 1024}
"""Pixels of the longer side."""


class Pictures:
    """Where the bytes of a run's pairs are found."""

    def __init__(self, run: str) -> None:
        self.parts, self.shards = files.join(run, "parts"), files.join(run, "shards")
        self.units = frozenset(n.removesuffix(".parquet") for n in files.names(self.parts, ".parquet"))
        self.tars = frozenset(files.names(self.shards, ".tar"))
        path = files.join(run, "thumbs.parquet")
        held = files.read_parquet(path) if files.exists(path) else pl.DataFrame(schema={"unit": pl.String})
        self.thumbs = {(u, o): t for u, o, t in held.select("unit", "ordinal", "thumb").rows()} if held.height else {}
        # Caches of this run's files; the object lives as long as the run stays as it is.
        self._places = lru_cache(32)(self._unit_places)
        self._members = lru_cache(16)(self._shard_members)
        self.shown = lru_cache(1024)(self._shown)

    def bytes_of(self, row: dict[str, Any]) -> bytes | None:
        """The image of a row (with unit, ordinal, key, shard, stage) as the run holds it, if it does."""
        if row["stage"] == REMOVED:
            return None
        found = self._places(row["unit"]).get(row["ordinal"]) if row["unit"] in self.units else None
        if found is None and row["shard"] in self.tars:
            place = self._members(row["shard"]).get(row["key"])
            found = (files.join(self.shards, row["shard"]), *place) if place else None
        if found is None:
            return None
        path, offset, length = found
        with files.open_read(path) as handle:
            handle.seek(offset)
            data = handle.read(length)
        return data if len(data) == length else None

    def _shown(
        self, unit: str, ordinal: int, key: str, shard: str | None, stage: str | None, size: str
    ) -> bytes | None:
        """A JPEG to look at, ``size`` being one of ``SIZES``; None where there is no picture."""
        if stage == REMOVED:
            return None
        row = {"unit": unit, "ordinal": ordinal, "key": key, "shard": shard, "stage": stage}
        data = self.bytes_of(row)
        made = thumbnail(data, SIZES.get(size, LONGEST)) if data else None
        return made or self.thumbs.get((unit, ordinal))

    def _unit_places(self, unit: str) -> dict[int, tuple[str, int, int]]:
        rows = files.read_parquet(files.join(self.parts, f"{unit}.parquet"), ["ordinal", *PLACE])
        held = {name: files.join(self.parts, name) for name in files.names(self.parts, ".tar")}
        return {
            ordinal: (held[f"{part}.tar"], offset, length)
            for ordinal, part, offset, length in rows.select("ordinal", *PLACE).rows()
            if part is not None and f"{part}.tar" in held
        }

    def _shard_members(self, name: str) -> dict[str, tuple[int, int]]:
        with files.open_read(files.join(self.shards, name)) as handle:
            return images_of(handle)


def images_of(handle: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Key to (offset, length) of each ``KEY.jpg`` in a plain tar; reads the headers alone, up to one that is none."""
    found: dict[str, tuple[int, int]] = {}
    at = 0
    while len(header := handle.read(BLOCK)) == BLOCK and header[257:262] == b"ustar":
        try:
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            break
        name = header[:100].rstrip(b"\0").decode("utf-8", "replace")
        if name.endswith(".jpg"):
            found[name.removesuffix(".jpg")] = (at + BLOCK, size)
        at += BLOCK + size + -size % BLOCK
        handle.seek(at)
    return found
