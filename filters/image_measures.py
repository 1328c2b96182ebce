"""Measures of a picture at a small size: sharpness, entropy, saturation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .phash import phash

SHORTER = 256
"""Shorter side at which measures are taken: one scale for all images, so that thresholds mean one thing."""


@dataclass(frozen=True)
class Measures:
    """What is measured on one picture; the names are those of the ledger's columns."""

    phash: int
    sharpness: float
    image_entropy: float
    saturation: float


def measure(pixels: NDArray[np.uint8]) -> Measures:
    """Measures of RGB pixels (h, w, 3).

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000; DanQing drops below a bound), entropy
    that of the grey histogram in bits (DanQing: at least 3), saturation the mean of HSV's S.
    """
    scale = SHORTER / min(pixels.shape[:2])
    if scale < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return Measures(
        phash=phash(grey.astype(np.uint8, copy=False)),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        image_entropy=float(-(share * np.log2(share)).sum()),
        saturation=float(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255),
    )
