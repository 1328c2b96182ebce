"""Negatives by one word: colour, material, size, position, action, count, and the thing itself.

Each function takes a segmented caption and gives all (start, end, replacement) that it allows; which one is taken is
the caller's choice. What stands in a word's place must exclude it: no neighbouring shade, no hypernym, no synonym, and
no word that the caption already uses, which could be true of something else in the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from .negative_words import (
    MEASURES,
    NUMBERS,
    Sentence,
    alternatives,
    found,
    groups,
    lines,
    others,
    pattern,
    table,
    things,
)

Edit = tuple[int, int, str]
_FUR = ("头发", "毛", "长毛", "卷毛", "发", "胡子", "胡须", "长发", "短发", "卷发", "尾巴")
_SHADE = re.compile("[浅深淡亮暗鲜大纯嫩艳]$")
_QUALIFIERS = re.compile(r"(?:[大小长短胖瘦高矮老新旧花红黄蓝绿白黑灰棕粉紫橙金银]色?的?|可爱的?|漂亮的?|巨大的)*")


def colours(text: Sentence) -> Iterator[re.Match[str]]:
    """Colour words: 红色, 红 before a noun; groups ``name`` and ``se`` (色 or empty)."""
    for match in found(text, _colour_pattern(), "not_colour"):
        start, end = match.span()
        mixed = text.text[start - 1 : start] in _one_colour() or text.text[end : end + 1] in _one_colour()
        noun = text.noun_at(_past(text.text, end))
        skin = noun in things() and things()[noun].category == "person"
        bare = not match["se"] and (not noun or skin)
        other = _NO_COLOUR.match(text.text, end)
        if not (mixed or bare or other):
            yield match


_NO_COLOUR = re.compile("相间|的?皮肤|情|狂|彩")
"""What makes of a colour word something else than the colour of a thing."""


@cache
def _colour_pattern() -> re.Pattern[str]:
    return re.compile(f"(?P<name>{alternatives(tuple(table('colour'))).pattern})(?P<se>色?)")


@cache
def _one_colour() -> frozenset[str]:
    return frozenset(w for w in table("colour") if len(w) == 1)


def _past(text: str, at: int) -> int:
    """Where the noun begins that words before ``at`` qualify: past 的 and further qualifiers."""
    found = _QUALIFIERS.match(text, at + (text[at : at + 1] == "的"))
    return found.end() if found else at


def head(text: Sentence, at: int) -> str:
    """The known noun that an attribute ending at ``at`` qualifies; empty where none is known."""
    for start in dict.fromkeys((at, at + (text.text[at : at + 1] == "的"), _past(text.text, at))):
        if noun := text.noun_at(start):
            return noun
    return ""


def colour(text: Sentence) -> Iterator[Edit]:
    """红色的车 for 蓝色的车; animals and hair take the colours that they have."""
    matches = list(colours(text))
    used = {c for m in matches for c in m["name"]}
    for match in matches:
        noun = head(text, match.end())
        natural = noun in _FUR or living(noun)
        options = table("colour_natural" if natural else "colour").get(match["name"], ())
        if _SHADE.search(text.text[: match.start()]):
            options = tuple(o for o in options if o not in "白黑")
        for option in options:
            if option not in used:
                yield match.start(), match.end(), option + match["se"]


def living(noun: str) -> bool:
    """Whether a noun names an animal."""
    known = things().get(noun)
    return (known is not None and known.category == "animal") or noun[-1:] in tuple("狗猫犬马牛羊鸟鱼鸡")


def size(text: Sentence) -> Iterator[Edit]:
    """大球 for 小球; 小狗 is what one calls any dog, and stays."""
    for match in found(text, pattern("size"), "not_size"):
        end = match.end()
        noun = head(text, end)
        if match.group() in ("大", "小") and (not noun or noun[-1] == "人" or (match.group() == "小" and living(noun))):
            continue
        if match.group() in ("胖", "瘦") and not (text.noun_at(_past(text.text, end))):
            continue
        yield from _exchange(text.text, match, "size")


def material(text: Sentence) -> Iterator[Edit]:
    """木桥 for 石桥: a material before something that is made of either."""
    for match in found(text, pattern("material"), "not_material"):
        end = match.end()
        after = text.text[end:].removeprefix("做的").removeprefix("的")
        held = next((w for w in _material_heads() if after.startswith(w)), None)
        if held and len(text.text) - len(after) + len(held) in text.ends:
            soft = held in groups("material_soft")[1]
            yield from _exchange(text.text, match, "material_soft" if soft else "material")


@cache
def _material_heads() -> tuple[str, ...]:
    return tuple(sorted((w for line in lines("material_heads") for w in line.split()), key=len, reverse=True))


_IN_WATER = re.compile("[游泳划潜浮捞钻溅淹冲跳掉落扑]")


def position(text: Sentence) -> Iterator[Edit]:
    """左边 for 右边, 草地上 for 沙滩上; not where the caption names what belongs to the place (在雪地玩雪)."""
    for match in pattern("position").finditer(text.text):
        start, end = match.span()
        if not text.begins(start) or (text.text[end : end + 1] == "一" and text.text[end : end + 2] != "一个"):
            continue
        if match.group()[-1] in "地滩坪" and text.text[end : end + 1] in ("上", "里", "中", "车", "靴", "鞋"):
            continue
        rest = text.text[:start] + text.text[end:]
        if match.group()[-1] == "上" and "下" in rest:
            continue
        if match.group()[0] in "水河泳游" and _IN_WATER.search(rest):
            continue
        if any(mark in rest for mark in "雪草沙水海冰树" if mark in match.group()):
            continue
        for edit in _exchange(text.text, match, "position"):
            # A place that holds another one, named too, stays possible: 沙滩 and 海边.
            if not any(mark in rest for mark in "雪草沙水海冰树街路" if mark in edit[2]):
                yield edit


def _exchange(text: str, match: re.Match[str], name: str) -> Iterator[Edit]:
    """The other words of a match's first group that the text does not hold yet."""
    group = next((g for g in groups(name) if match.group() in g), ())
    rest = text[: match.start()] + text[match.end() :]
    for word in group:
        if word != match.group() and word not in rest:
            yield match.start(), match.end(), word


