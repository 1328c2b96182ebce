"""Images per CPU-second of the image stages, beside bare loops that do less.

    python benchmarks/images.py [--data FOLDER] [--images 200] [--rounds 5]

Every way reads the same JPEGs from memory and writes a tar: ``opencv`` and ``pillow`` only decode at the size
that the measures need and copy the bytes, and ``opencv, 256 px`` brings what it decoded to the measuring size, as
the stages do; ``no measures`` is as little as a pass-through can do, in a bare loop: decode, SHA-256, walk the
structure, cut metadata, so it is the ceiling; ``decode + jpeg`` also hashes, measures and keeps the ledger's columns;
``overlays`` adds text, codes and watermarks; ``with safety`` the sample's detector; ``default limits`` encodes what
is larger than a shard takes. The stages get their images as a frame, as readers hand them on. Rounds are interleaved,
so that a busy machine slows all alike; the median counts.
Without ``--data`` the photos are made from a seed: 0.3 to 3 megapixels, quality 90, with EXIF.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import platform
import statistics
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL
import polars as pl
from PIL import Image

from tuwen.filters.decode import Decode
from tuwen.filters.image_safety import ImageSafety
from tuwen.filters.images import MAX_PIXELS, VIEW_LONG, VIEW_SHORT, _recent
from tuwen.filters.jpeg import Jpeg
from tuwen.filters.jpeg_file import strip
from tuwen.filters.overlays import Overlays
from tuwen.filters.pixels import decode as decode_pixels
from tuwen.filters.pixels import read_header, reduction, shrink
from tuwen.pipeline.stage import StageModel, Tally, apply_stage

SLICE = 64
FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def photos(count: int) -> list[bytes]:
    """JPEGs whose coefficients are about as many as a photo's: structure at several scales, and grain."""
    rng, made = np.random.default_rng(7), []
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    for _ in range(count):
        width = int(np.sqrt(rng.uniform(0.3e6, 3e6) * 4 / 3))
        height = width * 3 // 4
        layers = [
            cv2.resize(
                rng.normal(0, 40 / 2**i, (3 * 4**i, 4 * 4**i, 3)), (width, height), interpolation=cv2.INTER_CUBIC
            )
            for i in range(4)
        ]
        pixels = np.clip(128 + sum(layers) + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90, exif=exif)
        made.append(out.getvalue())
    return made


def write_tar(images: Sequence[bytes]) -> int:
    """What every way ends with; the size of the tar in bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(images):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.tell()


def by_opencv(images: Sequence[bytes], factors: Sequence[int]) -> None:
    """The floor: decode at the size needed, copy the bytes."""
    for data, factor in zip(images, factors, strict=True):
        cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS[factor])
    write_tar(images)


def by_opencv_to_size(images: Sequence[bytes], factors: Sequence[int]) -> None:
    """The same, and shrunk to the very size at which measures are taken."""
    for data, factor in zip(images, factors, strict=True):
        shrink(cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS[factor]), VIEW_SHORT, VIEW_LONG, ships=False)
    write_tar(images)


def by_need(images: Sequence[bytes]) -> None:
    """What has to be done of any image that ships, and nothing to judge it by: the ceiling of all that measure."""
    shipped = []
    for data in images:
        hashlib.sha256(data).hexdigest()
        header = read_header(data, "jpeg", MAX_PIXELS)
        if header.jpeg is None or decode_pixels(data, header, VIEW_SHORT, VIEW_LONG) is None:
            raise SystemExit("a photo cannot be decoded")
        shipped.append(strip(data, header.jpeg))
    write_tar(shipped)


def by_pillow(images: Sequence[bytes], factors: Sequence[int]) -> None:
    """The same with Pillow."""
    for data, factor in zip(images, factors, strict=True):
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (image.width // factor, image.height // factor))
        image.load()
    write_tar(images)


def by_stages(frame: pl.DataFrame, stages: Sequence[StageModel]) -> None:
    """Batches through the stages, as the engine does it."""
    for start in range(0, frame.height, SLICE):
        rows = frame[start : start + SLICE]
        for stage in stages:
            rows = apply_stage(stage, rows, Tally())
        if rows["status"].is_not_null().any():
            raise SystemExit(f"not all images survive: {rows['reason'].drop_nulls().unique().to_list()}")
        write_tar(rows["image"].to_list())
    _recent.clear()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of JPEG files")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    found = sorted(chosen.data.rglob("*.jpg"))[: chosen.images] if chosen.data else []
    images = [path.read_bytes() for path in found] if chosen.data else photos(chosen.images)
    sizes = [Image.open(io.BytesIO(data)).size for data in images]
    factors = [reduction(w, h, VIEW_SHORT, VIEW_LONG) for w, h in sizes]
    decode = Decode(shorter_side=1, max_aspect=1000, threads=1)
    wide = Jpeg(longest_side=20_000, max_bytes=1 << 30, threads=1)
    frame = pl.DataFrame({"key": [str(i) for i in range(len(images))], "image": images})
    safety = ImageSafety(threads=1)
    ways: dict[str, Callable[[], None]] = {
        "opencv": lambda: by_opencv(images, factors),
        "opencv, 256 px": lambda: by_opencv_to_size(images, factors),
        "pillow": lambda: by_pillow(images, factors),
        "no measures": lambda: by_need(images),
        "decode + jpeg": lambda: by_stages(frame, (decode, wide)),
        "overlays": lambda: by_stages(frame, (decode, Overlays(threads=1), wide)),
        "with safety": lambda: by_stages(frame, (decode, safety, wide)),
        "default limits": lambda: by_stages(frame, (decode, safety, Jpeg(threads=1))),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(chosen.rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if turn:  # the first round warms caches and loads libraries
                spent[name].append(time.process_time() - started)
    pixels = sum(w * h for w, h in sizes) / len(sizes) / 1e6
    print(f"{len(images)} JPEGs, {pixels:.2f} megapixels and {sum(map(len, images)) / len(images) / 1e3:.0f} kB each")
    print(
        f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
    )
    bare = statistics.median(spent["opencv"])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(f"{name:16}{len(images) / median:8.0f} images per CPU-second {bare / median:6.2f} of opencv")


if __name__ == "__main__":
    main()
