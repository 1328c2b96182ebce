"""Plain borders around a picture: what a frame, a letterbox or a template adds without changing the picture.

A second image hash and layout are taken inside them, so that a framed copy still meets its original.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .pixels import Pixels, cv

FLAT = 3.0
"""Grey levels: standard deviation along a line up to which it is plain (JPEG leaves a plain line under 2)."""
DRIFT = 3.0
"""Grey levels that a line's mean may be off the outermost line's."""
STEP = 12.0
"""Grey levels by which the picture must differ from its border at the edge ..."""
ALONG = 0.6
"""... along at least this share of the edge: a plain backdrop ends where a subject begins, a border all at once."""
BLOCK = 8
"""Lines over which JPEG's ringing reaches."""
LEAST = 0.4
"""Share of the side that must be left; a picture that is plain nearly all over has no border but a subject."""


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, half open, in pixels."""

    top: int
    bottom: int
    left: int
    right: int


def inside(grey: NDArray[np.uint8]) -> Box:
    """The box of a grey picture (height, width) that plain borders leave; the whole picture where there are none."""
    height, width = grey.shape
    top, bottom = _ends(grey, 1)
    if bottom - top < LEAST * height:
        return Box(0, height, 0, width)
    left, right = _ends(grey[top:bottom], 0)
    if right - left < LEAST * width:
        return Box(0, height, 0, width)
    return Box(top, bottom, left, right)


def cut(pixels: Pixels, box: Box) -> Pixels:
    """A view of ``pixels`` (height, width, ...) inside ``box``."""
    return pixels[box.top : box.bottom, box.left : box.right]


def _ends(grey: NDArray[np.uint8], axis: int) -> tuple[int, int]:
    """First line that is not of the border at the start, and one past the last, of rows (axis 1) or columns (0)."""
    cv2 = cv()
    lines = grey if axis else grey.T
    if not _plain(lines[:1]) and not _plain(lines[-1:]):
        return 0, len(lines)
    means = cv2.reduce(grey, axis, cv2.REDUCE_AVG, dtype=cv2.CV_64F).ravel()
    squares = cv2.reduce(grey, axis, cv2.REDUCE_SUM2, dtype=cv2.CV_64F).ravel() / grey.shape[axis]
    plain = squares - means**2 <= FLAT**2
    return _end(lines, means, plain), len(means) - _end(lines[::-1], means[::-1], plain[::-1])


def _plain(line: NDArray[np.uint8]) -> bool:
    """Whether an outermost line may be a border's; most pictures end here."""
    return bool(cv().meanStdDev(line)[1][0, 0] <= FLAT + 0.01)


def _end(lines: NDArray[np.uint8], means: NDArray[np.float64], plain: NDArray[np.bool_]) -> int:
    """Lines of the border at the start: plain, of one grey, and ending at an edge along most of the line."""
    if not plain[0]:
        return 0
    border = plain & (np.abs(means - means[0]) <= DRIFT)
    end = len(means) if border.all() else int(np.argmin(border))
    # JPEG spreads an edge over its block: the picture begins at the first line that differs along most of its length.
    beyond = np.abs(lines[end : end + BLOCK + 1].astype(np.float32) - means[0]) > STEP
    begins = np.flatnonzero(beyond.mean(axis=1) >= ALONG)
    return end + int(begins[0]) + 1 if len(begins) else 0