@cache
def _actions() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Action to its frame and to what may stand in its place."""
    told = {}
    for line in lines("action"):
        left, _, right = line.partition(":")
        frame, word = left.split()
        told[word] = (frame, tuple(right.split()))
    return told


_FREE = re.compile(r"(?:[，。！]|$|的(?!时候|很|非常|好|速度)|着[，。]|着$|了[，。]|了$)")
_FOR = re.compile("[给为帮替用]")
_BOUND = re.compile("着|了[，。]?$")
_SEPARABLE = frozenset("觉步舞架车水照书画球路")
"""Last characters of verbs that hold their object and take no 着 after it (睡觉, 跑步)."""
_BEFORE = re.compile(r"(?:[起往向朝爬把被给贴玩做搞的]|为了|准备|开始|停止|参加|学习|练习|不|没有?|一起)$")


def action(text: Sentence) -> Iterator[Edit]:
    """坐在 for 站在, 打篮球 for 踢足球: where the sentence goes on as it would with the other."""
    known = _actions()
    for match in alternatives(tuple(known)).finditer(text.text):
        (start, end), (frame, options) = match.span(), known[match.group()]
        if not text.begins(start) or (end not in text.ends and frame != "at") or _BEFORE.search(text.text[:start]):
            continue
        if frame in ("free", "whole") and (not _FREE.match(text.text, end) or _FOR.search(text.text[:start])):
            continue
        if frame in ("at", "with") and (
            end == len(text.text) or (text.text[end] in "，。的一了" and text.text[end : end + 2][1:] not in MEASURES)
        ):
            continue
        if frame in ("being", "wheels") and not _fits(text, end, frame):
            continue
        rest = text.text[:start] + text.text[end:]
        if _BOUND.match(text.text, end):
            options = tuple(o for o in options if o[-1] not in _SEPARABLE)
        for option in options:
            # 骑马 where there is a 自行车 elsewhere would name it twice; 抱 and 抱着 are one action.
            if not any(part in rest for part in (option, option.rstrip("着在"))):
                yield start, end, option.removesuffix("着") if text.text[end : end + 1] == "着" else option


def _fits(text: Sentence, at: int, frame: str) -> bool:
    """Whether the object that begins at ``at`` is a being, or a thing on wheels."""
    counted = re.compile(rf"(?:[{NUMBERS}]?[{MEASURES}])?").match(text.text, at)
    start = counted.end() if counted else at
    noun = text.noun_at(start) or text.noun_at(_past(text.text, start))
    if frame == "wheels":
        return noun.endswith("车")
    return noun in ("人", "孩子") or living(noun) or (noun in things() and things()[noun].category == "person")


_COUNT = re.compile(
    rf"([{NUMBERS}])([{MEASURES}])(?!起|边|样|些|直|定|下|家|面|头|身|片|双)|([两三四五])(人)(?![行组间座份])"
)
_FOR_COUNT = ("before", "alone", "place", "body")


@cache
def _not_count(kind: str) -> re.Pattern[str]:
    words = [w for line in lines("not_count") if line.startswith(kind) for w in line.split()[1:]]
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))


def count(text: Sentence) -> Iterator[Edit]:
    """三只猫 for 两只猫. Always more: where there are three, two is true as well. The measure word stays right."""
    matches = list(_COUNT.finditer(text.text))
    if not matches or _not_count("alone").search(text.text):
        return
    for match in matches:
        number = match[1] or match[3]
        start = match.start()
        before = text.text[max(0, start - 2) : start]
        if any(before.endswith(w) for w in _before()) or (before and before[-1] in NUMBERS):
            continue
        after = _past(text.text, match.end())
        if _not_count("body").match(text.text, after) or _counts_a_place(text, after):
            continue
        at = "一两三四五六七八九十".find("两" if number == "二" else number)
        for option in "一两三四五六七八九十"[at + 1 : at + 4]:
            yield start, start + 1, option


@cache
def _before() -> tuple[str, ...]:
    return tuple(w for line in lines("not_count") if line.startswith("before") for w in line.split()[1:])


def _counts_a_place(text: Sentence, at: int) -> bool:
    """一条路上 and its like: how many there are is no matter of the image's."""
    match = _not_count("place").match(text.text, at)
    if match is None:
        return False
    return match.end() in text.ends or text.text[match.end() : match.end() + 1] in ("上", "里", "中", "边", "旁")


