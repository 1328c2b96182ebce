"""What tells whether two files show one picture: hash and layout of the whole, of its mirror, of what a frame holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .borders import cut, inside
from .image_grid import image_grid
from .phash import phashes
from .pixels import Pixels


class Fingerprint(NamedTuple):
    """``phash`` and ``phash_mirrored`` (64 bits), ``image_grid`` (108 bytes), ``border`` (share of the area).

    ``phash_inside`` and ``image_grid_inside`` are those of the picture within its plain borders, None where
    it has none: a framed copy and its original then meet, and no picture depends on whether a border is seen.
    """

    phash: int
    phash_mirrored: int
    phash_inside: int | None
    image_grid: bytes
    image_grid_inside: bytes | None
    border: float


def fingerprint(pixels: Pixels, grey: NDArray[np.uint8], half: Pixels | None = None) -> Fingerprint:
    """The fingerprint of a picture (height, width, 3) and its grey form (height, width), both 8 bits.

    ``half`` is the picture ``halved``, where the caller has that already.
    """
    whole, mirrored = phashes(grey)
    box = inside(grey)
    picture = cut(grey, box)
    border = round(1 - picture.size / grey.size, 4)
    grid = image_grid(pixels if half is None else half)
    if not border:
        return Fingerprint(whole, mirrored, None, grid, None, 0.0)
    return Fingerprint(whole, mirrored, phashes(picture)[0], grid, image_grid(cut(pixels, box)), border)
