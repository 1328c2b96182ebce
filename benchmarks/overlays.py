"""How well the measures of ``overlays`` tell photos with text, watermarks and QR codes from the same photos without.

    python benchmarks/overlays.py [--data FOLDER] [--images 300] [--skip N] [--font FILE]

Without ``--data`` the pictures are drawn: scenes of the sample crawl's world, half of them with patches of leaves
of all sizes and grain. Every picture has a shorter side of 448 pixels and is encoded as a JPEG (quality 85) as it is
and with one thing drawn over it, from a seed: Chinese or Latin text (plain, outlined or on a bar),
a watermark (one line across,
in a corner, or tiled; opacity .2 to .5), a QR code (an address, 18 to 40 % of the shorter side). Printed are the area
under the ROC curve against the clean photos, the share found at a limit, the share of clean photos that is
above it, and the milliseconds of CPU per clean image. Clean photos may hold text of their own (shirts, signs).
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tuwen.filters.images import VIEW_LONG, VIEW_SHORT, load
from tuwen.filters.overlays import Overlay, overlay
from tuwen.filters.pixels import Pixels
from tuwen.sample_data.draw import render
from tuwen.sample_data.world import random_scene

SIDE = 448
HAN = "新款春装限时特价包邮正品保证官方旗舰店欢迎选购今日头条图片来自网络版权所有请勿转载高清壁纸风景人物"
LATIN = ("SALE 50% OFF", "Photo by J. Smith", "www.example.com", "Breaking news today", "New arrivals 2024")
MARKS = ("图片来自网络", "版权所有", "example.com", "STOCK PHOTO", "昵图网样本")
Draw = Callable[[Image.Image, np.random.Generator, str], Image.Image]


def words(rng: np.random.Generator) -> str:
    """A line of Chinese or Latin text."""
    if rng.random() < 0.7:
        at = int(rng.integers(0, len(HAN) - 14))
        return HAN[at : at + int(rng.integers(4, 13))]
    return str(rng.choice(LATIN))


def fitting(text: str, font: str, height: int, width: float) -> ImageFont.FreeTypeFont:
    """The font at ``height`` pixels, or lower where ``text`` would be wider than ``width``."""
    made = ImageFont.truetype(font, height)
    return (
        made if made.getlength(text) <= width else ImageFont.truetype(font, int(height * width / made.getlength(text)))
    )


def with_text(style: str) -> Draw:
    """One to three lines in one colour, ``plain``, ``outlined`` or on a ``bar``."""

    def draw(image: Image.Image, rng: np.random.Generator, font: str) -> Image.Image:
        pen = ImageDraw.Draw(image)
        height = int(rng.uniform(0.045, 0.12) * SIDE)
        top = int(rng.uniform(0.02, 0.6) * image.height)
        ink, other = ((255, 255, 255), (0, 0, 0)) if rng.random() < 0.5 else ((20, 20, 20), (255, 255, 255))
        if rng.random() < 0.3:
            ink = tuple(int(v) for v in rng.choice([0, 128, 255], 3))
        lines = int(rng.integers(1, 4))
        if style == "bar":
            pen.rectangle((0, top - 6, image.width, top + lines * int(height * 1.4) + 6), fill=other)
        for line in range(lines):
            text = words(rng)
            face = fitting(text, font, height, 0.92 * image.width)
            left = rng.uniform(0.02, 0.96 - face.getlength(text) / image.width) * image.width
            stroke = {"stroke_width": 2, "stroke_fill": other} if style == "outlined" else {}
            pen.text((left, top + line * int(height * 1.4)), text, font=face, fill=ink, **stroke)
        return image

    return draw


def with_mark(style: str) -> Draw:
    """A white or grey mark that lets the photo through: ``across``, ``corner`` or ``tiled``."""

    def draw(image: Image.Image, rng: np.random.Generator, font: str) -> Image.Image:
        text, opacity = str(rng.choice(MARKS)), rng.uniform(0.2, 0.5)
        sheet = Image.new("L", (2 * image.width, 2 * image.height))
        pen = ImageDraw.Draw(sheet)
        if style == "corner":
            face = fitting(text, font, int(rng.uniform(0.05, 0.08) * SIDE), 0.4 * image.width)
            pen.text(
                (sheet.width * 0.75 - face.getlength(text) - 8, sheet.height * 0.75 - 44), text, font=face, fill=255
            )
        elif style == "across":
            face = fitting(text, font, int(rng.uniform(0.1, 0.16) * SIDE), 0.8 * image.width)
            pen.text((sheet.width / 2, sheet.height / 2), text, font=face, fill=255, anchor="mm")
        else:
            face = ImageFont.truetype(font, int(rng.uniform(0.04, 0.07) * SIDE))
            step = int(face.getlength(text) * rng.uniform(1.2, 1.7)), int(face.size * rng.uniform(2.5, 4))
            for row, y in enumerate(range(0, sheet.height, step[1])):
                for x in range(-(row % 2) * step[0] // 2, sheet.width, step[0]):
                    pen.text((x, y), text, font=face, fill=255)
        if style != "corner":
            sheet = sheet.rotate(float(rng.choice([0, 20, 30, 45])), Image.Resampling.BICUBIC)
        box = (image.width // 2, image.height // 2, image.width // 2 + image.width, image.height // 2 + image.height)
        mask = sheet.crop(box).point(lambda level: int(level * opacity))
        image.paste((255, 255, 255) if rng.random() < 0.7 else (128, 128, 128), mask=mask)
        return image

    return draw


def with_code(image: Image.Image, rng: np.random.Generator, font: str) -> Image.Image:
    """A QR code with its quiet zone, upright."""
    text = f"https://example.com/{int(rng.integers(10**6, 10**9))}/{'x' * int(rng.integers(0, 30))}"
    code = Image.fromarray(np.asarray(cv2.QRCodeEncoder.create().encode(text)))
    side = int(rng.uniform(0.18, 0.40) * SIDE)
    code = code.resize((side, side), Image.Resampling.NEAREST)
    image.paste(code, (int(rng.integers(0, image.width - side)), int(rng.integers(0, image.height - side))))
    return image


LIMITS = {"text_share": (0.01, 0.03), "watermark": (0.5, 0.9), "qr_codes": (0,)}
KINDS: dict[str, Draw] = {
    **{f"text {s}": with_text(s) for s in ("plain", "outlined", "bar")},
    **{f"mark {s}": with_mark(s) for s in ("across", "corner", "tiled")},
    "qr code": with_code,
}


def drawn(number: int) -> Image.Image:
    """A scene; every other one with patches of dead leaves (Lee and others 2001): edges of all sizes."""
    rng = np.random.default_rng([number, 2024])
    scene = render(random_scene(rng), SIDE)
    if number % 2:
        return Image.fromarray(scene)
    leaves = np.zeros_like(scene)
    for _ in range(int(rng.integers(300, 3000))):
        radius = min(SIDE / 2, 8 * rng.random() ** -0.7)
        colour = np.clip(rng.normal(rng.uniform(60, 190), 50) + rng.normal(0, 25, 3), 0, 255).tolist()
        at, axes = rng.integers(0, SIDE, 2).tolist(), (max(1, int(radius)), max(1, int(radius * rng.uniform(0.1, 1))))
        cv2.ellipse(leaves, at, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    patches = cv2.GaussianBlur(rng.random((SIDE, SIDE)).astype(np.float32), (0, 0), 40)
    share = cv2.GaussianBlur((patches > np.median(patches)).astype(np.float32), (0, 0), 2)[..., None]
    mixed = scene * (1 - share) + leaves * share + rng.normal(0, rng.uniform(0, 8), scene.shape)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def photo(path: Path) -> Image.Image:
    """A photo at the size of the benchmark."""
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def seen(image: Image.Image) -> tuple[bytes, Pixels]:
    """The file and what a stage sees of it."""
    data = cv2.imencode(".jpg", np.asarray(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return data, load(data, VIEW_SHORT, VIEW_LONG)[1]


def auc(clean: NDArray[np.float64], marked: NDArray[np.float64]) -> float:
    """The probability that a marked image has more than a clean one; ties count half (Mann and Whitney 1947)."""
    more, same = (marked[:, None] > clean).mean(), (marked[:, None] == clean).mean()
    return float(more + same / 2)


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photos; without it pictures are drawn")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--font", help="a font with Chinese glyphs; without it, the one that fontconfig finds")
    parser.add_argument("--skip", type=int, default=0, help="photos (or numbers of drawn pictures) to leave out first")
    chosen = parser.parse_args()
    font = (
        chosen.font
        or subprocess.run(
            ["fc-match", "-f", "%{file}", "sans:lang=zh-cn"], capture_output=True, text=True, check=True
        ).stdout
    )
    numbers = range(chosen.skip, chosen.skip + chosen.images)
    paths = sorted(chosen.data.rglob("*.jpg"))[chosen.skip : chosen.skip + chosen.images] if chosen.data else []
    found: dict[str, list[Overlay]] = {name: [] for name in ("clean", *KINDS)}
    spent = 0.0
    for number, source in enumerate(paths or numbers):
        picture = photo(source) if isinstance(source, Path) else drawn(source)
        for name, draw in {"clean": None, **KINDS}.items():
            rng = np.random.default_rng([number, len(name)])
            data, view = seen(draw(picture.copy(), rng, font) if draw else picture)
            started = time.process_time()
            found[name].append(overlay(view, data))
            spent += (time.process_time() - started) * (name == "clean")
    clean = {name: np.array([getattr(o, name) for o in found["clean"]], np.float64) for name in Overlay._fields}
    print(f"{len(found['clean'])} {'photos' if paths else 'drawn pictures'}, numbers {numbers[0]} to {numbers[-1]}")
    print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}")
    print(f"{1000 * spent / len(found['clean']):.2f} ms per clean image (all three measures, one thread)")
    print(f"{'measure':12}{'drawn':16}{'AUC':>6}{'limit':>8}{'found':>8}{'clean above':>13}")
    for measure, limits in LIMITS.items():
        for name in KINDS:
            values = np.array([getattr(o, measure) for o in found[name]], np.float64)
            for limit in limits:
                above, false = (values > limit).mean(), (clean[measure] > limit).mean()
                print(f"{measure:12}{name:16}{auc(clean[measure], values):6.3f}{limit:8.2f}{above:8.3f}{false:13.3f}")


if __name__ == "__main__":
    main()
