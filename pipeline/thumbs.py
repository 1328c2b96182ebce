"""Thumbnails for the report: a deterministic handful of pairs per reason.

Which pairs are shown depends on their keys alone, so that two runs of the same input show the same.
"""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import polars as pl

from ..filters.image_header import BadImage
from ..filters.images import load

PER_REASON = 8
"""Pairs kept per reason and unit; the report takes its choice over all units from these."""

LONGEST = 160
SCHEMA = {"unit": pl.String, "ordinal": pl.UInt32, "key": pl.String, "thumb": pl.Binary}


def thumbnail(image: bytes, longest: int = LONGEST) -> bytes | None:
    """A JPEG of at most ``longest`` pixels on the longer side, or None where the image does not decode."""
    try:
        pixels = load(image, longest, longest)[1]
    except BadImage:
        return None
    scale = longest / max(pixels.shape[:2])
    if scale < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    ok, out = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return out.tobytes() if ok else None


class Thumbs:
    """Collects, per reason, the pairs with the smallest keys among those that a unit dropped or failed."""

    def __init__(self) -> None:
        self.best: dict[str, list[tuple[str, str, int, bytes]]] = defaultdict(list)

    def offer(self, batch: pl.DataFrame) -> None:
        """Consider the rows of ``batch`` (with ``image``) that have a verdict."""
        if "image" not in batch.columns:
            return
        rows = batch.filter(pl.col("status").is_not_null() & pl.col("image").is_not_null())
        # Bombs and broken files have no thumbnail, and trying to decode one is what the size check prevents.
        rows = rows.filter(~pl.col("reason").str.contains("bomb|corrupt|unsupported"))
        for reason in rows["reason"].unique(maintain_order=True):
            held = self.best[reason]
            for key, unit, ordinal, image in (
                rows.filter(pl.col("reason") == reason)
                .sort("key")
                .head(PER_REASON)
                .select("key", "unit", "ordinal", "image")
                .rows()
            ):
                if len(held) == PER_REASON and key >= held[-1][0]:
                    break
                thumb = thumbnail(image)
                if thumb:
                    held.append((key, unit, ordinal, thumb))
                    held.sort()
                    del held[PER_REASON:]

    def frame(self) -> pl.DataFrame:
        """What was collected: unit, ordinal, key, thumb."""
        rows = sorted(row for held in self.best.values() for row in held)
        return pl.DataFrame([(u, o, k, t) for k, u, o, t in rows], schema=SCHEMA, orient="row")
