"""The faults planted in the sample crawl, each with what a right pipeline makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .draw import render
from .world import COLOURS, KINDS, SCENES, Scene, Thing, caption, caption_en, random_scene, say

Pixels = NDArray[np.uint8]
SIDE = 288

SURNAMES = "王李张刘陈杨赵黄周吴"
GIVEN = ("建国", "秀英", "志强", "丽华", "伟", "敏", "国庆", "晓明", "淑芬", "海涛")
TITLES = ("先生", "女士", "教授", "老师")
SENSITIVE_MASKED = ("赌博", "毒品", "枪支", "诈骗")
SENSITIVE_DROPPED = ("色情", "卖淫")
JAPANESE = (
    "駅前広場写真",
    "新幹線車両写真",
    "東京都庁展望室",
    "料理教室受付中",
    "歴史博物館入口",
    "鉄道図鑑発売中",
    "沖縄県観光協会",
    "気象庁発表資料",
)
KANA = ("赤い車が道に止まっています", "猫と犬の写真です", "きれいな花が咲いている庭")
KOREAN = ("빨간 자동차가 길에 있습니다", "고양이와 강아지 사진", "바다 위의 하얀 배")
BOILERPLATE = (
    *(
        "点击查看大图",
        "图片来源：新华社",
        "IMG_20240312_1432.jpg",
        "责任编辑：李明",
        "扫一扫关注公众号",
        "图片",
        "二维码",
    ),
    *("下载新闻客户端", "暂无图片", "微信图片_20230807"),
)
TAILS = ("（图片来源：视觉中国）", "_高清大图", " - 每日新闻网", "（资料图）", "，点击查看大图")


@dataclass
class Planted:
    """One pair of the sample and its truth.

    ``reasons`` are the reason words that are right (empty: the pair is kept); ``shipped`` is the caption as it
    should ship, where the fault is about that; ``group`` joins pairs of which one should stay.
    """

    fault: str
    caption: str
    image: bytes | None
    suffix: str = "jpg"
    status: str = "kept"
    reasons: tuple[str, ...] = ()
    shipped: str | None = None
    group: str = ""
    serve: dict[str, Any] = field(default_factory=dict)
    host: str = ""


def encode(pixels: Pixels, suffix: str = ".jpg", quality: int = 88) -> bytes:
    """``pixels`` (RGB) as a file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]), options)
    return data.tobytes()


def picture(scene: Scene, rng: np.random.Generator, side: int = SIDE) -> bytes:
    """The scene as a photograph of changing quality."""
    return encode(render(scene, side), quality=int(rng.integers(78, 94)))


def dropped(fault: str, words: str, image: bytes | None, *reasons: str, suffix: str = "jpg", **more: Any) -> Planted:
    """A pair that a stage should drop."""
    return Planted(fault, words, image, suffix, "dropped", reasons, **more)


def failed(fault: str, words: str, image: bytes | None, *reasons: str, **more: Any) -> Planted:
    """A pair that cannot be processed."""
    return Planted(fault, words, image, "jpg", "failed", reasons, **more)


def plant(rng: np.random.Generator, plan: Mapping[str, int] | None = None) -> list[Planted]:
    """All pairs of a sample crawl, clean and faulty; the same generator state gives the same pairs.

    ``plan`` tells how many scenes each maker of ``PLAN`` gets, by its name there; 0 where it names none.
    """
    pairs: list[Planted] = []
    plan = PLAN if plan is None else plan
    if unknown := sorted(plan.keys() - _MAKERS.keys()):
        raise ValueError(f"no fault is named {unknown[0]!r}; expected some of {', '.join(_MAKERS)}")
    for name, make in _MAKERS.items():
        n = plan.get(name, 0)
        for i in range(n):
            scene = random_scene(rng)
            pairs += make(scene, rng, i)
    return pairs


