"""Hard negatives: captions that differ from the original in one attribute, and so are wrong about the image.

Kinds after SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610) and NegCLIP (Yuksekgonul et al. 2022), for
Chinese: colour, count (the measure word stays, 一 before it becomes 两 …), material, size, position, action,
swap (two objects change places) and rebind (two attributes change objects). Rules only: the same key
gives the same negatives anywhere.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.columns import NEGATIVE
from ..pipeline.stage import StageModel

KINDS = ("colour", "count", "material", "size", "position", "action", "swap", "rebind")
_MEASURES = "只个条辆艘架座棵朵把本名位头匹群双件块张片根支颗幅台栋间家瓶杯碗盘束串排"
_NUMBERS = ("一", "两", "三", "四", "五", "六", "七", "八", "九", "十")


class HardNegatives(StageModel):
    """Writes captions that are wrong in one attribute: colour, count, material, size, position, action, binding."""

    name: ClassVar[str] = "hard_negatives"
    phase: ClassVar[Any] = "emit"
    adds: ClassVar[tuple[str, ...]] = ("negatives",)

    kinds: tuple[str, ...] = Field(KINDS, description="kinds to try, in this order")
    most: int = Field(4, ge=0, description="negatives per pair at most")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        made = [
            [{"kind": k, "caption": c} for k, c in negatives(caption, key, self.kinds)[: self.most]]
            for caption, key in zip(batch["caption"], batch["key"], strict=True)
        ]
        return batch.with_columns(pl.Series("negatives", made, dtype=pl.List(NEGATIVE)))


def negatives(caption: str, key: str, kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    """(kind, caption) of each kind that the caption allows; none equals the original or another one."""
    found: dict[str, str] = {}
    for kind in kinds:
        made = _MAKERS[kind](caption, _Choice(key, kind))
        if made and made != caption and made not in found.values():
            found[kind] = made
    return list(found.items())


class _Choice:
    """Picks by a hash of key and kind, so that a pair's negatives are the same wherever it is processed."""

    def __init__(self, key: str, kind: str) -> None:
        self.number = int.from_bytes(hashlib.blake2b(f"{key}/{kind}".encode(), digest_size=8).digest(), "big")

    def of(self, options: list[str]) -> str | None:
        return options[self.number % len(options)] if options else None


@cache
def _groups(name: str) -> list[list[str]]:
    """Groups of words that exclude one another, a line each; # begins a comment."""
    text = (files(__package__) / "lexicons" / f"{name}.txt").read_text("utf-8")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    words = sorted((w for group in _groups(name) for w in group), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)))


def _occurrences(caption: str, name: str) -> list[re.Match[str]]:
    """Matches that no longer harmless word covers (白菜 is no colour, 大海 no size)."""
    covered = [m.span() for m in _pattern(f"not_{name}").finditer(caption)] if name in ("colour", "size") else []
    return [m for m in _pattern(name).finditer(caption) if not any(a <= m.start() and m.end() <= b for a, b in covered)]


def _replace_one(name: str) -> Callable[[str, _Choice], str | None]:
    def make(caption: str, choice: _Choice) -> str | None:
        found = _occurrences(caption, name)
        if not found:
            return None
        match = found[choice.number % len(found)]
        present = {m.group() for m in found}
        group = next(g for g in _groups(name) if match.group() in g)
        # A word that the caption uses already could make a sentence that is true of something else in it.
        other = choice.of([w for w in group if w not in present])
        return caption[: match.start()] + other + caption[match.end() :] if other else None

    return make


def _count(caption: str, choice: _Choice) -> str | None:
    found = re.search(
        rf"(?<![一二两三四五六七八九十第每几])([{''.join(_NUMBERS)}])(?=[{_MEASURES}](?!起|边|样|些|直|定|下))", caption
    )
    if not found:
        return None
    group = [n for n in _NUMBERS[:5] if n != found.group(1)]
    # 一群 and 一双 already mean several.
    if caption[found.end() : found.end() + 1] in "群双":
        return None
    return caption[: found.start()] + str(choice.of(group)) + caption[found.end() :]


def _noun_phrases(caption: str) -> list[tuple[int, int, str]]:
    """(start, end, noun) of phrases with a noun head: 红色的汽车, 两只猫."""
    import rjieba

    phrases, at = [], 0
    start: int | None = None
    for word, tag in rjieba.tag(caption):
        end = at + len(word)
        if tag in ("n", "nz") and len(word) >= 1:
            phrases.append((start if start is not None else at, end, word))
            start = None
        elif tag in ("m", "q", "a", "b", "uj", "mq") or word in ("的", "色"):
            start = at if start is None else start
        else:
            start = None
        at = end
    return phrases


_RELATION = re.compile(
    "(?:正在|在)?(?:追赶|追逐|追着|追|看着|望着|盯着|跟着|抱着|牵着|背着|靠着|拉着|推着|咬着|亲吻|扑向|走向|跑向|围着)(?:一起)?"
)
"""Verbs that hold between two things of a kind: exchanged, the sentence stays a sentence and means something else."""

_PLACED = re.compile(r"(.+?)在(.+?)的?((?:左|右|上|下|前|后)(?:边|面|方|侧))(?=[，。]?$)")


def _swap(caption: str, choice: _Choice) -> str | None:
    """Two things change places: 狗追猫 becomes 猫追狗, 甲在乙的左边 becomes 乙在甲的左边."""
    del choice
    clause = max(caption.rfind("，", 0, -1), caption.rfind("。", 0, -1)) + 1
    placed = _PLACED.match(caption, clause)
    if placed and placed.group(1) != placed.group(2) and not set(placed.group(1)) & set("站坐藏躺放有停"):
        one, two = placed.group(1), placed.group(2)
        return f"{caption[:clause]}{two}在{one}的{placed.group(3)}{caption[placed.end() :]}"
    phrases = _noun_phrases(caption)
    for (a, b, one), (c, d, two) in itertools.pairwise(phrases):
        if one != two and _RELATION.fullmatch(caption[b:c]):
            return caption[:a] + caption[c:d] + caption[b:c] + caption[a:b] + caption[d:]
    return None


def _rebind(caption: str, choice: _Choice) -> str | None:
    """Two attributes change objects; not where one noun bears both in a list (黑狗和白狗)."""
    del choice
    for name in ("colour", "material", "size"):
        found = _occurrences(caption, name)
        for first, second in ((x, y) for x in found for y in found if x.start() < y.start()):
            one, two = first.group(), second.group()
            between = caption[first.end() : second.start()]
            if one == two or len(one) != len(two) or len(between) < 2 or "相间" in caption:
                continue
            if _noun_after(caption, first.end()) == _noun_after(caption, second.end()):
                continue
            return caption[: first.start()] + two + between + one + caption[second.end() :]
    return None


def _noun_after(caption: str, at: int) -> str:
    return next((w for _, end, w in _noun_phrases(caption) if end > at), "")


_MAKERS: dict[str, Callable[[str, _Choice], str | None]] = {
    **{name: _replace_one(name) for name in ("colour", "material", "size", "position", "action")},
    "count": _count,
    "swap": _swap,
    "rebind": _rebind,
}
