"""What a file says about itself before anything is decoded: kind, size, frames, orientation.

JPEG, PNG and WebP are read here by their container structure alone, so that a decompression bomb is
refused for the price of its header. Other kinds are opened in the isolated process (``isolated.py``).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import exif, icc
from .jpeg_file import JpegFile, MalformedJpeg
from .jpeg_file import parse as parse_jpeg


class BadImage(Exception):
    """An image that cannot be used; ``kind`` is ``corrupt``, ``bomb`` or ``unsupported``.

    ``size`` is its upright width and height where the header told them.
    """

    def __init__(self, kind: str, message: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(kind, message, size)
        self.kind, self.message, self.size = kind, message, size


@dataclass(frozen=True)
class Header:
    """``width`` and ``height`` in pixels as stored (before ``orientation`` is applied).

    ``colour`` is grey, rgb, palette, cmyk or lab, ``depth`` the bits of a sample (0: unknown), ``profile`` what the
    colour profile calls itself. ``transparency`` is known once the pixels are: 0 opaque, 1 nothing to be seen.
    ``problem`` says why the file is damaged where its structure shows that; the size may then still be known.
    """

    format: str
    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    alpha: bool = False
    colour: str = "rgb"
    depth: int = 8
    icc: bytes = b""
    profile: str = ""
    transparency: float = 0.0
    jpeg: JpegFile | None = None
    problem: str = ""

    def upright(self) -> tuple[int, int]:
        """Width and height as a viewer shows them."""
        return (self.height, self.width) if exif.turns(self.orientation) else (self.width, self.height)


def check_pixels(width: int, height: int, limit: int) -> None:
    """Refuse what would decode to more than ``limit`` pixels."""
    if width * height > limit:
        raise BadImage(
            "bomb", f"{width} x {height} is {width * height:,} pixels, at most {limit:,} are decoded", (width, height)
        )


def read(data: bytes, kind: str) -> Header:
    """The header of a ``jpeg``, ``png`` or ``webp`` file."""
    header = _READERS[kind](data)
    if not header.problem and (header.width < 1 or header.height < 1):
        return replace(header, problem=f"the {kind} header gives a size of {header.width} x {header.height}")
    return header


def _jpeg(data: bytes) -> Header:
    try:
        file = parse_jpeg(data)
    except MalformedJpeg as error:
        return Header("jpeg", 0, 0, problem=str(error))
    problem = "" if file.complete else f"the JPEG ends at byte {len(data):,} without an end marker: truncated"
    return Header(
        "jpeg",
        file.width,
        file.height,
        orientation=file.orientation,
        colour={1: "grey", 4: "cmyk"}.get(file.components, "rgb"),
        depth=file.precision,
        icc=file.icc,
        profile=icc.description(file.icc),
        jpeg=file,
        problem=problem,
    )


class _Damaged(Exception):
    pass


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk; the checksums of those that make the picture are verified."""
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 8 + size
        if end + 4 > len(data):
            break
        checked = kind in (b"IHDR", b"PLTE", b"IDAT")
        if checked and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise _Damaged(f"PNG chunk {kind.decode('latin-1')} at byte {at:,}: checksum does not match")
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise _Damaged(f"the PNG ends at byte {len(data):,} without an IEND chunk: truncated")


_MAX_ICC = 4 << 20
_PNG_COLOURS = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}


def _png(data: bytes) -> Header:
    width = height = colour = depth = 0
    frames, turn, alpha, profile, name, problem = 1, 1, False, b"", "", ""
    pixels = False
    try:
        for kind, start, end in _png_chunks(data):
            if kind == b"IHDR" and end - start == 13:
                width, height, depth, colour = struct.unpack_from(">IIBB", data, start)
                alpha = colour in (4, 6)
            elif kind == b"tRNS":
                alpha = True
            elif kind == b"acTL" and not pixels and end - start == 8:
                frames = max(1, struct.unpack_from(">I", data, start)[0])
            elif kind == b"eXIf":
                turn = exif.orientation(data[start:end])
            elif kind == b"iCCP":
                profile = _inflate(data[start:end].partition(b"\0")[2][1:])
                name = icc.description(profile)
            elif kind == b"sRGB":
                name = "sRGB"
            elif kind == b"IDAT":
                pixels = True
        if not pixels:
            problem = "the PNG has no image data (IDAT)"
    except _Damaged as error:
        problem = str(error)
    shade = _PNG_COLOURS.get(colour, "rgb")
    return Header("png", width, height, frames, turn, alpha, shade, depth, profile, name, problem=problem)


def _inflate(packed: bytes) -> bytes:
    """A zlib stream of at most 4 MiB; empty where it is damaged or larger (a profile is not worth more)."""
    try:
        plain = zlib.decompressobj().decompress(packed, _MAX_ICC)
    except zlib.error:
        return b""
    return plain if len(plain) < _MAX_ICC else b""


def _webp(data: bytes) -> Header:
    """Source of the layout: RFC 9649."""
    declared = int.from_bytes(data[4:8], "little") + 8
    problem = f"the WebP has {len(data):,} of {declared:,} bytes: truncated" if declared > len(data) else ""
    width = height = frames = 0
    turn, alpha, profile = 1, False, b""
    at = 12
    while at + 8 <= min(declared, len(data)):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        start, end = at + 8, at + 8 + size
        if end > declared:
            problem = f"WebP chunk {kind.decode('latin-1')} at byte {at:,} is longer than the file"
        if kind == b"VP8X" and start + 10 <= len(data):
            alpha = bool(data[start] & 0x10)
            width = int.from_bytes(data[start + 4 : start + 7], "little") + 1
            height = int.from_bytes(data[start + 7 : start + 10], "little") + 1
        elif kind == b"VP8 " and not width and start + 10 <= len(data):
            width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, start + 6))
        elif kind == b"VP8L" and not width and start + 5 <= len(data):
            bits = int.from_bytes(data[start + 1 : start + 5], "little")
            width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            turn = exif.orientation(data[start:end].removeprefix(b"Exif\0\0"))
        elif kind == b"ICCP":
            profile = data[start:end]
        at = end + size % 2
    name = icc.description(profile)
    return Header("webp", width, height, max(1, frames), turn, alpha, icc=profile, profile=name, problem=problem)


_READERS = {"jpeg": _jpeg, "png": _png, "webp": _webp}
