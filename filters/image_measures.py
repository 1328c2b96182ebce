"""Measures of one image's pixels, taken at the viewing size of ``pixels.py``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .pixels import Pixels, cv


class Measures(NamedTuple):
    """``sharpness`` in squared grey levels, ``entropy`` in bits (0 to 8), ``saturation`` as a share (0 to 1)."""

    sharpness: float
    entropy: float
    saturation: float


def measure(pixels: Pixels, grey: NDArray[np.uint8]) -> Measures:
    """All measures of one image (height, width, 3) from its grey form (height, width) and its HSV form.

    Sharpness is the variance of the 3 x 3 Laplacian (Pech-Pacheco and others, ICPR 2000); entropy is
    Shannon's, of the 256-bin grey histogram; saturation is the mean S of HSV. Values are rounded to
    four decimals so that no decision hangs on the last bit.
    """
    cv2 = cv()
    deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0]
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256])
    share = counts[counts > 0].astype(np.float64) / grey.size
    saturation = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV))[1] / 255
    return Measures(
        round(float(deviation) ** 2, 4),
        abs(round(float(-(share * np.log2(share)).sum()), 4)),
        round(float(saturation), 4),
    )
