"""From a file's bytes to upright 8-bit pixels at the size that is needed, whatever the file is.

JPEG, PNG and WebP are decoded by OpenCV in this process (the bulk of the web); every other kind, CMYK,
foreign colour profiles and whatever would take much memory go to Pillow in an isolated process whose
memory is capped (``isolated.py``). OpenCV is used without its own threads: the stages run one thread per image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import image_header, image_kind
from .image_header import BadImage, Header, check_pixels

Pixels = NDArray[np.uint8]
"""(height, width, 3), blue-green-red, upright, transparency laid over white."""

IN_PROCESS = frozenset(("jpeg", "png", "webp"))
ISOLATED = frozenset(("gif", "bmp", "tiff", "avif", "heif", "jp2", "ico"))

IN_PROCESS_BYTES = 256 << 20
"""Bytes: an image that takes more while it is decoded goes to the isolated process."""
MAX_SCANS = 100
"""Scans of a JPEG: encoders make up to 14; a small file of thousands keeps a decoder busy for minutes."""
_ROWS = 256


@lru_cache(maxsize=1)
def cv() -> Any:
    """OpenCV, quiet and single-threaded."""
    import cv2

    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def kind_of(data: bytes) -> str:
    """The kind of a file that can be decoded; BadImage (``unsupported``, ``corrupt``) says why not."""
    if not data:
        raise BadImage("corrupt", "the file is empty")
    kind = image_kind.sniff(data)
    if kind in IN_PROCESS or kind in ISOLATED:
        return str(kind)
    known = ", ".join(sorted(IN_PROCESS | ISOLATED))
    what = f"{kind} content" if kind else f"no known signature in {data[:8].hex()}"
    raise BadImage("unsupported", f"{what}; decoded are {known}")


def read_header(data: bytes, kind: str, max_pixels: int) -> Header:
    """The header of an image that is decoded in this process; bombs are refused first, then damage."""
    header = image_header.read(data, kind)
    check_pixels(*header.upright(), max_pixels)
    if header.jpeg and header.jpeg.scans > MAX_SCANS:
        message = f"{header.jpeg.scans:,} scans, at most {MAX_SCANS} are decoded: each is a pass over the whole picture"
        raise BadImage("bomb", message, header.upright())
    return header


def working_bytes(header: Header, short: int, long: int) -> int:
    """About how much memory decoding a ``jpeg``, ``png`` or ``webp`` takes, before it is shrunk.

    A progressive JPEG holds all its coefficients (2 bytes each) whatever the size asked for; a PNG with
    transparency or WebP its pixels and what they are laid over.
    """
    area = header.width * header.height
    if header.format == "jpeg":
        whole = header.jpeg is not None and header.jpeg.progressive
        return 3 * area // reduction(header.width, header.height, short, long) ** 2 + (6 * area if whole else 0)
    return area * ((4 * max(1, header.depth // 8) + 4) if header.alpha else 4)


def decode(data: bytes, header: Header, short: int, long: int, *, ships: bool = False) -> tuple[Pixels, float] | None:
    """Pixels and mean transparency of a ``jpeg``, ``png`` or ``webp``, shrunk while decoded where the codec can.

    The result fits ``short`` on its shorter and ``long`` on its longer side; it is never enlarged.
    None where OpenCV refuses the data: Pillow then says why, or reads it after all.
    """
    cv2 = cv()
    if header.format == "jpeg":
        flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
            reduction(header.width, header.height, short, long), cv2.IMREAD_REDUCED_COLOR_8
        )
    else:
        flag = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if raw is None:
        return None
    seen, transparency = flatten(raw)
    return upright(shrink(seen, short, long, ships=ships), header.orientation), transparency


def reduction(width: int, height: int, short: int, long: int) -> int:
    """The largest of 8, 4, 2, 1 by which the codec may divide both sides and still be at least as large as needed."""
    scale = fit(width, height, short, long)
    return next((by for by in (8, 4, 2) if scale * by <= 1), 1)


def fit(width: int, height: int, short: int, long: int) -> float:
    """The factor, at most 1, that brings the shorter side to ``short`` and the longer to ``long`` or below."""
    return min(1.0, short / min(width, height), long / max(width, height))


def shrink(pixels: Pixels, short: int, long: int, *, ships: bool = True) -> Pixels:
    """Made to fit; the same array where it fits already.

    Averaged over areas or, six times as fast, between neighbours: for measures down to half the size, for pixels that
    ship down to three quarters. (There it is as near to Lanczos' resampling as areas are: 39.5 dB on 80 photos, and
    38.2 against 39.6 at two thirds.)
    """
    height, width = pixels.shape[:2]
    scale = fit(width, height, short, long)
    if scale == 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    quick = scale >= (0.75 if ships else 0.5)
    out: Pixels = cv().resize(pixels, size, interpolation=cv().INTER_LINEAR if quick else cv().INTER_AREA)
    return out


def halved(pixels: NDArray[np.uint8], least: int) -> NDArray[np.uint8]:
    """Half the size as often as the shorter side stays at least ``least``; each pixel the mean of four.

    What is averaged over large areas costs a fifth of that when it starts from here. (Of an odd side the
    four overlap a little.)
    """
    while min(pixels.shape[:2]) >= 2 * least:
        height, width = pixels.shape[:2]
        pixels = cv().resize(pixels, (width // 2, height // 2), interpolation=cv().INTER_LINEAR)
    return pixels


def flatten(raw: NDArray[Any]) -> tuple[Pixels, float]:
    """8-bit blue-green-red from what OpenCV gives: grey, 16-bit, with or without transparency (over white).

    The second value is the mean transparency, 0 (opaque) to 1.
    """
    if raw.dtype == np.uint16:
        raw = (raw >> 8).astype(np.uint8)
    elif raw.dtype != np.uint8:
        raise BadImage("unsupported", f"pixels of type {raw.dtype}")
    if raw.ndim == 2 or raw.shape[2] == 1:
        grey: Pixels = cv().cvtColor(raw, cv().COLOR_GRAY2BGR)
        return grey, 0.0
    if raw.shape[2] == 3:
        return raw, 0.0
    transparency = round(1 - float(raw[..., -1].mean()) / 255, 4)
    out = np.empty((*raw.shape[:2], 3), np.uint8)
    for top in range(0, len(raw), _ROWS):  # in pieces: the products have 16 bits
        piece = raw[top : top + _ROWS]
        alpha = piece[..., -1:].astype(np.uint16)
        out[top : top + _ROWS] = (piece[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return out, transparency


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turned and mirrored as the EXIF orientation asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
