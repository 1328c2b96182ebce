"""An image's bytes as scorers and captioners see it."""

from __future__ import annotations

import io

from PIL import Image


def opened(data: bytes) -> Image.Image:
    """The picture in RGB. What comes here was decoded before (``decode``), upright and in a known format."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")
