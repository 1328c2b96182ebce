"""Decodes each image once, measures it and drops what is no use: broken, too small, too long, moving.

Order matters: the header's size is judged before any pixel is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

import cv2
import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, operational, threshold
from .image_measures import SHORTER, measure
from .pixels import Undecodable, decode, read_header

FIELDS = (
    *("image_sha256", "format", "width", "height", "frames", "decode_error"),
    *("phash", "sharpness", "image_entropy", "saturation", "detail"),
)


class Decode(StageModel):
    """Reads the image's header and pixels, measures them, and drops broken, tiny, extreme or moving images."""

    name: ClassVar[str] = "decode"
    adds: ClassVar[tuple[str, ...]] = FIELDS[:-1]
    on_images: ClassVar[bool] = True

    max_pixels: int = Field(64_000_000, gt=0, description="pixels; a header that claims more is a bomb (64 MP cameras)")
    shorter_side: int = threshold(100, "pixels; a shorter side below drops (Zero: both sides > 100)", ge=1)
    max_aspect: float = threshold(3.0, "longer over shorter side; more drops (Wukong, DanQing: 1/3 to 3)", ge=1)
    min_entropy: float = threshold(0.0, "bits of the grey histogram; less drops (DanQing: 3)", ge=0)
    min_sharpness: float = threshold(0.0, "variance of the Laplacian; less drops", ge=0)
    allow_animated: bool = threshold(False, "keep the first frame of moving images")
    threads: int = operational(2, "decoding threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        rows = list(_pool(self.threads).map(self._one, batch["image"].to_list()))
        schema = {"image_sha256": pl.String, "format": pl.String, "width": pl.UInt32, "height": pl.UInt32}
        schema |= {"frames": pl.UInt32, "decode_error": pl.String, "phash": pl.UInt64, "sharpness": pl.Float32}
        schema |= {"image_entropy": pl.Float32, "saturation": pl.Float32, "detail": pl.String}
        told = pl.DataFrame(rows, schema=schema, orient="row")
        return batch.drop("detail", strict=False).hstack(told)

    def reasons(self) -> Mapping[str, pl.Expr]:
        short, long = pl.min_horizontal("width", "height"), pl.max_horizontal("width", "height")
        error = pl.col("decode_error")
        return {
            "image_missing": error == "image_missing",
            "image_bomb": error == "image_bomb",
            "image_unsupported": error == "image_unsupported",
            "image_animated": (pl.col("frames") > 1) & pl.lit(not self.allow_animated),
            "image_too_small": short < self.shorter_side,
            "image_bad_aspect": long > self.max_aspect * short,
            "image_corrupt": error == "image_corrupt",
            "image_flat": pl.col("image_entropy") < self.min_entropy,
            "image_blurred": pl.col("sharpness") < self.min_sharpness,
        }

    def _one(self, data: bytes | None) -> tuple[Any, ...]:
        """One row of ``FIELDS``."""
        if not data:
            return (
                (None,) * 5
                + ("image_missing",)
                + (None,) * 4
                + ("the pair has no image bytes; is fetch in the recipe?",)
            )
        digest = hashlib.sha256(data).hexdigest()
        try:
            header = read_header(data, self.max_pixels)
        except Undecodable as error:
            return (digest, None, None, None, None, error.reason, None, None, None, None, str(error))
        head = (digest, header.kind, header.width, header.height, header.frames)
        try:
            seen = measure(decode(data, header, SHORTER))
        except Undecodable as error:
            return (*head, error.reason, None, None, None, None, str(error))
        return (
            *head,
            None,
            seen.phash,
            round(seen.sharpness, 2),
            round(seen.image_entropy, 4),
            round(seen.saturation, 4),
            None,
        )


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    cv2.setNumThreads(1)  # one image a thread; OpenCV's own threads would fight with these
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")
