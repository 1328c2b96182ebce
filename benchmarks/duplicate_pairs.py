"""Labelled pairs for measuring what finds duplicates: reposts, and what only looks like one.

Pictures and captions come from the sample world that ``curate sample`` draws and, with ``--data``, from
Flickr8k-CN photos with their human captions. Each base pair is reposted with the picture re-encoded,
resized, cropped, brightened, framed or watermarked (where asked, mirrored too) and the caption in another
script, width or punctuation, with a suffix or with one or two characters changed. Beside them stand what
must all stay: the same caption on other pictures, other human captions of the same photo, and captions that
differ in a telling word.

``family`` is the label: two rows are duplicates where it is equal. ``picture`` names the base picture.
Human captions of one photo that a judge could call the same (edit similarity above ``UNDECIDED``) are left out.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray
from opencc import OpenCC

from tuwen.filters.fingerprint import fingerprint
from tuwen.sample_data.draw import render
from tuwen.sample_data.world import caption, random_scene

Pixels = NDArray[np.uint8]
Changes = dict[str, Callable[[Pixels, random.Random], Pixels]]
UNDECIDED = 0.7
SUFFIXES = ("_高清图片", "（图源网络）", " - 图片频道", "，点击查看大图", "【组图】", "_壁纸下载")
COMMON = "的一是在不了有人这中大为上个国我以要他时来用们生到作地于出就分对成会"
TELLING = ("红蓝", "黑白", "黄绿", "一两", "两三", "左右", "上下", "男女", "大小")


class Row(NamedTuple):
    """One pair with its label."""

    family: str
    picture: str
    kind: str
    caption: str
    phash: int
    phash_mirrored: int
    phash_inside: int | None
    image_grid: bytes
    image_grid_inside: bytes | None
    width: int
    height: int


def make(pictures: int, reposts: int, seed: int, photos: Path | None, mirrored: bool = False) -> pl.DataFrame:
    """Rows of ``pictures`` drawn scenes and all photos under ``photos``, each with ``reposts`` reposts."""
    drawn = random.Random(seed)
    bases = list(_scenes(pictures, seed))
    changes = MIRRORED if mirrored else PICTURES
    bases += list(_photos(photos, drawn)) if photos else []
    rows = [row for number, base in enumerate(bases) for row in _family(f"p{number}", *base, reposts, drawn, changes)]
    rows += _shared_captions(bases, drawn)
    drawn.shuffle(rows)
    schema = {
        "phash": pl.UInt64,
        "phash_mirrored": pl.UInt64,
        "phash_inside": pl.UInt64,
        "width": pl.UInt32,
        "height": pl.UInt32,
    }
    frame = pl.DataFrame(rows, schema_overrides=schema, orient="row")
    keys = pl.format("{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(32))
    return frame.with_columns(key=keys, origin=keys, score=pl.lit(0.5, pl.Float32), detail=pl.lit(None, pl.String))


def _scenes(count: int, seed: int) -> Iterator[tuple[Pixels, list[str]]]:
    random_ = np.random.default_rng(seed)
    for _ in range(count):
        scene = random_scene(random_)
        yield render(scene, 192), [caption(scene, random_)]


def _photos(folder: Path, drawn: random.Random) -> Iterator[tuple[Pixels, list[str]]]:
    for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        path = folder / "images_224" / told["image"]
        if told["has_image"] and path.exists():
            image = cv2.imread(str(path))
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), drawn.sample(told["zh"], len(told["zh"]))


def _family(
    name: str, image: Pixels, captions: list[str], reposts: int, drawn: random.Random, changes: Changes
) -> Iterator[Row]:
    text = captions[0]
    yield _row(name, name, "original", text, image)
    for _ in range(reposts):
        change = drawn.choice(list(CAPTIONS))
        alter = drawn.choice(list(changes))
        yield _row(name, name, f"{alter} + {change}", CAPTIONS[change](text, drawn), changes[alter](image, drawn))
    for pair in TELLING:
        other = _telling(text, pair)
        if other:
            yield _row(f"{name} telling", name, "telling word", other, PICTURES["re-encoded"](image, drawn))
            break
    taken = [text]
    for number, other in enumerate(captions[1:]):
        if all(_alike(other, t) <= UNDECIDED for t in taken):
            taken.append(other)
            yield _row(f"{name} caption {number}", name, "other caption", other, image)


def _shared_captions(bases: list[tuple[Pixels, list[str]]], drawn: random.Random) -> Iterator[Row]:
    """Every fifth caption again under five other pictures; all must stay."""
    for number in range(0, len(bases), 5):
        text = bases[number][1][0]
        for other in drawn.sample(range(len(bases)), 5):
            if other != number and all(_alike(text, c) < 0.3 for c in bases[other][1]):
                yield _row(f"p{other} under {number}", f"p{other}", "shared caption", text, bases[other][0])


def _row(family: str, picture: str, kind: str, text: str, image: Pixels) -> Row:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    seen = fingerprint(np.ascontiguousarray(image[..., ::-1]), grey)
    return Row(family, picture, kind, text, *seen[:-1], image.shape[1], image.shape[0])


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.strip("。 "), b.strip("。 "), autojunk=False).ratio()


def _telling(text: str, pair: str) -> str | None:
    one, other = pair
    if (one in text) == (other in text):
        return None
    return text.replace(one, other) if one in text else text.replace(other, one)


def _changed(text: str, drawn: random.Random) -> str:
    """One character replaced, inserted or removed; two from 13 characters on."""
    chars = list(text)
    for _ in range(1 + (len(text) >= 13 and drawn.random() < 0.5)):
        at = drawn.randrange(len(chars))
        chars[at : at + 1] = drawn.choice([[drawn.choice(COMMON)], [chars[at], drawn.choice(COMMON)], []])
    return "".join(chars)


@cache
def _traditional() -> OpenCC:
    return OpenCC("s2t")


def _wide(text: str, drawn: random.Random) -> str:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return wide.replace("，", drawn.choice([",", " ", "，"])).rstrip("。") + drawn.choice(["！", "。", "…", " "])


def _encode(image: Pixels, quality: int) -> Pixels:
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.uint8)


def _resize(image: Pixels, drawn: random.Random) -> Pixels:
    scale = drawn.uniform(0.4, 1.5)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return _encode(cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8), 85)


def _crop(image: Pixels, drawn: random.Random) -> Pixels:
    h, w = image.shape[:2]
    top, bottom, left, right = (drawn.uniform(0, 0.03) for _ in range(4))
    return _encode(image[int(top * h) : h - int(bottom * h), int(left * w) : w - int(right * w)], 85)


def _watermark(image: Pixels, drawn: random.Random) -> Pixels:
    out = image.copy()
    at = (drawn.randrange(4, max(5, image.shape[1] // 2)), image.shape[0] - drawn.randrange(6, 20))
    cv2.putText(out, "www.example.cn", at, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
    return _encode(out, 85)


def _brighten(image: Pixels, drawn: random.Random) -> Pixels:
    return _encode(np.clip(image * drawn.uniform(0.85, 1.15) + drawn.uniform(-15, 15), 0, 255).astype(np.uint8), 85)


def _frame(image: Pixels, drawn: random.Random) -> Pixels:
    """A plain frame, a letterbox or a strip, white, black or of one grey."""
    grey = drawn.choice([0, 255, drawn.randrange(256)])
    h, w = image.shape[:2]
    sides = drawn.choice(["all", "letterbox", "below"])
    wide = [round(side * drawn.uniform(0.02, 0.12)) for side in (h, h, w, w)]
    wide = [n if sides == "all" or (sides == "letterbox" and i < 2) or i == 1 else 0 for i, n in enumerate(wide)]
    return _encode(cv2.copyMakeBorder(image, *wide, cv2.BORDER_CONSTANT, value=(grey,) * 3).astype(np.uint8), 85)


def _mirror(image: Pixels, drawn: random.Random) -> Pixels:
    return _encode(np.ascontiguousarray(image[:, ::-1]), 85)


CAPTIONS: dict[str, Callable[[str, random.Random], str]] = {
    "same caption": lambda text, drawn: text,
    "suffix": lambda text, drawn: text + drawn.choice(SUFFIXES),
    "traditional": lambda text, drawn: str(_traditional().convert(text)),
    "width and punctuation": _wide,
    "characters changed": _changed,
}
PICTURES: Changes = {
    "same picture": lambda image, drawn: image.copy(),
    "re-encoded": lambda image, drawn: _encode(image, drawn.randrange(30, 90)),
    "resized": _resize,
    "cropped": _crop,
    "watermarked": _watermark,
    "brightness": _brighten,
    "framed": _frame,
}
MIRRORED: Changes = {**PICTURES, "mirrored": _mirror}