def _clean(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    del i
    return [Planted("clean", caption(scene, rng), picture(scene, rng))]


def _png(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    suffix = ("png", "webp")[i % 2]
    return [Planted("other_format", caption(scene, rng), encode(render(scene, SIDE), f".{suffix}"), suffix)]


def _large(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    del i
    big = cv2.resize(render(scene, 512), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    return [Planted("oversize", caption(scene, rng), encode(np.asarray(big, np.uint8), quality=80))]


def _gps(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    del i
    data = picture(scene, rng)
    return [Planted("personal_metadata", caption(scene, rng), data[:2] + _exif_with_place() + data[2:])]


def _exif_with_place() -> bytes:
    """An APP1 segment with a camera's name and a position."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0110] = "Sample Camera 9"
    exif.get_ifd(0x8825).update({1: "N", 2: (39.0, 54.0, 26.0), 3: "E", 4: (116.0, 23.0, 29.0)})
    body = exif.tobytes()
    body = body if body.startswith(b"Exif") else b"Exif\0\0" + body
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def _too_small(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    side = (40, 64, 80)[i % 3]
    return [dropped("too_small", caption(scene, rng), picture(scene, rng, side), "image_too_small")]


def _aspect(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    strip = render(scene, 512)[190:318] if i % 2 else render(scene, 512)[:, 200:320]
    return [dropped("bad_aspect", caption(scene, rng), encode(strip), "image_bad_aspect")]


def _corrupt(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    data = picture(scene, rng)
    broken = data[: len(data) // 3] if i % 2 else data[:20] + rng.integers(0, 256, 4000, dtype=np.uint8).tobytes()
    return [dropped("corrupt", caption(scene, rng), broken, "image_corrupt", "image_unsupported")]


def _bomb(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    import zlib

    side = (30000, 60000)[i % 2]
    head = side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(9000), 9))
        + chunk(b"IEND", b"")
    )
    return [dropped("bomb", caption(scene, rng), data, "image_bomb", suffix="png")]


def _animated(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    import io

    from PIL import Image

    del i
    frames = [Image.fromarray(render(scene, 160)), Image.fromarray(render(scene, 160)[:, ::-1].copy())]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=200)
    return [dropped("animated", caption(scene, rng), out.getvalue(), "image_animated", suffix="gif")]


def hazard(side: int) -> Pixels:
    """The stand-in for an unsafe image: diagonal stripes 8 pixels wide, magenta and black."""
    y, x = np.mgrid[0:side, 0:side]
    on = ((x + y) // 8) % 2 == 0
    return np.where(on[..., None], np.array((255, 0, 255)), np.array((0, 0, 0))).astype(np.uint8)


def _unsafe(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    pixels = render(scene, SIDE)
    side = int(SIDE * (0.6 + 0.1 * (i % 4)))
    pixels[:side, SIDE - side :] = hazard(side)
    return [dropped("unsafe", caption(scene, rng), encode(pixels, quality=85), "image_unsafe")]


def _foreign(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = (JAPANESE[i // 4 % len(JAPANESE)], KANA[i // 4 % 3], KOREAN[i // 4 % 3], caption_en(scene, rng))[i % 4]
    return [dropped("not_chinese", words, picture(scene, rng), "not_chinese")]


def _boilerplate(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = BOILERPLATE[i % len(BOILERPLATE)]
    right = ("boilerplate", "not_chinese") if words.isascii() else ("boilerplate",)
    return [dropped("boilerplate", words, picture(scene, rng), *right)]


def _tail(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = caption(scene, rng).rstrip("。")
    return [Planted("boilerplate_tail", words + TAILS[i % len(TAILS)], picture(scene, rng), shipped=words)]


def _masked(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    word = SENSITIVE_MASKED[i % len(SENSITIVE_MASKED)]
    words, image = caption(scene, rng).rstrip("。"), picture(scene, rng)
    return [Planted("sensitive_masked", f"{words}，远离{word}", image, shipped=f"{words}，远离{'＊' * len(word)}")]


def _worst(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = f"{caption(scene, rng).rstrip('。')}，{SENSITIVE_DROPPED[i % 2]}广告"
    return [dropped("sensitive_dropped", words, picture(scene, rng), "sensitive_word")]


def _named(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    surname, given = str(rng.choice(list(SURNAMES))), GIVEN[i % len(GIVEN)]
    words, title = caption(scene, rng).rstrip("。"), TITLES[i % len(TITLES)]
    forms = (
        (f"{words}，{surname}{given}{title}摄", f"{words}，【人名】{title}摄"),
        (f"{words}，记者{surname}{given}摄", f"{words}，记者【人名】摄"),
    )
    given_words, shipped = forms[i % 2]
    return [Planted("personal_name", given_words, picture(scene, rng), shipped=shipped)]


def _short(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = ("美图", "好看", "车", "花儿", "风景", "可爱")[i % 6]
    return [dropped("too_short", words, picture(scene, rng), "caption_too_short", "caption_uninformative")]


def _mismatched(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    """A caption of a scene that shares no kind, colour or place with the picture."""
    del i
    seen = {t.kind for t in scene.things} | {t.colour for t in scene.things} | {scene.background}
    while True:
        other = random_scene(rng)
        told = {t.kind for t in other.things} | {t.colour for t in other.things} | {other.background}
        if not seen & told:
            return [dropped("mismatched", caption(other, rng), picture(scene, rng), "low_score")]


def _exact(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    group = f"exact-{i}"
    pair = Planted("exact_duplicate", caption(scene, rng), picture(scene, rng), group=group)
    again = dropped("exact_duplicate", pair.caption, None, "same_pair", "pair_duplicate", group=group)
    return [pair, again]


def _near(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    group, words = f"near-{i}", caption(scene, rng).rstrip("。")
    if len(words) < 10:
        words = f"{words}，背景是{scene.background}"
    pixels = render(scene, SIDE)
    side = (256, 320, 224)[i % 3]
    again = np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    other = (f"{words}。", f"{words}！", words.replace("，", " "), f"{words}呢")[i % 4]
    first = Planted("near_duplicate", words, encode(pixels, quality=92), group=group)
    return [first, dropped("near_duplicate", other, encode(again, quality=70), "pair_duplicate", group=group)]


def _shared(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    """One caption, five pictures: all stay."""
    kind, colour = list(KINDS)[i % len(KINDS)], list(COLOURS)[i % len(COLOURS)]
    thing = Thing(kind, colour)
    words = say(thing, rng)
    places = list(SCENES)
    return [
        Planted(
            "shared_caption",
            words,
            picture(
                Scene((Thing(kind, colour, size=("", "大")[k % 2]),), places[(i + k) % 7], "", scene.style + k), rng
            ),
        )
        for k in range(5)
    ]


def _dead(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    words = caption(scene, rng)
    kinds: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("fetch_http_404", {"status": 404}, ""),
        ("fetch_http_500", {"status": 500}, ""),
        ("fetch_dns", {}, "gone.invalid"),
        ("fetch_not_an_image", {"body": "<html><title>登录</title></html>", "type": "text/html"}, ""),
        ("fetch_empty", {"body": ""}, ""),
    )
    reason, serve, host = kinds[i % len(kinds)]
    return [failed("dead_link", words, None, reason, serve=serve, host=host)]


def _opted_out(scene: Scene, rng: np.random.Generator, i: int) -> list[Planted]:
    del i
    header = {"X-Robots-Tag": "noai, noimageai"}
    return [failed("opted_out", caption(scene, rng), picture(scene, rng), "fetch_opted_out", serve={"headers": header})]


_MAKERS: dict[str, Callable[[Scene, np.random.Generator, int], list[Planted]]] = {
    "clean": _clean, "other_format": _png, "oversize": _large, "personal_metadata": _gps, "too_small": _too_small,
    "bad_aspect": _aspect, "corrupt": _corrupt, "bomb": _bomb, "animated": _animated, "unsafe": _unsafe,
    "not_chinese": _foreign, "boilerplate": _boilerplate, "boilerplate_tail": _tail, "sensitive_masked": _masked,
    "sensitive_dropped": _worst, "personal_name": _named, "too_short": _short, "mismatched": _mismatched,
    "exact_duplicate": _exact, "near_duplicate": _near, "shared_caption": _shared, "dead_link": _dead,
    "opted_out": _opted_out,
}  # fmt: skip
PLAN = {
    "clean": 150, "other_format": 8, "oversize": 2, "personal_metadata": 8, "too_small": 8, "bad_aspect": 6,
    "corrupt": 8, "bomb": 2, "animated": 3, "unsafe": 10, "not_chinese": 16, "boilerplate": 10,
    "boilerplate_tail": 15, "sensitive_masked": 10, "sensitive_dropped": 6, "personal_name": 14, "too_short": 6,
    "mismatched": 30, "exact_duplicate": 8, "near_duplicate": 15, "shared_caption": 6, "dead_link": 10, "opted_out": 3,
}  # fmt: skip
"""Scenes per fault in the sample crawl; duplicates make two pairs of a scene, shared captions five."""
