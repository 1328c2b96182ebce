"""A picture's layout in 108 bytes: what confirms a match of perceptual hashes.

A hash of 64 bits is made of signs, and in a dark or plain picture signs turn on noise: two night
scenes with other things in them can be 4 bits apart, as far as a picture and its watermarked copy.
The means of luma and chroma in 6 x 6 cells tell them apart, and confirm a cropped copy whose hash
moved by 14 bits. Measured on drawn scenes and photos by ``benchmarks/duplicates.py grid``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .pixels import Pixels, cv, halved

SIDE = 6
CELLS = SIDE * SIDE
BYTES = 3 * CELLS

LUMA_RMS = 0.45
"""Largest root mean square difference of the cells' luma, each picture scaled to mean 0 and deviation 1."""
SAME_WORDS_RMS = 0.28
"""The same for pairs with one caption: pictures that the same words describe are alike before they are copies."""
FLAT = 4.0
"""Grey levels: deviation below which luma is noise and is not scaled up."""
CHROMA = 12.0
"""Grey levels that Cr or Cb of a cell may differ in; one cell in 36 may differ more (a logo)."""
FRAMED_CHROMA = 20.0
"""The same where a plain border was cut off: JPEG keeps chroma at half the size, so the border's bleeds in."""
BRIGHTNESS = 64.0
"""Grey levels that the mean luma may differ in."""

Grids = npt.NDArray[np.uint8]


def image_grid(pixels: Pixels) -> bytes:
    """The grid of a picture of any size: 36 bytes of Y, then of Cr, then of Cb, row by row."""
    cv2 = cv()
    small = cv2.resize(halved(pixels, 8 * SIDE), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return bytes(cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb).reshape(CELLS, 3).T.tobytes())


def same_layout(
    a: Grids, b: Grids, chroma: float = CHROMA, most: float | npt.NDArray[np.float32] = LUMA_RMS
) -> npt.NDArray[np.bool_]:
    """(pairs,) whether grids ``a`` and ``b``, both (pairs, 108), can be the same picture.

    ``chroma`` and ``most`` (one for all, or one a pair) stand for ``CHROMA`` and ``LUMA_RMS``.
    """
    luma = [_luma(g) for g in (a, b)]
    rms = np.sqrt(np.mean((luma[0][0] - luma[1][0]) ** 2, axis=1))
    bright = np.abs(luma[0][1] - luma[1][1])
    apart = np.abs(a[:, CELLS:].astype(np.int16) - b[:, CELLS:]).reshape(-1, 2, CELLS).max(axis=1)
    second = np.partition(apart, CELLS - 2, axis=1)[:, CELLS - 2]
    near: npt.NDArray[np.bool_] = (rms <= most) & (bright <= BRIGHTNESS) & (second <= chroma)
    return near


def turned_round(grids: Grids) -> Grids:
    """The grids (pictures, 108) of the mirrored pictures."""
    return grids.reshape(-1, 3, SIDE, SIDE)[..., ::-1].reshape(-1, BYTES)


def _luma(grids: Grids) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    values = grids[:, :CELLS].astype(np.float32)
    mean = values.mean(axis=1, keepdims=True)
    return (values - mean) / np.maximum(values.std(axis=1, keepdims=True), FLAT), mean[:, 0]
