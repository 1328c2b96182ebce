"""Decode the rarer kinds of image with Pillow. Runs inside the isolated process; see ``isolated.py``."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .image_header import BadImage, check_pixels

# Only these decoders are ever tried: Pillow's full list includes some that start other programs.
_PLUGINS = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
    "tiff": ("TIFF",),
    "avif": ("AVIF",),
    "jp2": ("JPEG2000",),
    "ico": ("ICO",),
}


@dataclass(frozen=True)
class Decoded:
    """``width`` and ``height`` of the upright image before it was shrunk; ``bgr`` is ``shown`` pixels, row by row."""

    width: int
    height: int
    frames: int
    shown: tuple[int, int]
    bgr: bytes


def decode(data: bytes, kind: str, short: int, long: int, max_pixels: int) -> Decoded:
    """The first frame: upright, in sRGB, transparency over white, shrunk to fit ``short`` and ``long``."""
    Image.MAX_IMAGE_PIXELS = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_PLUGINS[kind]) as image:
                check_pixels(*image.size, max_pixels)
                frames = 1 if kind in ("jpeg", "ico") else int(getattr(image, "n_frames", 1))
                image.seek(0)
                image.load()
                shown = ImageOps.exif_transpose(_rgb(image))
        except BadImage:
            raise
        except MemoryError as error:
            raise BadImage("bomb", "decoding needs more memory than the isolated decoder may use") from error
        except UnidentifiedImageError as error:
            raise BadImage("corrupt", f"the {kind} header cannot be read") from error
        except Exception as error:
            raise BadImage("corrupt", f"{kind} decoder: {type(error).__name__}: {error}"[:300]) from error
    width, height = shown.size
    scale = min(1.0, short / min(width, height), long / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shown = shown.resize(size, Image.Resampling.BOX)
    return Decoded(width, height, frames, shown.size, shown.tobytes("raw", "BGR"))


def _rgb(image: Image.Image) -> Image.Image:
    exif = image.getexif()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        if image.mode == "F":
            raise BadImage("unsupported", "pixels are floating-point numbers")
        out = image.convert("I").point(lambda level: level * (1 / 256)).convert("L").convert("RGB")
    elif image.has_transparency_data:
        out = Image.new("RGBA", image.size, "white")
        out.alpha_composite(image.convert("RGBA"))
        out = out.convert("RGB")
    else:
        out = _to_srgb(image) or image.convert("RGB")
    # A new image has no EXIF: the orientation has to come along to be applied.
    if turn := exif.get(0x0112):
        out.getexif()[0x0112] = turn
    return out


def _to_srgb(image: Image.Image) -> Image.Image | None:
    """The image through its embedded colour profile; None where there is none that fits."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("L", "RGB", "CMYK") or not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
