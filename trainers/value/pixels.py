"""The pictures of a run's pairs, small, dropped pairs included where they can still be had.

They are looked for in the run's part files (``--measure-all`` keeps those, with the images of dropped pairs), then in
its shards (kept pairs), then in the input, where the images' bytes came with it. What had to be fetched and was let
go is not fetched again: that would be another run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ...filters.image_header import BadImage
from ...filters.images import load
from ...filters.pixels import cv
from ...pipeline import files
from ...pipeline.errors import InputError, UsageError
from ...pipeline.replay import byte_places
from ...pipeline.sources import open_input, read_unit
from .subsets import Mask

Pixels = NDArray[np.uint8]
MAY_LACK = 0.01
"""Share of the pairs that may lack their picture before raw data would be something else."""


def small(data: bytes, side: int) -> Pixels | None:
    """(side, side, 3) RGB of an image file, squashed; None where it cannot be decoded, or is too large to try."""
    try:
        _, seen = load(data, 2 * side, 8 * side)
    except BadImage:
        return None
    return np.asarray(cv().resize(seen, (side, side), interpolation=cv().INTER_AREA), np.uint8)[..., ::-1]


def gather(run: str, rows: pl.DataFrame, told: dict[str, Any], side: int) -> tuple[Pixels, Mask]:
    """(n, side, side, 3) pictures of ``rows`` (the ledger's, with unit and ordinal) and which of them were found."""
    pixels = np.zeros((rows.height, side, side, 3), np.uint8)
    found = np.zeros(rows.height, np.bool_)
    numbered = rows.select("unit", "ordinal", "key").with_row_index("at")
    folder, places = byte_places(run, sorted(rows["unit"].unique()))
    _fill(pixels, found, _from_parts(folder, numbered.join(places, on=["unit", "ordinal"])), side)
    lacking = numbered.filter(pl.Series(~found & ever_seen(rows)))
    if lacking.height:
        _fill(pixels, found, _from_inputs(told["inputs"], lacking), side)
    return pixels, found


def ever_seen(rows: pl.DataFrame) -> Mask:
    """Rows that may have a picture: neither failed nor undecodable, as far as the run went with them."""
    broken = (pl.col("status") == "failed") | pl.col("blocked").is_not_null() | pl.col("decode_error").is_not_null()
    return rows.select(~broken.fill_null(False)).to_series().to_numpy()


def check(rows: pl.DataFrame, found: Mask) -> int:
    """How many pairs lack a picture that there must have been; ``UsageError`` where they are too many to go without."""
    lacking = int((ever_seen(rows) & ~found).sum())
    if lacking > MAY_LACK * rows.height:
        raise UsageError(
            f"the pictures of {lacking} of {rows.height} pairs are gone: the run dropped those pairs, kept no bytes, "
            "and its input carries none. Raw data cannot be trained on without them. Make the run with "
            "`curate run … --measure-all`, which keeps the images of dropped pairs (RUN/parts) and measures on"
        )
    return lacking


def _fill(pixels: Pixels, found: Mask, some: Iterable[tuple[int, bytes]], side: int) -> None:
    for at, data in some:
        picture = small(data, side)
        if picture is not None:
            pixels[at], found[at] = picture, True


def _from_parts(folder: str, places: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
    for (part,), group in places.sort("part", "offset").group_by("part", maintain_order=True):
        with files.open_read(files.join(folder, f"{part}.tar")) as handle:
            for at, offset, length in group.select("at", "offset", "length").iter_rows():
                handle.seek(offset)
                yield at, handle.read(length)


def _from_inputs(inputs: list[str], lacking: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
    """Bytes that came with the input; a pair counts where the reader gives the very key again."""
    wanted = set(lacking["unit"])
    for index, path in enumerate(inputs):
        try:
            units = [u for u in open_input(path, index) if u.id in wanted]
        except (InputError, UsageError):
            continue  # moved, or read with options that the run does not tell
        for unit in units:
            own = lacking.filter(pl.col("unit") == unit.id)
            for batch in read_unit(unit):
                some = batch.select("ordinal", "key", "image").drop_nulls().join(own, on=["ordinal", "key"])
                yield from some.select("at", "image").iter_rows()
