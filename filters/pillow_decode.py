"""Decode the rarer kinds of image with Pillow. Runs inside the isolated process; see ``isolated.py``."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from . import icc
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
    "heif": ("HEIF",),
    "jp2": ("JPEG2000",),
    "ico": ("ICO",),
}


@dataclass(frozen=True)
class Decoded:
    """``header``: fields of ``image_header.Header``, upright; ``bgr``: ``shown`` (width, height) pixels, row by row."""

    header: dict[str, Any]
    shown: tuple[int, int]
    bgr: bytes


def decode(data: bytes, kind: str, short: int, long: int, max_pixels: int) -> Decoded:
    """The first frame: upright, in sRGB, transparency over white, shrunk to fit ``short`` and ``long``."""
    Image.MAX_IMAGE_PIXELS = None
    if kind == "heif" and not _reads_heif():
        raise BadImage("unsupported", "HEIF (HEIC) is decoded where pillow-heif is installed: pip install pillow-heif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_PLUGINS[kind]) as image:
                check_pixels(*image.size, max_pixels)
                frames = 1 if kind in ("jpeg", "ico") else int(getattr(image, "n_frames", 1))
                image.seek(0)
                image.load()
                facts = {"frames": frames, **_colour(image, kind, data)}
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
    return Decoded({"width": width, "height": height, **facts}, shown.size, shown.tobytes("raw", "BGR"))


@lru_cache(maxsize=1)
def _reads_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


_COLOURS = {"1": "grey", "L": "grey", "LA": "grey", "I": "grey", "F": "grey", "P": "palette", "PA": "palette"}
_COLOURS |= {"CMYK": "cmyk", "LAB": "lab"}
_DEPTHS = {"1": 1, "I": 32, "F": 32}


def _colour(image: Image.Image, kind: str, data: bytes) -> dict[str, Any]:
    """``colour``, ``depth``, ``profile``, ``alpha`` and ``transparency`` of an opened image, as in ``Header``."""
    mode, clear = image.mode, 0.0
    if image.has_transparency_data:
        histogram = image.convert("RGBA").getchannel("A").histogram()
        clear = round(1 - sum(level * n for level, n in enumerate(histogram)) / (255 * sum(histogram)), 4)
    return {
        "colour": "grey" if mode.startswith("I;16") else _COLOURS.get(mode, "rgb"),
        "depth": _stored_depth(image, kind, data) or (16 if mode.startswith("I;16") else _DEPTHS.get(mode, 8)),
        "profile": icc.description(image.info.get("icc_profile") or b""),
        "alpha": image.has_transparency_data,
        "transparency": clear,
    }


def _stored_depth(image: Image.Image, kind: str, data: bytes) -> int:
    """Bits of a sample as the file has them, where Pillow hands out 8 whatever they were; 0 where it is not said."""
    if kind == "tiff":
        bits = getattr(image, "tag_v2", {}).get(258, (0,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    at = data.find({"avif": b"pixi", "heif": b"pixi", "jp2": b"ihdr"}.get(kind, b"\0none"), 0, 1 << 16)
    if at < 0:
        return 0
    # pixi (ISO 23008-12, 6.5.6): version and flags, channels, bits of each; ihdr (15444-1, I.5.3.1): bits less one.
    return data[at + 9] if kind != "jp2" else (data[at + 14] & 0x7F) + 1


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
