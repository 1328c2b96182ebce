"""What ships is a JPEG within limits, without personal metadata.

A file that already is one passes: its EXIF, XMP and IPTC (place, device, names) and its comments are cut
out of the byte stream, the pixels stay as they are. Everything else is encoded once, upright. An
image with an orientation tag is encoded again, because loaders differ in whether they obey the tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ClassVar

import cv2
import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, operational
from .pixels import Pixels, Undecodable, decode, read_header

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_SOS, _EOI, _APP2, _APP14, _COM = 0xDA, 0xD9, 0xE2, 0xEE, 0xFE


class Jpeg(StageModel):
    """Passes a fine JPEG through without its personal metadata and encodes everything else, once."""

    name: ClassVar[str] = "jpeg"
    adds: ClassVar[tuple[str, ...]] = ("image", "jpeg", "image_bytes", "shipped_width", "shipped_height")
    on_images: ClassVar[bool] = True

    longest_side: int = Field(1280, ge=16, description="pixels; a larger image is scaled down (enough for 1024 crops)")
    max_bytes: int = Field(2 * 2**20, ge=1024, description="bytes; a larger JPEG is encoded again")
    quality: int = Field(90, ge=1, le=100, description="JPEG quality where encoding is needed (img2dataset: 95)")
    threads: int = operational(2, "encoding threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        rows = list(_pool(self.threads).map(self._one, batch["image"].to_list()))
        told = pl.DataFrame(
            rows,
            schema={
                "image": pl.Binary,
                "jpeg": pl.String,
                "image_bytes": pl.UInt32,
                "shipped_width": pl.UInt32,
                "shipped_height": pl.UInt32,
                "failure": pl.String,
                "detail": pl.String,
            },
            orient="row",
        )
        return batch.drop("image", "detail", strict=False).hstack(told)

    def _one(
        self, data: bytes
    ) -> tuple[bytes | None, str | None, int | None, int | None, int | None, str | None, str | None]:
        try:
            header = read_header(data, 2**31)
            fine = header.kind == "jpeg" and header.orientation == 1 and header.mode in ("RGB", "L")
            if fine and max(header.width, header.height) <= self.longest_side and len(data) <= self.max_bytes:
                stripped = strip(data)
                if stripped is not None and len(stripped) <= self.max_bytes:
                    how = "passed" if len(stripped) == len(data) else "stripped"
                    return stripped, how, len(stripped), header.width, header.height, None, None
            pixels = self._fit(decode(data, header, min(self.longest_side, min(header.width, header.height))))
        except Undecodable as error:
            return None, None, None, None, None, error.reason, str(error)
        encoded = self._encode(pixels)
        return encoded, "encoded", len(encoded), pixels.shape[1], pixels.shape[0], None, None

    def _fit(self, pixels: Pixels) -> Pixels:
        scale = self.longest_side / max(pixels.shape[:2])
        if scale >= 1:
            return pixels
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def _encode(self, pixels: Pixels) -> bytes:
        """JPEG bytes under ``max_bytes``: quality falls in steps of 10 where the picture needs it."""
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        data = b""
        for quality in range(self.quality, 0, -10):
            _, out = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            data = out.tobytes()
            if len(data) <= self.max_bytes:
                break
        return data


def strip(data: bytes) -> bytes | None:
    """The JPEG without APP segments other than JFIF, ICC profile and Adobe's colour mark, and without comments.

    What follows the end-of-image marker (previews, trailers) goes too. None where the segment structure is
    not sound; such a file is decoded and encoded instead.
    """
    kept = [b"\xff\xd8"]
    for marker, start, end in _segments(data):
        if marker < 0:
            return None
        drop = marker == _COM or (0xE1 <= marker <= 0xEF and marker not in (_APP2, _APP14))
        if marker == _APP2 and data[start + 4 : start + 15] != b"ICC_PROFILE":
            drop = True
        if not drop:
            kept.append(data[start:end])
        if marker == _SOS:
            return b"".join(kept)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each header segment; the scan data up to the end of the image comes as SOS.

    A marker of -1 says that the structure is broken.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data) or marker == _EOI:
            break
        if marker == _SOS:
            end = data.rfind(b"\xff\xd9")
            if end < at:
                break
            yield _SOS, at, _first_end(data, at + 2 + length, end)
            return
        yield marker, at, at + 2 + length
        at += 2 + length
    yield -1, at, at


def _first_end(data: bytes, at: int, last: int) -> int:
    """End of the image that starts its scans at ``at``: the first EOI outside of segments between scans."""
    while at <= last:
        at = data.find(b"\xff", at)
        marker = data[at + 1]
        if marker == _EOI:
            return at + 2
        if marker == 0 or marker in _STANDALONE:
            at += 2
        elif marker == 0xFF:
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return last + 2


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="jpeg")
