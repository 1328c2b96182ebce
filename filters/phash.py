"""A 64-bit perceptual hash: alike for the same picture in another size or compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .pixels import cv, halved

SIDE, LOW = 32, 8


def phashes(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """The hash of a grey image of any size, and that of its mirror image.

    The lowest 8 x 8 coefficients of the DCT-II of the image at 32 x 32, each compared with their
    median; row by row, first bit highest, as pHash (Zauner 2010) and the imagehash package lay it out.
    Coefficients are rounded to 0.01 first: in a flat image they are noise of the arithmetic. Mirroring
    left and right turns the sign of the odd horizontal frequencies and leaves the rest.
    """
    cv2 = cv()
    small = cv2.resize(halved(grey, 4 * SIDE), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.round(cv2.dct(small)[:LOW, :LOW], 2)
    return _bits(low), _bits(low * _MIRROR)


_MIRROR = np.where(np.arange(LOW) % 2, -1, 1).astype(np.float32)


def _bits(low: NDArray[np.float32]) -> int:
    ordered = np.sort(low, axis=None)  # np.median does the same for ten times the price
    middle = (ordered[LOW * LOW // 2 - 1] + ordered[LOW * LOW // 2]) / 2
    return int.from_bytes(np.packbits(low > middle).tobytes(), "big")