def thing(text: Sentence) -> Iterator[Edit]:
    """猫 for 狗: what excludes it and is counted alike, or is counted anew (一条狗, 一匹马)."""
    known = things()
    for match in alternatives(tuple(known)).finditer(text.text):
        start, end = match.span()
        noun = known[match.group()]
        if not text.separate(start, end) or end not in text.ends or text.noun_at(start) != match.group():
            continue
        before, rest = text.text[:start], text.text[:start] + "|" + text.text[end:]
        if (before[-1:] in ("打", "踢", "接", "轮")) or text.text[end : end + 1] in _COMPOUND:
            continue
        if noun.category not in ("person", "animal") and text.text[end : end + 1] in tuple("手迷友"):
            continue
        if noun.category == "person" and re.search("[他她]|男女|夫妇|情侣", text.text):
            continue
        counted = re.search(rf"[{NUMBERS}几这那每]([{MEASURES}])((?:(?![{MEASURES}]).){{0,6}}?)$", before)
        adjacent = counted is not None and _QUALIFIERS.fullmatch(counted[2])
        for other in others(noun):
            if any(name in rest for name in other.names) or any(n in rest for n in noun.names):
                continue
            parallel = len(other.names) == len(noun.names)
            name = other.names[noun.names.index(match.group()) if parallel else 0]
            if counted and adjacent and counted[1] not in other.measures:
                measured = text.text[counted.start(1) + 1 : start]
                yield counted.start(1), end, other.measures[0] + measured + name
            elif _far_measure(before, noun.measures) <= set(other.measures):
                yield start, end, name


_COMPOUND = frozenset("场员者队馆亭厅票皮肉奶汁店厂房屋架包套壳板圈式型形状样座垫绳鞍")
"""Characters that make one thing of a noun and themselves: 马鞍, 篮球场, 苹果汁, 电话亭."""


def _far_measure(before: str, measures: str) -> set[str]:
    """Measure words of the clause that may count the noun across a relative clause (一只在草地上跑的狗)."""
    clause = re.split("[，。]", before)[-1]
    return set(re.findall(rf"[{NUMBERS}几这那每]([{MEASURES}])", clause)) & set(measures)
