"""From file bytes to pixels: header first, decode at the size needed, memory bounded.

OpenCV reads the common kinds (its JPEG decoder shrinks while it loads); Pillow reads the rest. The
size in the header is checked before any pixel is decoded, so a small file that claims 30,000 x 30,000
pixels costs nothing.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .sniff import image_kind

Pixels = NDArray[np.uint8]

ORIENTATION = 0x0112
_FAST = frozenset(("jpeg", "png", "webp", "bmp"))
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, by the header, and gives a reason instead of an exception


class Undecodable(Exception):
    """An image that cannot be decoded; ``reason`` is image_corrupt, image_bomb or image_unsupported."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What the header says; width and height as a viewer shows them (orientation applied)."""

    kind: str
    width: int
    height: int
    frames: int
    mode: str
    orientation: int


def read_header(data: bytes, max_pixels: int) -> Header:
    """The header of an image; ``Undecodable`` where there is none or it claims more than ``max_pixels``."""
    kind = image_kind(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > max_pixels:
                    told = f"{width} x {height} pixels claimed by {len(data)} bytes; at most {max_pixels} are decoded"
                    raise Undecodable("image_bomb", told)
                frames = int(getattr(image, "n_frames", 1)) if kind in ("gif", "webp", "png", "avif", "tiff") else 1
                turned = _orientation(image)
                kind = kind or (image.format or "").lower()
                mode = image.mode
    except Undecodable:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on hostile files
        reason = "image_unsupported" if kind in (None, "svg", "jxl", "heif", "psd") else "image_corrupt"
        raise Undecodable(reason, f"{kind or 'unknown kind'}: {_words(error)}; begins with {data[:8]!r}") from None
    if width < 1 or height < 1:
        raise Undecodable("image_corrupt", f"{width} x {height} pixels")
    if turned >= 5:
        width, height = height, width
    return Header(kind or "unknown", width, height, frames, mode, turned)


def _words(error: Exception) -> str:
    """The error in words, without memory addresses: the ledger of two runs must be equal."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")[:300]


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(data: bytes, header: Header, shorter: int = 0) -> Pixels:
    """RGB pixels (h, w, 3), upright, transparency on white; with ``shorter`` at least that short side, cheaply.

    Raises ``Undecodable`` where the data is broken or cut short.
    """
    shrink = 1
    if shorter and header.kind == "jpeg":
        while shrink < 8 and min(header.width, header.height) // (2 * shrink) >= shorter:
            shrink *= 2
    if header.kind in _FAST and header.frames == 1 and header.mode in ("RGB", "L") and _complete(data, header.kind):
        flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
            shrink, cv2.IMREAD_REDUCED_COLOR_8
        )
        try:
            # OpenCV turns the picture upright itself, by the same EXIF tag.
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error as error:
            raise Undecodable("image_corrupt", str(error)[:300]) from None
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return _by_pillow(data, shrink, header)


def _complete(data: bytes, kind: str) -> bool:
    """Whether the file has its end: OpenCV fills what is missing with grey and says nothing."""
    if kind == "jpeg":
        return data.rfind(b"\xff\xd9", max(0, len(data) - 65536)) > 0
    if kind == "png":
        return b"IEND" in data[-64:]
    if kind == "webp":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return True


def _by_pillow(data: bytes, shrink: int, header: Header) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if shrink > 1:
                    image.draft("RGB", (image.width // shrink, image.height // shrink))
                image.load()
                return np.asarray(_rgb(ImageOps.exif_transpose(image)), np.uint8)
    except Exception as error:  # as above: whatever a decoder raises, this image is broken
        raise Undecodable("image_corrupt", f"{header.kind}: {_words(error)}") from None


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16-bit scaled down, CMYK through its own conversion, transparency on white."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, np.float64)
        low, high = 0.0, 65535.0 if image.mode.startswith("I;16") else float(values.max() or 1)
        grey = np.clip((values - low) / max(1e-9, high - low) * 255, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer: Any = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")
