"""The words that hard negatives exchange, and where in a caption they stand as words of their own.

The lexicons are small lists in ``lexicons/`` that say in their first lines what they are. A caption is segmented
once; an attribute counts only where a word begins, and where it ends at a word's end or before a known noun: 黑狗 is 黑
and 狗, whatever the dictionary says, while 白菜, 黄瓜, 黑板 and 红绿灯 are nothing but themselves.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

NUMBERS = "一两二三四五六七八九十"
MEASURES = "只个条辆艘架座棵朵把本名位头匹件块张根支颗幅台栋间家瓶杯碗盘副顶面枝部列片双匹"
_JOINED = re.compile(
    rf"[戴穿骑玩踢打咬追接抢拿背抱牵遛喂举提扔推拉叼看弹吹拎开坐]着?|(?:[{NUMBERS}]?[{MEASURES}])?[大小老深浅淡红黄蓝绿白黑灰棕花]?"
)
"""What the dictionary joins with a noun that begins a word all the same: its verb (戴帽子), count or quality (白马)."""


@cache
def lines(name: str) -> tuple[str, ...]:
    """Lines of a lexicon, without comments."""
    text = (files(__package__) / "lexicons" / f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def groups(name: str) -> tuple[tuple[str, ...], ...]:
    """Groups of words that exclude one another, a line each."""
    return tuple(tuple(line.split()) for line in lines(name))


@cache
def table(name: str) -> dict[str, tuple[str, ...]]:
    """Word to what may stand in its place."""
    parts = (line.split(":") for line in lines(name))
    return {word.strip(): tuple(others.split()) for word, others in parts}


@cache
def pattern(name: str) -> re.Pattern[str]:
    """All words of a lexicon of groups, the longest first."""
    return alternatives(tuple(w for group in groups(name) for w in group))


@cache
def alternatives(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of ``words``, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(set(words), key=len, reverse=True))))


@dataclass(frozen=True)
class Noun:
    """A thing of nouns.txt: its names, the measure words that count it, and what excludes it."""

    category: str
    line: int
    names: tuple[str, ...]
    measures: str


@cache
def things() -> dict[str, Noun]:
    """Every name in nouns.txt to its thing."""
    found = {}
    for number, line in enumerate(lines("nouns")):
        category, _, items = line.partition(":")
        for item in items.split():
            names, _, measures = item.partition("/")
            thing = Noun(category, number, tuple(names.split("=")), measures)
            found.update(dict.fromkeys(thing.names, thing))
    return found


@cache
def others(thing: Noun) -> tuple[Noun, ...]:
    """The things that exclude ``thing``."""
    return tuple(dict.fromkeys(t for t in things().values() if t.line == thing.line and t != thing))


@cache
def nouns() -> frozenset[str]:
    """Every noun that an attribute may stand before."""
    heads = (*lines("heads"), *lines("material_heads"))
    return frozenset(things()) | {word for line in heads for word in line.split()}


_LONGEST = 5


@dataclass(frozen=True)
class Sentence:
    """A caption with the places where its words begin and end."""

    text: str
    starts: frozenset[int]
    ends: frozenset[int]
    words: tuple[tuple[int, int, str, str], ...]
    """(start, end, word, tag) in order."""

    def around(self, at: int) -> tuple[int, int, str, str]:
        """The word that holds the character at ``at``."""
        return self.words[bisect_right(self.words, at, key=lambda w: w[0]) - 1]

    def noun_at(self, at: int) -> str:
        """The longest known noun that begins at ``at`` and ends where a word does; empty where there is none."""
        known = nouns()
        for end in range(min(len(self.text), at + _LONGEST), at, -1):
            if end in self.ends and self.text[at:end] in known:
                return self.text[at:end]
        return ""

    def begins(self, at: int) -> bool:
        """Whether a word begins at ``at``: by the dictionary, or after a verb that it joined with its object."""
        if at in self.starts:
            return True
        before = self.text[self.around(at)[0] : at]
        return bool(_JOINED.fullmatch(before))

    def separate(self, start: int, end: int) -> bool:
        """Whether text[start:end] stands for itself: a word, or what qualifies a known noun right after it."""
        return self.begins(start) and (end in self.ends or bool(self.noun_at(end)))


@lru_cache(64)
def sentence(text: str) -> Sentence:
    """``text`` segmented."""
    import rjieba

    words, at = [], 0
    for word, tag in rjieba.tag(text):
        words.append((at, at + len(word), word, tag))
        at += len(word)
    return Sentence(text, frozenset(w[0] for w in words), frozenset(w[1] for w in words), tuple(words))


def found(text: Sentence, words: re.Pattern[str], harmless: str = "") -> Iterator[re.Match[str]]:
    """Matches that stand for themselves and that no longer harmless word (白菜, 大海) covers."""
    covered = [m.span() for m in pattern(harmless).finditer(text.text)] if harmless else []
    for match in words.finditer(text.text):
        start, end = match.span()
        if text.separate(start, end) and not any(a <= start and end <= b and b - a > end - start for a, b in covered):
            yield match
