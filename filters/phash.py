"""64-bit perceptual hash: signs of the low frequencies of a 32 x 32 grey picture.

After Zauner (2010), as in the pHash and imagehash libraries, with the DCT done by OpenCV (eight times
imagehash's speed, benchmarks/images.py).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WEIGHTS = (np.uint64(1) << np.arange(64, dtype=np.uint64)[::-1]).astype(np.uint64)


def phash(pixels: NDArray[np.uint8]) -> int:
    """The hash of RGB (h, w, 3) or grey (h, w) pixels: equal pictures differ in few bits, others in about 32."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    # The first coefficient is the mean brightness; it would drag the median.
    bits = low > np.median(low[1:])
    return int(_WEIGHTS[bits].sum(dtype=np.uint64))
