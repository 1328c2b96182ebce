"""Pictures of the sample world: shaded, textured, with shadows; anti-aliased by OpenCV.

Every object is drawn from primitives in its own square (x and y from 0 to 1), shaded and laid on
the background. Work is done at the size asked for, so that training can draw thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .world import COLOURS, KINDS, Scene, Thing

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
_SHIFT = 4


class Pen:
    """Draws on an object's square of ``side`` pixels: colour in ``rgb`` (side, side, 3), cover in ``alpha``."""

    def __init__(self, side: int, colour: Colour) -> None:
        self.side, self.colour = side, colour
        self.rgb = np.zeros((side, side, 3), np.uint8)
        self.rgb[:] = colour
        self.alpha = np.zeros((side, side), np.uint8)

    def tone(self, factor: float) -> Colour:
        """The object's colour made darker (below 1) or lighter (above 1)."""
        if factor <= 1:
            r, g, b = (int(c * factor) for c in self.colour)
        else:
            r, g, b = (int(c + (255 - c) * min(1.0, factor - 1)) for c in self.colour)
        return r, g, b

    def polygon(self, points: list[tuple[float, float]], colour: Colour | float = 1.0) -> None:
        """A filled polygon; ``colour`` is a tone factor or a colour of its own."""
        at = np.array([[(x * self.side, y * self.side) for x, y in points]]) * (1 << _SHIFT)
        fill = colour if isinstance(colour, tuple) else self.tone(colour)
        cv2.fillPoly(self.rgb, [at[0].astype(np.int32)], fill, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.alpha, [at[0].astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour | float = 1.0,
        angle: float = 0,
        arc: tuple[float, float] = (0, 360),
    ) -> None:
        """A filled ellipse (or a sector of one, in degrees clockwise from the right)."""
        scale = self.side * (1 << _SHIFT)
        centre, axes = (int(x * scale), int(y * scale)), (max(1, int(rx * scale)), max(1, int(ry * scale)))
        fill = colour if isinstance(colour, tuple) else self.tone(colour)
        cv2.ellipse(self.rgb, centre, axes, angle, arc[0], arc[1], fill, -1, cv2.LINE_AA, _SHIFT)
        cv2.ellipse(self.alpha, centre, axes, angle, arc[0], arc[1], 255, -1, cv2.LINE_AA, _SHIFT)

    def line(self, a: tuple[float, float], b: tuple[float, float], width: float, colour: Colour | float = 1.0) -> None:
        """A line of ``width`` (share of the side)."""
        scale = self.side * (1 << _SHIFT)
        ends = [(int(p[0] * scale), int(p[1] * scale)) for p in (a, b)]
        fill = colour if isinstance(colour, tuple) else self.tone(colour)
        thick = max(1, round(width * self.side))
        cv2.line(self.rgb, ends[0], ends[1], fill, thick, cv2.LINE_AA, _SHIFT)
        cv2.line(self.alpha, ends[0], ends[1], 255, thick, cv2.LINE_AA, _SHIFT)


DARK: Colour = (40, 36, 34)
TRUNK: Colour = (112, 74, 42)
LEAF: Colour = (60, 130, 50)
PANE: Colour = (176, 214, 236)


def _cat(p: Pen) -> None:
    p.ellipse(0.55, 0.68, 0.28, 0.22)
    p.line((0.8, 0.7), (0.93, 0.4), 0.07)
    p.ellipse(0.34, 0.4, 0.2, 0.18)
    p.polygon([(0.16, 0.36), (0.18, 0.12), (0.33, 0.25)])
    p.polygon([(0.37, 0.24), (0.5, 0.12), (0.52, 0.36)])
    for x in (0.27, 0.42):
        p.ellipse(x, 0.38, 0.035, 0.045, (250, 240, 120))
        p.ellipse(x, 0.38, 0.014, 0.04, DARK)
    p.polygon([(0.32, 0.45), (0.37, 0.45), (0.345, 0.48)], (230, 150, 150))
    for x in (0.4, 0.52, 0.72):
        p.ellipse(x, 0.89, 0.06, 0.05, 0.85)


def _dog(p: Pen) -> None:
    p.ellipse(0.56, 0.58, 0.28, 0.16)
    for x in (0.36, 0.46, 0.68, 0.78):
        p.line((x, 0.62), (x, 0.9), 0.07, 0.85)
    p.line((0.82, 0.52), (0.95, 0.32), 0.06)
    p.ellipse(0.27, 0.36, 0.15, 0.15)
    p.ellipse(0.13, 0.41, 0.1, 0.07, 1.15)
    p.ellipse(0.05, 0.39, 0.03, 0.03, DARK)
    p.ellipse(0.36, 0.38, 0.06, 0.15, 0.65, 12)
    p.ellipse(0.22, 0.32, 0.025, 0.025, DARK)


def _bird(p: Pen) -> None:
    p.ellipse(0.5, 0.55, 0.26, 0.17, 1.0, -12)
    p.ellipse(0.26, 0.42, 0.12, 0.12)
    p.polygon([(0.16, 0.4), (0.03, 0.45), (0.16, 0.48)], (240, 170, 40))
    p.polygon([(0.7, 0.48), (0.96, 0.36), (0.93, 0.6)], 0.8)
    p.polygon([(0.4, 0.5), (0.75, 0.12), (0.66, 0.58)], 0.72)
    p.ellipse(0.24, 0.39, 0.025, 0.025, DARK)


def _fish(p: Pen) -> None:
    p.ellipse(0.44, 0.5, 0.34, 0.2)
    p.polygon([(0.7, 0.5), (0.97, 0.28), (0.9, 0.5), (0.97, 0.72)], 0.8)
    p.polygon([(0.35, 0.33), (0.5, 0.16), (0.58, 0.34)], 0.75)
    for x in (0.36, 0.46, 0.56):
        p.ellipse(x, 0.5, 0.02, 0.12, 0.75)
    p.ellipse(0.22, 0.45, 0.045, 0.045, (250, 250, 250))
    p.ellipse(0.21, 0.45, 0.022, 0.022, DARK)


def _car(p: Pen) -> None:
    p.polygon([(0.22, 0.48), (0.33, 0.26), (0.66, 0.26), (0.8, 0.48)])
    p.polygon([(0.28, 0.46), (0.36, 0.31), (0.48, 0.31), (0.48, 0.46)], PANE)
    p.polygon([(0.52, 0.46), (0.52, 0.31), (0.64, 0.31), (0.73, 0.46)], PANE)
    p.polygon([(0.03, 0.48), (0.95, 0.46), (0.98, 0.7), (0.02, 0.7)])
    p.ellipse(0.95, 0.54, 0.03, 0.04, (255, 240, 170))
    for x in (0.24, 0.76):
        p.ellipse(x, 0.72, 0.12, 0.12, DARK)
        p.ellipse(x, 0.72, 0.06, 0.06, (190, 190, 195))


def _boat(p: Pen) -> None:
    p.line((0.5, 0.08), (0.5, 0.68), 0.03, TRUNK)
    p.polygon([(0.53, 0.1), (0.53, 0.6), (0.88, 0.6)], (246, 246, 240))
    p.polygon([(0.47, 0.16), (0.47, 0.6), (0.2, 0.6)], (228, 228, 222))
    p.polygon([(0.06, 0.66), (0.94, 0.66), (0.78, 0.88), (0.2, 0.88)])
    p.polygon([(0.06, 0.66), (0.94, 0.66), (0.91, 0.71), (0.1, 0.71)], 0.7)


def _plane(p: Pen) -> None:
    p.polygon([(0.4, 0.5), (0.62, 0.9), (0.72, 0.9), (0.6, 0.5)], 0.75)
    p.polygon([(0.42, 0.45), (0.62, 0.14), (0.7, 0.14), (0.6, 0.45)], 0.85)
    p.ellipse(0.5, 0.48, 0.46, 0.09)
    p.polygon([(0.8, 0.45), (0.9, 0.2), (0.98, 0.2), (0.95, 0.48)], 0.85)
    for x in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        p.ellipse(x, 0.46, 0.018, 0.022, PANE)
    p.ellipse(0.08, 0.46, 0.03, 0.03, PANE)


def _house(p: Pen) -> None:
    p.polygon([(0.14, 0.46), (0.86, 0.46), (0.86, 0.93), (0.14, 0.93)])
    p.polygon([(0.05, 0.48), (0.5, 0.1), (0.95, 0.48)], 0.6)
    p.polygon([(0.42, 0.64), (0.58, 0.64), (0.58, 0.93), (0.42, 0.93)], TRUNK)
    for x in (0.22, 0.66):
        p.polygon([(x, 0.56), (x + 0.13, 0.56), (x + 0.13, 0.72), (x, 0.72)], PANE)


def _tree(p: Pen) -> None:
    p.polygon([(0.45, 0.55), (0.55, 0.55), (0.59, 0.97), (0.41, 0.97)], TRUNK)
    for x, y, r, t in ((0.3, 0.46, 0.2, 0.8), (0.7, 0.46, 0.2, 0.85), (0.5, 0.26, 0.23, 1.0), (0.5, 0.48, 0.22, 0.92)):
        p.ellipse(x, y, r, r, t)
    for x, y in ((0.42, 0.2), (0.62, 0.38), (0.33, 0.4), (0.52, 0.5)):
        p.ellipse(x, y, 0.05, 0.04, 1.25)


def _flower(p: Pen) -> None:
    p.line((0.5, 0.45), (0.5, 0.97), 0.045, LEAF)
    p.ellipse(0.62, 0.74, 0.13, 0.05, LEAF, -25)
    for k in range(6):
        a = np.pi * k / 3
        p.ellipse(
            0.5 + 0.19 * np.cos(a), 0.33 + 0.19 * np.sin(a), 0.15, 0.1, 0.92 + 0.1 * (k % 2), float(np.degrees(a))
        )
    p.ellipse(0.5, 0.33, 0.09, 0.09, (120, 80, 20))


def _apple(p: Pen) -> None:
    p.ellipse(0.38, 0.56, 0.26, 0.31)
    p.ellipse(0.62, 0.56, 0.26, 0.31, 0.97)
    p.line((0.5, 0.32), (0.55, 0.12), 0.04, TRUNK)
    p.ellipse(0.66, 0.17, 0.12, 0.05, LEAF, -20)
    p.ellipse(0.3, 0.44, 0.06, 0.09, 1.45)


def _ball(p: Pen) -> None:
    p.ellipse(0.5, 0.52, 0.4, 0.4)
    p.ellipse(0.5, 0.52, 0.4, 0.12, 0.85)
    p.ellipse(0.36, 0.36, 0.1, 0.08, 1.5)


def _cup(p: Pen) -> None:
    p.ellipse(0.76, 0.52, 0.17, 0.19, 0.85)
    p.ellipse(0.76, 0.52, 0.09, 0.11, (150, 150, 150))
    p.polygon([(0.18, 0.25), (0.74, 0.25), (0.66, 0.88), (0.26, 0.88)])
    p.ellipse(0.46, 0.25, 0.28, 0.07, 0.55)
    p.ellipse(0.46, 0.88, 0.2, 0.05)


def _chair(p: Pen) -> None:
    p.polygon([(0.2, 0.06), (0.32, 0.06), (0.34, 0.58), (0.22, 0.58)])
    p.polygon([(0.2, 0.06), (0.62, 0.12), (0.62, 0.2), (0.2, 0.15)])
    p.polygon([(0.22, 0.28), (0.62, 0.33), (0.62, 0.4), (0.22, 0.36)])
    p.polygon([(0.2, 0.55), (0.62, 0.5), (0.86, 0.58), (0.4, 0.66)], 1.15)
    p.line((0.6, 0.12), (0.6, 0.52), 0.05)
    for x, y in ((0.24, 0.58), (0.42, 0.64), (0.82, 0.58)):
        p.line((x, y), (x, 0.96), 0.055, 0.75)


def _umbrella(p: Pen) -> None:
    p.line((0.5, 0.1), (0.5, 0.9), 0.035, DARK)
    p.line((0.5, 0.9), (0.6, 0.93), 0.035, DARK)
    p.ellipse(0.5, 0.5, 0.46, 0.4, 1.0, 0, (180, 360))
    for x, t in ((0.2, 0.8), (0.5, 0.85), (0.8, 0.8)):
        p.ellipse(x, 0.5, 0.15, 0.06, t, 0, (180, 360))
    p.ellipse(0.36, 0.3, 0.05, 0.14, 1.3, 25)


def _book(p: Pen) -> None:
    p.polygon([(0.12, 0.22), (0.74, 0.14), (0.86, 0.76), (0.22, 0.86)])
    p.polygon([(0.22, 0.86), (0.86, 0.76), (0.89, 0.84), (0.26, 0.93)], (245, 240, 225))
    p.polygon([(0.12, 0.22), (0.18, 0.21), (0.28, 0.85), (0.22, 0.86)], 0.6)
    p.polygon([(0.32, 0.34), (0.64, 0.3), (0.66, 0.4), (0.34, 0.44)], 1.6)


DRAW: dict[str, Callable[[Pen], None]] = {
    "cat": _cat, "dog": _dog, "bird": _bird, "fish": _fish, "car": _car, "boat": _boat, "plane": _plane,
    "house": _house, "tree": _tree, "flower": _flower, "apple": _apple, "ball": _ball, "cup": _cup,
    "chair": _chair, "umbrella": _umbrella, "book": _book,
}  # fmt: skip

_SKY_GROUND: dict[str, tuple[Colour, Colour, Colour, Colour, float]] = {
    # top of the sky, its foot, top of the ground, its foot, height of the horizon
    "草地": ((120, 180, 236), (206, 228, 244), (122, 176, 84), (76, 136, 52), 0.5),
    "沙滩": ((96, 176, 226), (190, 222, 236), (238, 220, 170), (214, 186, 128), 0.55),
    "雪地": ((168, 184, 204), (214, 222, 232), (248, 250, 252), (214, 224, 236), 0.48),
    "夜晚": ((10, 12, 40), (32, 36, 78), (38, 40, 56), (20, 20, 30), 0.62),
    "房间": ((222, 208, 186), (234, 222, 202), (164, 116, 76), (128, 86, 54), 0.62),
    "街道": ((176, 186, 196), (208, 212, 216), (110, 110, 114), (78, 78, 84), 0.55),
    "湖边": ((150, 196, 226), (214, 228, 232), (84, 150, 178), (48, 104, 140), 0.46),
}


def background(name: str, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The place, (size, size, 3) float32 from 0 to 255, with its own marks."""
    sky_a, sky_b, ground_a, ground_b, horizon = _SKY_GROUND[name]
    h = int(size * (horizon + rng.uniform(-0.05, 0.05)))
    rows = np.empty((size, 3), np.float32)
    rows[:h] = np.linspace(sky_a, sky_b, h)
    rows[h:] = np.linspace(ground_a, ground_b, size - h)
    out = np.repeat(rows[:, None], size, axis=1)
    _MARKS[name](out, h, size, rng)
    return out


def _clouds(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0, size), rng.uniform(0.05, 0.6) * h
        for dx in (-0.07, 0.0, 0.08):
            centre = (int(x + dx * size), int(y))
            cv2.ellipse(out, centre, (int(0.08 * size), int(0.035 * size)), 0, 0, 360, (250, 250, 252), -1, cv2.LINE_AA)


def _grass(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    _clouds(out, h, size, rng)
    for x, y in rng.uniform(0, 1, (60, 2)):
        foot = (int(x * size), int(h + y * (size - h)))
        cv2.line(out, foot, (foot[0] + int(0.01 * size), foot[1] - int(0.035 * size)), (64, 120, 44), 1, cv2.LINE_AA)


def _beach(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    _clouds(out, int(0.7 * h), size, rng)
    sea = int(h - 0.14 * size)
    out[sea:h] = (52, 138, 190)
    for k in range(3):
        y = sea + int((k + 0.6) * (h - sea) / 3)
        cv2.line(out, (0, y), (size, y), (150, 206, 226), max(1, size // 96), cv2.LINE_AA)


def _snow(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    del h
    for x, y in rng.uniform(0, size, (40, 2)):
        cv2.circle(out, (int(x), int(y)), max(1, size // 110), (255, 255, 255), -1, cv2.LINE_AA)


def _night(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(0, 1, (24, 2)):
        cv2.circle(out, (int(x * size), int(y * h)), max(1, size // 160), (255, 250, 220), -1, cv2.LINE_AA)
    cv2.circle(out, (int(0.85 * size), int(0.14 * size)), int(0.07 * size), (248, 240, 200), -1, cv2.LINE_AA)


def _room(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    x = int(rng.uniform(0.05, 0.6) * size)
    cv2.rectangle(out, (x, int(0.1 * size)), (x + int(0.28 * size), int(0.38 * size)), (176, 212, 232), -1)
    cv2.rectangle(
        out, (x, int(0.1 * size)), (x + int(0.28 * size), int(0.38 * size)), (150, 112, 78), max(1, size // 64)
    )
    for k in range(5):
        y = h + (size - h) * k // 5
        cv2.line(out, (0, y), (size, y), (112, 76, 46), 1, cv2.LINE_AA)


def _street(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    x = 0
    while x < size:
        width, top = int(rng.uniform(0.12, 0.24) * size), int(rng.uniform(0.12, 0.4) * size)
        shade = float(rng.uniform(120, 180))
        cv2.rectangle(out, (x, top), (x + width, h), (shade, shade * 0.94, shade * 0.88), -1)
        x += width
    y = (h + size) // 2
    for k in range(5):
        cv2.line(out, (k * size // 4, y), (k * size // 4 + size // 8, y), (236, 230, 190), max(1, size // 64))


def _lake(out: NDArray[np.float32], h: int, size: int, rng: np.random.Generator) -> None:
    _clouds(out, int(0.7 * h), size, rng)
    peaks = [(0, h), *((int(k * size / 5), int(h - rng.uniform(0.06, 0.24) * size)) for k in range(6)), (size, h)]
    cv2.fillPoly(out, [np.array(peaks, np.int32)], (92, 126, 104), cv2.LINE_AA)
    for x, y in rng.uniform(0, 1, (14, 2)):
        at = (int(x * size), int(h + y * (size - h)))
        cv2.line(out, at, (at[0] + size // 8, at[1]), (150, 200, 216), 1, cv2.LINE_AA)


_MARKS = {"草地": _grass, "沙滩": _beach, "雪地": _snow, "夜晚": _night, "房间": _room, "街道": _street, "湖边": _lake}


def _shade(pen: Pen, material: str, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The object's colours under light from the upper left, with its material's texture, and its cover."""
    n = pen.side
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    light = 1.18 - 0.34 * (0.55 * x + 0.75 * y)
    cover = pen.alpha.astype(np.float32) / np.float32(255)
    rgb = pen.rgb.astype(np.float32)
    if material == "木头":
        light *= 0.86 + 0.14 * np.sin(2 * np.pi * (9 * y + 0.6 * np.sin(7 * x + rng.uniform(0, 6))))
    elif material == "金属":
        light *= 0.8 + 0.55 * np.exp(-(((x - y + rng.uniform(-0.1, 0.1)) / 0.1) ** 2))
    elif material == "布":
        light *= 0.88 + 0.12 * np.sign(np.sin(2 * np.pi * 11 * x) * np.sin(2 * np.pi * 11 * y))
    elif material == "玻璃":
        light = light + 0.5 * np.exp(-(((x + y - 0.75) / 0.05) ** 2))
        cover = cover * 0.62
    return np.clip(rgb * light[..., None], 0, 255).astype(np.float32), cover.astype(np.float32)


def place(canvas: NDArray[np.float32], thing: Thing, x: float, y: float, side: float, rng: np.random.Generator) -> None:
    """Draw one object centred at (x, y), both and ``side`` as shares of the canvas; ``rng`` says how it looks."""
    size = canvas.shape[0]
    n = max(8, int(side * size))
    pen = Pen(n, COLOURS[thing.colour])
    DRAW[thing.kind](pen)
    rgb, cover = _shade(pen, thing.material, rng)
    if rng.random() < 0.5:
        rgb, cover = rgb[:, ::-1], cover[:, ::-1]
    left, top = int(x * size - n / 2), int(y * size - n / 2)
    if not KINDS[thing.kind].flies:
        spot = canvas.copy()
        foot = (int(x * size), min(size - 1, top + int(0.94 * n)))
        cv2.ellipse(spot, foot, (int(0.42 * n), max(1, int(0.07 * n))), 0, 0, 360, (20, 20, 24), -1, cv2.LINE_AA)
        cv2.addWeighted(spot, 0.35, canvas, 0.65, 0, canvas)
    a, b, c, d = max(0, top), min(size, top + n), max(0, left), min(size, left + n)
    if b <= a or d <= c:
        return
    part = cover[a - top : b - top, c - left : d - left, None]
    canvas[a:b, c:d] = canvas[a:b, c:d] * (1 - part) + rgb[a - top : b - top, c - left : d - left] * part


def render(scene: Scene, size: int = 256) -> Pixels:
    """The scene's picture, (size, size, 3) RGB; the same scene gives the same picture at any time."""
    rng = np.random.default_rng(scene.style)
    canvas = background(scene.background, size, rng)
    scale = {"": 0.38, "大": 0.5, "小": 0.25}
    if len(scene.things) == 1:
        thing = scene.things[0]
        spots = {
            1: [(0.5, 0.6)],
            2: [(0.28, 0.62), (0.72, 0.62)],
            3: [(0.22, 0.7), (0.5, 0.42), (0.78, 0.7)],
            4: [(0.27, 0.36), (0.73, 0.36), (0.27, 0.76), (0.73, 0.76)],
        }[thing.count]
        side = scale[thing.size] * (1.2 if thing.count == 1 else 0.9)
        placed = [(thing, x, y, side) for x, y in spots]
    else:
        at = ((0.26, 0.6), (0.74, 0.6)) if scene.relation == "左边" else ((0.5, 0.27), (0.5, 0.74))
        placed = [(t, x, y, scale[t.size]) for t, (x, y) in zip(scene.things, at, strict=True)]
    return compose(canvas, placed, rng)


def compose(
    canvas: NDArray[np.float32], placed: Sequence[tuple[Thing, float, float, float]], rng: np.random.Generator
) -> Pixels:
    """Draw things (thing, x, y, side; shares of the canvas) on ``canvas``, jittered, with light and noise."""
    for thing, x, y, side in placed:
        jitter = rng.uniform(-0.035, 0.035, 2)
        place(canvas, thing, x + jitter[0], y + jitter[1], side * rng.uniform(0.92, 1.08), rng)
    size = len(canvas)
    canvas *= rng.uniform(0.86, 1.08)
    canvas += rng.normal(0, 3.0, (size, size, 1)).astype(np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)
