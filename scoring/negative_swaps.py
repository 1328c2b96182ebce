"""Negatives by exchange: two things change places, or two attributes change things.

Nothing is put into the caption, so what is asked is that it then says something else: 黑狗和白狗 turned round is the
same, and so is any relation that holds both ways (和, 旁边, 一起).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .negative_attributes import colours, head, living
from .negative_words import MEASURES, NUMBERS, Sentence, found, groups, pattern, things

_RELATION = re.compile(
    "(?:正在|正|在)?(?:追赶|追逐|追着|追|跟着|抱着|牵着|背着|推着|咬着|咬|扑向|走向|跑向|指着|喂|舔着|舔|骑着|欺负)"
)
"""Verbs that hold one way between two that can act; of two, both may look or pull."""

_PLACE = re.compile(r"在(.+?)的?((?:左|右|上|下|前|后)(?:边|面|方|侧))(?=[，。]?$)")
_COUNTED = re.compile(rf"(?:(?:[{NUMBERS}]|几|这|那)[{MEASURES}群])?")
_PHRASE = re.compile(
    rf"{_COUNTED.pattern}(?:[大小老高矮胖瘦黑白黄棕红蓝绿灰花]色?的?|[红橙黄绿蓝紫白黑灰棕粉金银]色的?|可爱的|年轻的)*"
)
_START = re.compile(r"(?:^|[，。上里中边前后有]|看到)$")


def swap(text: Sentence) -> Iterator[str]:
    """狗追猫 for 猫追狗, 甲在乙的左边 for 乙在甲的左边."""
    for start, end, noun in _phrases(text):
        relation = _RELATION.match(text.text, end)
        if relation and _acts(noun):
            yield from _turned(text, start, end, relation.end())
        placed = _PLACE.match(text.text, end)
        if placed and _START.search(text.text[:start]):
            whole = [p for p in _phrases(text) if p[0] == placed.start(1) and p[1] == placed.end(1)]
            if whole and text.text[start:end] != placed[1] and whole[0][2] != noun:
                yield f"{text.text[:start]}{placed[1]}在{text.text[start:end]}的{placed[2]}{text.text[placed.end() :]}"


def _turned(text: Sentence, start: int, end: int, at: int) -> Iterator[str]:
    """Subject and object of a relation exchanged, where both are whole phrases of beings and nothing hangs on them."""
    if not _START.search(text.text[:start]):
        return
    for first, last, noun in _phrases(text):
        if first != at or not _acts(noun):
            continue
        closed = re.match(r"[，。]|$|在|走|跑|散步|玩", text.text[last:])
        if closed and text.text[start:end] != text.text[first:last]:
            yield (
                text.text[:start]
                + text.text[first:last]
                + text.text[end:first]
                + text.text[start:end]
                + text.text[last:]
            )


def _acts(noun: str) -> bool:
    """Whether a noun names a being."""
    known = things().get(noun)
    return (known is not None and known.category == "person") or noun in ("人", "孩子") or living(noun)


def _phrases(text: Sentence) -> list[tuple[int, int, str]]:
    """(start, end, noun) of phrases with a known noun: 红色的汽车, 两只猫, 狗."""
    told, at = [], 0
    while at < len(text.text):
        counted, qualified = (p.match(text.text, at) for p in (_COUNTED, _PHRASE))
        # 小孩 is a noun before 小 is a quality of 孩.
        ends = [m.end() for m in (counted, qualified) if m]
        begin, noun = next(((e, n) for e in ends if (n := text.noun_at(e))), (at, ""))
        if noun and text.begins(at):
            told.append((at, begin + len(noun), noun))
            at = begin + len(noun)
        else:
            at += 1
    return told


def _sized(noun: str) -> bool:
    """Whether 大 and 小 before a noun tell its size: 大人 and 小孩 tell an age."""
    known = things().get(noun)
    return bool(noun) and noun[-1] not in "人孩友女男" and not (known and known.category == "person")


def rebind(text: Sentence) -> Iterator[str]:
    """红色的车和白色的房子 for 白色的车和红色的房子; not where both hold the same thing (黑狗和白狗)."""
    coloured = [(m.start(), m.end()) for m in colours(text)]
    sized = [
        m.span() for m in found(text, pattern("size")) if m.group() in ("大", "小") and _sized(head(text, m.end()))
    ]
    made = [m.span() for m in found(text, pattern("material"), "not_material") if head(text, m.end())]
    for name, places in (("colour", coloured), ("size", sized), ("material", made)):
        for (a, b), (c, d) in ((x, y) for x in places for y in places if x[0] < y[0]):
            one, two, between = text.text[a:b], text.text[c:d], text.text[b:c]
            if one == two or len(one) != len(two) or len(between) < 2:
                continue
            first, second = head(text, b), head(text, d)
            if not first or not second:
                continue
            same = first == second or things().get(first, first) == things().get(second, second)
            if same and not _RELATION.search(between):
                continue
            if name != "colour" and not any(one in g and two in g for g in groups(name)):
                continue
            yield text.text[:a] + two + between + one + text.text[d:]
