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


def measure(half: Pixels, grey: NDArray[np.uint8]) -> Measures:
    """All measures of one image from its grey form (height, width) and its colours (height, width, 3), also halved.

    Sharpness is the variance of the 3 x 3 Laplacian (Pech-Pacheco and others, ICPR 2000); entropy is
    Shannon's, of the 256-bin grey histogram; saturation is the mean S of HSV, which colour half the size
    tells as well. Values are rounded to four decimals so that no decision hangs on the last bit.
    """
    cv2 = cv()
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    mean = cv2.sumElems(edges)[0] / edges.size
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - mean**2
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).astype(np.float64)
    entropy = np.log2(grey.size) - (counts * np.log2(np.maximum(counts, 1))).sum() / grey.size
    saturation = cv2.mean(cv2.cvtColor(half, cv2.COLOR_BGR2HSV))[1] / 255
    return Measures(
        round(float(variance), 4),
        abs(round(float(entropy), 4)),
        round(float(saturation), 4),
    )
