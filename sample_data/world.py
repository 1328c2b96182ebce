"""The sample world: seeded scenes of objects with colours, materials, counts and places.

A ``Scene`` is the truth; ``draw.render`` makes its picture and ``caption`` says it in Chinese. It
exists so that every stage can be measured against what was planted, and so that a small scorer
can be trained and shipped. It is no substitute for photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "红色": (208, 38, 40),
    "绿色": (44, 150, 62),
    "蓝色": (36, 84, 200),
    "黄色": (240, 204, 40),
    "紫色": (132, 52, 168),
    "橙色": (240, 128, 28),
    "白色": (240, 240, 236),
    "黑色": (34, 34, 38),
}
COLOURS_EN = dict(zip(COLOURS, ("red", "green", "blue", "yellow", "purple", "orange", "white", "black"), strict=True))


@dataclass(frozen=True)
class Kind:
    """A kind of object: its Chinese names (the first is the usual one), measure word and English name."""

    names: tuple[str, ...]
    measure: str
    english: str
    materials: tuple[str, ...] = ()
    flies: bool = False
    alive: bool = False


KINDS: dict[str, Kind] = {
    "cat": Kind(("猫", "小猫", "猫咪"), "只", "cat", alive=True),
    "dog": Kind(("狗", "小狗"), "只", "dog", alive=True),
    "bird": Kind(("小鸟", "鸟"), "只", "bird", flies=True, alive=True),
    "fish": Kind(("鱼", "小鱼"), "条", "fish", alive=True),
    "car": Kind(("汽车", "轿车", "小汽车"), "辆", "car"),
    "boat": Kind(("船", "小船", "帆船"), "艘", "boat"),
    "plane": Kind(("飞机", "客机"), "架", "plane", flies=True),
    "house": Kind(("房子", "小屋", "房屋"), "座", "house", ("木头",)),
    "tree": Kind(("树", "大树"), "棵", "tree"),
    "flower": Kind(("花", "花朵", "鲜花"), "朵", "flower"),
    "apple": Kind(("苹果",), "个", "apple"),
    "ball": Kind(("球", "皮球", "圆球"), "个", "ball", ("木头", "金属", "玻璃")),
    "cup": Kind(("杯子", "水杯"), "个", "cup", ("木头", "金属", "玻璃")),
    "chair": Kind(("椅子", "座椅"), "把", "chair", ("木头", "金属")),
    "umbrella": Kind(("雨伞", "伞"), "把", "umbrella", ("布",)),
    "book": Kind(("书", "书本"), "本", "book", ("布",)),
}
MATERIALS = {"木头": "wooden", "金属": "metal", "玻璃": "glass", "布": "cloth"}
SCENES = {
    "草地": "on the grass",
    "沙滩": "on the beach",
    "雪地": "in the snow",
    "夜晚": "at night",
    "房间": "in a room",
    "街道": "in the street",
    "湖边": "by the lake",
}
SIZES = {"": "", "大": "big", "小": "small"}
RELATIONS = {"左边": ("left of", "右边"), "上面": ("above", "下面")}
NUMBERS = ("零", "一", "两", "三", "四")
NUMBERS_EN = ("no", "a", "two", "three", "four")


@dataclass(frozen=True)
class Thing:
    """One kind of object in a scene, possibly several of it."""

    kind: str
    colour: str
    material: str = ""
    size: str = ""
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """One or two things on a background; with two, the first is ``relation`` (左边 or 上面) of the second."""

    things: tuple[Thing, ...]
    background: str
    relation: str = ""
    style: int = 0
    """Seeds what the caption does not say: jitter, light, clouds, noise."""


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn from ``rng``; two things of different kinds in 55 of 100 scenes."""
    kinds = list(rng.permutation(list(KINDS))[:2])
    two = rng.random() < 0.55
    things = tuple(_thing(rng, str(k), alone=not two) for k in kinds[: 2 if two else 1])
    relation = str(rng.choice(list(RELATIONS))) if two else ""
    return Scene(things, str(rng.choice(list(SCENES))), relation, int(rng.integers(2**31)))


def _thing(rng: np.random.Generator, kind: str, alone: bool) -> Thing:
    materials = KINDS[kind].materials
    material = str(rng.choice(materials)) if materials and rng.random() < 0.6 else ""
    count = int(rng.integers(1, 5)) if alone and rng.random() < 0.6 else 1
    size = str(rng.choice(list(SIZES))) if count == 1 else ""
    return Thing(kind, str(rng.choice(list(COLOURS))), material, size, count)


def say(thing: Thing, rng: np.random.Generator, measure: bool = True) -> str:
    """A thing in words: 三朵红色的花, 一个玻璃的蓝色杯子, 小白船."""
    kind = KINDS[thing.kind]
    name = str(rng.choice(kind.names))
    if thing.size and name.startswith("小") and thing.size == "大":
        name = kind.names[0].removeprefix("小")
    size = f"{thing.size}" if thing.size and not name.startswith(("大", "小")) else ""
    colour = thing.colour if rng.random() < 0.7 else thing.colour[0]
    joint = "的" if colour == thing.colour and rng.random() < 0.7 else ""
    material = {"木头": "木", "布": "布", "金属": "金属", "玻璃": "玻璃"}[thing.material] if thing.material else ""
    words = f"{size}{colour}{joint}{material}{name}" if rng.random() < 0.7 else f"{colour}{joint}{size}{material}{name}"
    return f"{NUMBERS[thing.count]}{kind.measure}{words}" if measure else words


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """The scene in Chinese: from a short headline to a full sentence, sometimes of only a part."""
    place = scene.background
    at = {"夜晚": "夜晚", "湖边": "湖边", "房间": "房间里", "街道": "街道上"}.get(place, f"{place}上")
    if len(scene.things) == 1:
        thing = scene.things[0]
        several = say(thing, rng)
        forms = (
            f"{at}有{several}",
            f"{at}的{several}",
            f"{several}，{at}",
            f"图中是{at}的{several}",
            f"这张照片里有{several}，背景是{place}。",
            f"{several}",
        )
        return str(rng.choice(forms))
    first, second = (say(t, rng) for t in scene.things)
    side = scene.relation
    other = RELATIONS[side][1]
    forms = (
        f"{at}，{first}在{second}的{side}",
        f"{at}，{second}在{first}的{other}",
        f"{side}是{first}，{other}是{second}，{at}",
        f"{at}有{first}和{second}",
        f"图中{side}有{first}，{other}有{second}。",
        f"{first}与{second}",
    )
    return str(rng.choice(forms))


def caption_en(scene: Scene, rng: np.random.Generator) -> str:
    """The same in English, for the trainers that align two languages."""
    del rng
    words = [_say_en(t) for t in scene.things]
    at = SCENES[scene.background]
    if len(words) == 1:
        return f"{words[0]} {at}"
    return f"{words[0]} {RELATIONS[scene.relation][0]} {words[1]} {at}"


def _say_en(thing: Thing) -> str:
    noun = KINDS[thing.kind].english
    plural = {"fish": "fish"}.get(noun, f"{noun}s")
    words = (NUMBERS_EN[thing.count], SIZES[thing.size], COLOURS_EN[thing.colour], MATERIALS.get(thing.material, ""))
    text = " ".join(w for w in (*words, noun if thing.count == 1 else plural) if w)
    return text.replace("a orange", "an orange", 1) if text.startswith("a orange") else text
