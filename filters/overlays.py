"""What was laid over a picture: text, QR codes, a watermark that is repeated over all of it.

Classical measures, no trained model; ``benchmarks/overlays.py`` prints how well each tells pictures with
such things from the same pictures without. All are measured on the grey view that ``decode`` made; only where
that is full of sharp edges is the picture read again at a size at which QR codes can be told.

- Text has strong edges across *and* along its lines, close together; most of a photo has neither, and a fence
  or hair has one of them. (Epshtein and others, CVPR 2010, name the same two cues.) Text as dark as what lies
  behind it is not seen.
- A mark that is repeated is an echo: its cepstrum, the spectrum of the logarithm of the spectrum, has a peak at
  the distance between two of them (Bogert, Healy and Tukey 1963). A single faint mark is not seen, a tiled wall
  or facade is.
- QR codes are found by OpenCV's detector, which looks for their three corners.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ..pipeline.columns import COLUMNS, without
from ..pipeline.stage import StageModel, operational, threshold
from .image_header import BadImage
from .images import MAX_PIXELS, details, load, map_images, view
from .pixels import Pixels, cv

Grey = NDArray[np.uint8]

_CELL = 4
_WINDOW = (8, 4)
"""Cells across and down over which edges are averaged: three characters of a small line."""
_SHARP = 24.0
"""Grey levels from pixel to pixel, in both directions, above which a window counts as text."""
_CODE = 36.0
"""The same above which it may hold a QR code: all that were drawn have more than 47, one photo in a hundred more."""
_CODE_SHORT = 512
"""Pixels of the shorter side at which QR codes are looked for: four a module where a code is a quarter of it."""

_SIDE = 256
_CLIP = 20
"""Most that one edge counts in the cepstrum, so that faint marks weigh as much as what is in the picture."""
_NEAREST, _FARTHEST = 20, 102
"""Pixels between two marks, at the viewing size."""
_PEAK, _SPREAD = 12.0, 1.0
"""Standard deviations of a peak at which the likelihood is one half, and that make it 0.73."""


class Overlay(NamedTuple):
    """``text_share`` of the area, ``qr_codes``, and the likelihood of a repeated ``watermark`` (0 to 1)."""

    text_share: float
    qr_codes: int
    watermark: float


def overlay(seen: Pixels, data: bytes, max_pixels: int = MAX_PIXELS) -> Overlay:
    """What lies over a picture: ``seen`` at the viewing size, and its file for a closer look."""
    grey = cv().cvtColor(seen, cv().COLOR_BGR2GRAY)
    sharp = sharpness_map(grey)
    codes = 0
    if sharp.max() > _CODE:
        closer = load(data, _CODE_SHORT, 4 * _CODE_SHORT, max_pixels)[1]
        codes = qr_codes(cv().cvtColor(closer, cv().COLOR_BGR2GRAY))
    return Overlay(round(float((sharp > _SHARP).mean()), 4), codes, watermark(grey))


def sharpness_map(grey: Grey) -> NDArray[np.float32]:
    """(height / 4, width / 4): the mean step from pixel to pixel around each cell, across or along, the lesser one."""
    cv2 = cv()
    height, width = (max(1, side // _CELL) for side in grey.shape)
    steps = []
    for a, b in ((grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1])):
        if not a.size:
            return np.zeros((height, width), np.float32)
        cells = cv2.resize(cv2.absdiff(a, b), (width, height), interpolation=cv2.INTER_AREA)
        steps.append(cv2.boxFilter(cells, cv2.CV_32F, _WINDOW))
    return np.asarray(np.minimum(*steps), np.float32)


def qr_codes(grey: Grey) -> int:
    """How many QR codes a grey picture shows; what they say is not read."""
    cv2 = cv()
    try:
        found, corners = _detector().detectMulti(grey)
    except cv2.error:  # some noise makes it build a matrix of size 0
        return 0
    return len(corners) if found and corners is not None else 0


@lru_cache(maxsize=1)
def _detector() -> Any:
    return cv().QRCodeDetectorAruco()


def watermark(grey: Grey) -> float:
    """The likelihood, 0 to 1, that something is repeated over the middle of the picture at one distance."""
    cv2 = cv()
    top, left = (max(0, (side - _SIDE) // 2) for side in grey.shape)
    edges = np.zeros((_SIDE, _SIDE), np.float32)
    middle = cv2.Laplacian(grey[top : top + _SIDE, left : left + _SIDE], cv2.CV_32F)
    edges[: middle.shape[0], : middle.shape[1]] = middle.clip(-_CLIP, _CLIP)
    # OpenCV packs the spectrum of a real picture so that its power and the logarithm of that stay packed alike.
    spectrum = cv2.dft(edges * _fade())
    level = cv2.log(cv2.mulSpectrums(spectrum, spectrum, 0, conjB=True) + 1)
    echo = np.abs(cv2.dft(level, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT)[: _FARTHEST + 1])
    apart = _apart()
    spread = float(cv2.meanStdDev(echo, mask=apart)[1][0, 0])
    if spread == 0:
        return 0.0
    peak = float(cv2.minMaxLoc(echo, mask=apart)[1]) / spread
    return round(float(1 / (1 + np.exp((_PEAK - peak) / _SPREAD))), 4)


@lru_cache(maxsize=1)
def _fade() -> NDArray[np.float32]:
    """Hann's window: a picture's own border is no echo."""
    one = np.hanning(_SIDE).astype(np.float32)
    return one * one[:, None]


@lru_cache(maxsize=1)
def _apart() -> NDArray[np.uint8]:
    """255 at the distances down (rows) and across (columns, those to the left last) where a peak counts.

    One half plane, for the other is the same; not straight down or across, where rows of a window or a fence lie.
    """
    down = np.arange(_FARTHEST + 1)[:, None]
    across = np.minimum(np.arange(_SIDE), _SIDE - np.arange(_SIDE))
    far = (down**2 + across**2 >= _NEAREST**2) & (across <= _FARTHEST)
    return np.where(far & (down > 1) & (across > 1), 255, 0).astype(np.uint8)


class Overlays(StageModel):
    """Measures text, QR codes and repeated watermarks laid over images; drops none unless a limit is set."""

    name: ClassVar[str] = "overlays"
    adds: ClassVar[tuple[str, ...]] = Overlay._fields
    on_images: ClassVar[bool] = True

    max_text_share: float = threshold(1.0, "share of the area under text; more drops (1: never)", ge=0, le=1)
    max_qr_codes: int = threshold(255, "QR codes; more drops (255: never)", ge=0, le=255)
    max_watermark: float = threshold(1.0, "likelihood of a repeated watermark; more drops (1: never)", ge=0, le=1)
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="pixels; what has more is not decoded; as decode.max_pixels")
    threads: int = operational(2, "threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """One ``Overlay`` per image; an image that cannot be decoded fails."""

        def one(pair: tuple[str, bytes]) -> Overlay | BadImage:
            try:
                return overlay(view(*pair, self.max_pixels)[1], pair[1], self.max_pixels)
            except BadImage as error:
                return error

        pairs = list(zip(batch["image_sha256"], batch["image"], strict=True))
        found = map_images(one, pairs, self.threads)
        columns = {name: [getattr(f, name, None) for f in found] for name in self.adds}
        columns["failure"] = [f"image_{f.kind}" if isinstance(f, BadImage) else None for f in found]
        columns["detail"] = details(batch, [f.message if isinstance(f, BadImage) else None for f in found])
        types = {name: COLUMNS[name].dtype if name in COLUMNS else pl.String for name in columns}
        return without(batch, *columns).hstack([pl.Series(n, v, types[n]) for n, v in columns.items()])

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {
            "image_qr_code": pl.col("qr_codes") > self.max_qr_codes,
            "image_text": pl.col("text_share") > self.max_text_share,
            "image_watermarked": pl.col("watermark") > self.max_watermark,
        }
