"""Drops images that a detector finds unsafe, or whose hash stands on a blocklist.

The article names pornographic and political images. What is regulated differs by place: the operator
brings the detector and the blocklist; the sample's stand-in detector only shows the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.errors import RecipeError
from ..pipeline.stage import StageModel, operational
from ..pipeline.stage import threshold as decides
from .detectors import fingerprint, load_detector
from .image_header import BadImage
from .images import MAX_PIXELS, VIEW_SHORT, details, load, map_images, view
from .pixels import Pixels


class ImageSafety(StageModel):
    """Asks a detector for the probability of unsafe classes and drops images above the threshold."""

    name: ClassVar[str] = "image_safety"
    adds: ClassVar[tuple[str, ...]] = ("nsfw", "unsafe_class", "blocklisted")
    on_images: ClassVar[bool] = True

    detector: str = Field("sample", description="sample (a stand-in), onnx:PATH, nudenet (if installed) or none")
    threshold: float = decides(0.5, "probability; more drops (COYO: 0.5)", ge=0, le=1)
    blocklist: str = Field("", description="file of 64-bit perceptual hashes in hex, one a line; empty: none")
    blocklist_bits: int = decides(4, "bits by which an image may differ from a blocklisted hash", ge=0, le=16)
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="pixels; what has more is not decoded; as decode.max_pixels")
    threads: int = operational(2, "threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Probability and class of the detector, distance to the blocklist; an image that cannot be decoded fails."""
        detector = load_detector(self.detector)
        if detector.side:
            shown = map_images(
                lambda pair: self._show(*pair, detector.side),
                list(zip(batch["image_sha256"], batch["image"], strict=True)),
                self.threads,
            )
            bad = [s if isinstance(s, BadImage) else None for s in shown]
            found = iter(detector.look([s for s in shown if not isinstance(s, BadImage)]))
            told = [None if b else next(found) for b in bad]
            batch = batch.with_columns(
                nsfw=pl.Series([round(t[0], 4) if t else None for t in told], dtype=pl.Float32),
                unsafe_class=pl.Series([t[1] if t and t[0] > 0 else None for t in told], dtype=pl.String),
                failure=pl.Series([f"image_{b.kind}" if b else None for b in bad], dtype=pl.String),
                detail=pl.Series(details(batch, [b.message if b else None for b in bad]), dtype=pl.String),
            )
        if not self.blocklist:
            return batch
        held = _hashes(self.blocklist)
        return batch.with_columns(
            blocklisted=pl.Series([_distance(value, held) for value in batch["phash"]], dtype=pl.UInt8)
        )

    def _show(self, sha256: str, data: bytes, side: int) -> Pixels | BadImage:
        """The picture at the size that the detector needs; the one that decode saw where that is enough."""
        try:
            if side <= VIEW_SHORT:
                return view(sha256, data, self.max_pixels)[1]
            return load(data, side, 4 * side, self.max_pixels)[1]
        except BadImage as error:
            return error

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {
            "image_unsafe": pl.col("nsfw") > self.threshold,
            "image_blocklisted": pl.col("blocklisted") <= self.blocklist_bits,
        }

    def resources(self) -> Mapping[str, str]:
        return {self.detector: fingerprint(self.detector)} | (
            {self.blocklist: fingerprint(f":{self.blocklist}")} if self.blocklist else {}
        )

    def check(self) -> None:
        load_detector(self.detector)
        if self.blocklist:
            _hashes(self.blocklist)

    def notices(self) -> tuple[str, ...]:
        if load_detector(self.detector).real:
            return ()
        return (
            "No real detector of unsafe images was used: the sample's stand-in finds only the sample's own marks. "
            "Give one with --set image_safety.detector=onnx:PATH.",
        )


def _distance(value: int | None, held: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> int | None:
    """Bits to the nearest of the ``held`` hashes; row by row: all pairs at once do not fit for long lists."""
    if value is None or not held.size:
        return None
    return int(np.bitwise_count(held ^ np.uint64(value)).min())


@lru_cache(4)
def _hashes(path: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    if not Path(path).is_file():
        raise RecipeError(f"image_safety.blocklist: no file at {path!r}")
    values = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        word = line.split("#")[0].strip()
        if word:
            try:
                values.append(int(word, 16))
            except ValueError:
                raise RecipeError(f"{path}:{number}: given {word!r}; expected up to 16 hex digits") from None
    return np.array(values, np.uint64)
