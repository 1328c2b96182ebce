"""What ships is an upright JPEG within limits that says nothing about who took it, where or with what.

A JPEG that is fine already keeps its pixels bit for bit: only its metadata segments are cut out. All
else is decoded, turned upright, brought to sRGB and the size limit, and encoded once.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import polars as pl
from pydantic import Field

from ..pipeline.columns import COLUMNS, without
from ..pipeline.stage import StageModel, operational
from . import image_kind, jpeg_file, pixels
from .image_header import BadImage
from .images import MAX_PIXELS, details, load, map_images, seen
from .jpeg_file import JpegFile
from .pixels import Pixels

_LOWER_QUALITIES = (75, 60, 45)


class Shipped(NamedTuple):
    """An image as it ships, or why it cannot; sizes in pixels."""

    image: bytes | None = None
    jpeg: str | None = None
    shipped_width: int | None = None
    shipped_height: int | None = None
    failure: str | None = None
    detail: str | None = None


def ship(
    data: bytes, longest_side: int, max_bytes: int, quality: int, max_pixels: int, file: JpegFile | None = None
) -> Shipped:
    """``data`` as a JPEG within the limits: untouched, stripped of metadata, or encoded anew.

    ``file`` is its structure where an earlier stage has parsed it.

    A picture that its EXIF orientation turns is encoded anew: training loaders differ in whether they
    honour the tag, and turning without loss works only where both sides are multiples of the block.
    """
    fine = _as_it_is(data, longest_side, max_bytes, file)
    if fine:
        return fine
    try:
        _, picture = load(data, longest_side, longest_side, max_pixels, ships=True)
    except BadImage as error:
        return Shipped(failure=f"image_{error.kind}", detail=error.message)
    out, shown = encode(picture, quality, max_bytes)
    return Shipped(out, "encoded", shown.shape[1], shown.shape[0])


def _as_it_is(data: bytes, longest_side: int, max_bytes: int, file: JpegFile | None) -> Shipped | None:
    if image_kind.sniff(data) != "jpeg":
        return None
    if file is None or not jpeg_file.fits(data, file):
        try:
            file = jpeg_file.parse(data)
        except jpeg_file.MalformedJpeg:
            return None
    whole = file.complete and file.clean and file.usual and file.orientation == 1
    if not whole or max(file.width, file.height) > longest_side:
        return None
    out = jpeg_file.strip(data, file)
    if len(out) > max_bytes:
        return None
    return Shipped(out, "passed" if out is data else "stripped", file.width, file.height)


def encode(image: Pixels, quality: int, max_bytes: int) -> tuple[bytes, Pixels]:
    """Baseline JPEG with 4:2:0 chroma of at most ``max_bytes``, and the pixels that it holds.

    Where ``quality`` is too large the lower qualities are tried, then half the pixels, and so on.
    """
    cv2 = pixels.cv()
    while True:
        for level in (quality, *(q for q in _LOWER_QUALITIES if q < quality)):
            options = (cv2.IMWRITE_JPEG_QUALITY, level, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
            chroma = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
            out = cv2.imencode(".jpg", image, [*options, *chroma])[1].tobytes()
            if len(out) <= max_bytes:
                return out, image
        image = pixels.shrink(image, max(image.shape), max(1, int(max(image.shape) * 0.707)))


class Jpeg(StageModel):
    """Makes every image a JPEG within the limits, without personal metadata; re-encodes only where needed."""

    name: ClassVar[str] = "jpeg"
    adds: ClassVar[tuple[str, ...]] = ("image", "jpeg", "image_bytes", "shipped_width", "shipped_height")
    on_images: ClassVar[bool] = True

    longest_side: int = Field(1280, ge=16, description="pixels; a larger image is scaled down (enough for 1024 crops)")
    max_bytes: int = Field(2 * 2**20, ge=4096, description="bytes; a larger JPEG is encoded again")
    quality: int = Field(90, ge=1, le=100, description="JPEG quality where encoding is needed (img2dataset: 95)")
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="pixels; what has more is not decoded; as decode.max_pixels")
    threads: int = operational(2, "encoding threads per process", ge=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The image column as it ships; a row whose image cannot be decoded fails and keeps its bytes."""

        def one(pair: tuple[bytes | None, str | None]) -> Shipped:
            data, sha256 = pair
            if data is None:
                return Shipped(failure="image_missing", detail="the pair reached jpeg without image bytes")
            header = seen(sha256, self.max_pixels)
            file = header.jpeg if header else None
            return ship(data, self.longest_side, self.max_bytes, self.quality, self.max_pixels, file)

        received = batch["image"].to_list()
        known = batch["image_sha256"].to_list() if "image_sha256" in batch.columns else [None] * len(received)
        found = map_images(one, list(zip(received, known, strict=True)), self.threads)
        columns: dict[str, list[Any]] = {name: [getattr(f, name) for f in found] for name in Shipped._fields}
        columns["image_bytes"] = [None if f.image is None else len(f.image) for f in found]
        columns["detail"] = details(batch, columns["detail"])
        types = {name: COLUMNS[name].dtype if name in COLUMNS else pl.String for name in columns}
        if all(f.jpeg == "passed" for f in found):
            del columns["image"]
        return without(batch, *columns).hstack([pl.Series(name, v, types[name]) for name, v in columns.items()])
