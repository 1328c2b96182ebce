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
from .detectors import Pixels, fingerprint, load_detector
from .images import map_images, view


class ImageSafety(StageModel):
    """Asks a detector for the probability of unsafe classes and drops images above the threshold."""

    name: ClassVar[str] = "image_safety"
    adds: ClassVar[tuple[str, ...]] = ("nsfw", "unsafe_class", "blocklisted")
    on_images: ClassVar[bool] = True

    detector: str = Field("sample", description="sample (a stand-in), onnx:PATH, nudenet (if installed) or none")
    threshold: float = decides(0.5, "probability; more drops (COYO: 0.5)", ge=0, le=1)
    blocklist: str = Field("", description="file of 64-bit perceptual hashes in hex, one a line; empty: none")
    blocklist_bits: int = decides(4, "bits by which an image may differ from a blocklisted hash", ge=0, le=16)
    threads: int = operational(2, "threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        pairs = list(zip(batch["image_sha256"], batch["image"], strict=True))
        pictures = map_images(_rgb, pairs, self.threads)
        found = load_detector(self.detector).look(pictures)
        batch = batch.with_columns(
            nsfw=pl.Series([round(p, 4) for p, _ in found], dtype=pl.Float32),
            unsafe_class=pl.Series([name if p > 0 else None for p, name in found], dtype=pl.String),
            blocklisted=pl.lit(None, dtype=pl.UInt8),
        )
        if not self.blocklist:
            return batch
        held = _hashes(self.blocklist)
        distance = np.bitwise_count(batch["phash"].to_numpy()[:, None] ^ held[None, :]).min(axis=1)
        return batch.with_columns(blocklisted=pl.Series(distance, dtype=pl.UInt8))

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {
            "image_unsafe": pl.col("nsfw") > self.threshold,
            "image_blocklisted": pl.col("blocklisted") <= self.blocklist_bits,
        }

    def resources(self) -> Mapping[str, str]:
        return {self.detector: fingerprint(self.detector)} | (
            {self.blocklist: fingerprint(f":{self.blocklist}")} if self.blocklist else {}
        )

    def notices(self) -> tuple[str, ...]:
        if load_detector(self.detector).real:
            return ()
        return (
            "No real detector of unsafe images was used: the sample's stand-in finds only the sample's own marks. "
            "Give one with --set image_safety.detector=onnx:PATH.",
        )


def _rgb(pair: tuple[str, bytes]) -> Pixels:
    return np.ascontiguousarray(view(*pair)[1][..., ::-1])


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
