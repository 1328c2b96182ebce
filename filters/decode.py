"""Decode every image once: is it whole, what size is it, and what do its pixels look like.

Drops what is no decodable image, decompression bombs, damaged files, animations, images that are too
small and images that are too long. All measures come from one decode at the viewing size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.columns import COLUMNS, without
from ..pipeline.stage import StageModel, operational, threshold
from . import image_kind
from .fingerprint import fingerprint
from .image_header import BadImage
from .image_measures import measure
from .images import MAX_PIXELS, VIEW_SHORT, details, map_images, view
from .pixels import cv, halved

_MISSING = "the pair reached decode without image bytes: put fetch before it in the recipe"


@dataclass
class Look:
    """What ``look`` finds in one file; None where it did not get that far."""

    image_sha256: str
    format: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    colour_space: str | None = None
    colour_profile: str | None = None
    bit_depth: int | None = None
    transparency: float | None = None
    decode_error: str | None = None
    phash: int | None = None
    phash_mirrored: int | None = None
    phash_inside: int | None = None
    sharpness: float | None = None
    image_entropy: float | None = None
    saturation: float | None = None
    image_grid: bytes | None = None
    image_grid_inside: bytes | None = None
    border: float | None = None


def look(data: bytes, max_pixels: int) -> Look:
    """Header, then pixels, then measures of one file; damage is a value here, never an exception."""
    found = Look(hashlib.sha256(data).hexdigest(), image_kind.sniff(data))
    try:
        header, seen = view(found.image_sha256, data, max_pixels)
    except BadImage as error:
        found.decode_error = f"{error.kind}: {error.message}"
        found.width, found.height = error.size or (None, None)
        return found
    found.width, found.height = header.upright()
    found.frames = header.frames
    found.colour_space, found.colour_profile = header.colour, header.profile or None
    found.bit_depth, found.transparency = header.depth or None, header.transparency
    grey = cv().cvtColor(seen, cv().COLOR_BGR2GRAY)
    half = halved(seen, VIEW_SHORT // 2)
    found.sharpness, found.image_entropy, found.saturation = measure(half, grey)
    for name, value in fingerprint(seen, grey, half)._asdict().items():
        setattr(found, name, value)
    return found


class Decode(StageModel):
    """Decodes and measures images; drops damaged, dangerous, animated, small and overlong ones."""

    name: ClassVar[str] = "decode"
    adds: ClassVar[tuple[str, ...]] = tuple(Look.__annotations__)
    on_images: ClassVar[bool] = True

    max_pixels: int = Field(
        MAX_PIXELS,
        gt=0,
        description="pixels; a header that claims more is a bomb (64 MP cameras)",
    )
    shorter_side: int = threshold(100, "pixels; a shorter side below drops (Zero: both sides > 100)", ge=1)
    max_aspect: float = threshold(3.0, "longer over shorter side; more drops (Wukong, DanQing: 1/3 to 3)", ge=1)
    max_border: float = threshold(1.0, "share of the area that plain borders may take; more drops (1: never)", ge=0)
    min_entropy: float = threshold(0.0, "bits of the grey histogram; less drops (DanQing: 3)", ge=0)
    min_sharpness: float = threshold(0.0, "variance of the Laplacian at the viewing size; less drops", ge=0)
    max_transparency: float = threshold(1.0, "mean transparency, laid over white; more drops (1: never)", ge=0, le=1)
    allow_animated: bool = threshold(False, "keep the first frame of moving images")
    threads: int = operational(2, "decoding threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """One ``Look`` per image; a row without bytes fails."""
        images = batch["image"].to_list()
        looks = map_images(lambda data: None if data is None else look(data, self.max_pixels), images, self.threads)
        found = {name: [getattr(one, name, None) for one in looks] for name in self.adds}
        found["failure"] = [None if one else "image_missing" for one in looks]
        found["detail"] = details(batch, [one.decode_error if one else _MISSING for one in looks])
        types = {name: COLUMNS[name].dtype if name in COLUMNS else pl.String for name in found}
        return without(batch, *found).hstack([pl.Series(name, values, types[name]) for name, values in found.items()])

    def reasons(self) -> Mapping[str, pl.Expr]:
        error = pl.col("decode_error").str
        short, long = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
        return {
            "image_unsupported": error.starts_with("unsupported:"),
            "image_bomb": error.starts_with("bomb:"),
            "image_corrupt": error.starts_with("corrupt:"),
            "image_animated": (pl.col("frames") > 1) & pl.lit(not self.allow_animated),
            "image_too_small": short < self.shorter_side,
            "image_bad_aspect": long > short * self.max_aspect,
            "image_bordered": pl.col("border") > self.max_border,
            "image_transparent": pl.col("transparency") > self.max_transparency,
            "image_flat": pl.col("image_entropy") < self.min_entropy,
            "image_blurred": pl.col("sharpness") < self.min_sharpness,
        }
