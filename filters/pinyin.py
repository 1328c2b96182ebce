"""How characters sound: readings without tones, and texts as strings of syllables. Data: pypinyin (MIT)."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

from .fold import without_marks

_FIRST = 0xE000
"""Syllables are characters of the private use area, so that one compiled search runs over them."""


@cache
def _readings() -> dict[int, str]:
    """Each character's commonest reading, without its tone."""
    from pypinyin.pinyin_dict import pinyin_dict

    return {code: _plain(told.partition(",")[0]) for code, told in pinyin_dict.items()}


@cache
def _ambiguous() -> frozenset[str]:
    """Characters that are read in several ways, tones aside."""
    from pypinyin.pinyin_dict import pinyin_dict

    return frozenset(chr(c) for c, told in pinyin_dict.items() if len({_plain(s) for s in told.split(",")}) > 1)


@cache
def _table() -> dict[int, str]:
    place = {syllable: chr(_FIRST + i) for i, syllable in enumerate(sorted(set(_readings().values())))}
    return {code: place[syllable] for code, syllable in _readings().items()}


@cache
def _places() -> dict[str, str]:
    return {_readings()[code]: place for code, place in _table().items()}


def sounds(text: str) -> str:
    """``text`` with each Chinese character as its syllable; the length stays."""
    return text.translate(_table())


@lru_cache(1 << 16)
def spoken(word: str) -> tuple[str, ...]:
    """The syllables of a word of Chinese characters alone, in Latin letters, as the word is read; else nothing."""
    from pypinyin import lazy_pinyin

    readings = _readings()
    told = tuple(readings.get(ord(c), "") for c in word)
    if not all(told) or _ambiguous().isdisjoint(word):
        return told if all(told) else ()
    read = tuple(_plain(s) for s in lazy_pinyin(word))
    return read if len(read) == len(word) else told


def sound_forms(word: str) -> list[str]:
    """A word as syllables: each character by its commonest reading and, where it differs, as the word is read."""
    plain = sounds(word)
    read = "".join(_places().get(s, c) for s, c in zip(spoken(word), plain, strict=False))
    return [plain] if len(read) != len(word) or read == plain else [plain, read]


def initials(syllable: str) -> tuple[str, ...]:
    """What stands for a syllable where one letter is written of it: zhi is z or zh."""
    return (syllable[0], syllable[:2]) if syllable[1:2] == "h" else (syllable[0],)


@cache
def foreign() -> frozenset[str]:
    """Latin words of other languages that read as pinyin too: panda, sushi, china."""
    text = (files(__package__) / "lexicons" / "pinyin" / "latin.txt").read_text("utf-8")
    return frozenset(w for line in text.splitlines() if not line.startswith("#") for w in line.split())


def _plain(syllable: str) -> str:
    return "".join(without_marks(c) for c in syllable)
