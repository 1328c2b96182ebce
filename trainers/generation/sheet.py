"""Contact sheets: generated images in a grid, with their prompts where they go into a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SHOWN = 96
"""Pixels that a small image is enlarged to."""


def pixels(images: Tensor) -> NDArray[np.uint8]:
    """(n, 3, h, w) in [0, 1] to (n, h, w, 3) uint8."""
    return (images.permute(0, 2, 3, 1).numpy() * 255).round().clip(0, 255).astype(np.uint8)


def grid(images: NDArray[np.uint8], across: int = 8, gap: int = 2) -> NDArray[np.uint8]:
    """Rows of ``across`` images (n, h, w, 3) on white, small ones enlarged with their pixels kept."""
    factor = max(1, SHOWN // images.shape[1])
    large = images.repeat(factor, 1).repeat(factor, 2)
    n, h, w, _ = large.shape
    down = -(-n // across)
    sheet = np.full((down * (h + gap) - gap, across * (w + gap) - gap, 3), 255, np.uint8)
    for i, one in enumerate(large):
        top, left = i // across * (h + gap), i % across * (w + gap)
        sheet[top : top + h, left : left + w] = one
    return sheet


def png(image: NDArray[np.uint8]) -> bytes:
    """RGB as a PNG file."""
    return bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1])


def figures(images: NDArray[np.uint8], prompts: Sequence[str]) -> str:
    """Each image with its prompt below, as HTML that needs nothing beside it."""
    factor = max(1, SHOWN // images.shape[1])
    cells = []
    for one, prompt in zip(images.repeat(factor, 1).repeat(factor, 2), prompts, strict=True):
        held = f"data:image/png;base64,{base64.b64encode(png(one)).decode()}"
        cells.append(f'<figure><img alt="" src="{held}"><figcaption>{escape(prompt)}</figcaption></figure>')
    style = "<style>figure{display:inline-block;margin:4px;width:110px;vertical-align:top;font-size:11px}</style>"
    return style + "".join(cells)
