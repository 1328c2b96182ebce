"""One form for the disguises of a word that change single characters, with the way back to where each stood.

Kinds, each of which can be left out:

- ``script``     traditional characters and their simplified forms are one (both sides are folded alike, character by
                 character, so that 乾 of 乾杯 and of 乾隆 need not be told apart);
- ``width``      full width, enclosed, styled and other compatibility forms (ｄｕ, 🅳, 𝒹, ㊙) are the plain one;
- ``case``       A is a;
- ``digits``     ４, ④, ⁴, ٤, 四 and 肆 are 4;
- ``symbols``    signs, spaces and emoji between characters are not there;
- ``invisible``  neither are zero-width characters, controls, combining marks and blank fillers.

What ends a clause (，。！？…) is not removed: words rarely reach across it (``sensitive`` looks for those that do).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any

CLAUSE = frozenset("，。！？；：、…,!?;:\n")
MARKS = CLAUSE - {"\n"}
SEPARATOR = "\x1e"
"""Stands between the captions of a batch that are folded in one go; stays as it is."""

CHARACTERS = ("script", "width", "case", "digits", "symbols", "invisible")
"""The kinds of this file."""

_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")
"""Letters and signs by their Unicode class that show nothing."""
_FORMS = frozenset(map(chr, (*range(0x2E80, 0x2FE0), *range(0x3200, 0x3400))))
"""Radicals, and characters in circles, brackets and squares."""
_BOXED = re.compile(r"(?:LATIN (?:CAPITAL|SMALL)|INDICATOR SYMBOL) LETTER ([A-Z])$")
_SAME = str.maketrans("著藉瞭", "着借了")
"""Traditional characters that OpenCC leaves alone because one of their meanings keeps them in simplified Chinese."""
_NUMERALS = str.maketrans("〇零一壹弌二贰弍三叁弎四肆五伍六陆七柒八捌九玖拾佰仟", "0011122233344556677889" + "9十百千")


class Folding:
    """The foldings of some kinds. ``plain`` is what a segmenter can read; ``key`` of it is what is compared.

    ``key`` keeps the length, so that an offset into one is an offset into the other.
    """

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self._table = _Table(kinds)
        self._second: dict[int, int] = {}
        if "script" in kinds:
            self._second |= _SAME
        if "digits" in kinds:
            self._second |= _NUMERALS

    def plain(self, text: str) -> str:
        """The folded text, numerals as they are."""
        return text.translate(self._table)

    def plain_with_offsets(self, text: str) -> tuple[str, list[int]]:
        """The folded text and, for each of its characters, the index in ``text`` it came from."""
        table = self._table
        pieces, where = [], []
        for i, character in enumerate(text):
            folded = table[ord(character)]
            pieces.append(folded)
            where += [i] * len(folded)
        return "".join(pieces), where

    def key(self, plain: str) -> str:
        """What is compared, for a text that ``plain`` gave."""
        return plain.translate(self._second) if self._second else plain

    def fold(self, text: str) -> str:
        """``key`` of ``plain``."""
        return self.key(self.plain(text))


@lru_cache(16)
def folding(kinds: frozenset[str]) -> Folding:
    """The foldings of ``kinds``; one object per process, since its table fills up as characters are met."""
    return Folding(kinds)


class _Table(dict[int, str]):
    """What each character becomes, worked out when it is first met; ``str.translate`` looks up in C."""

    def __init__(self, kinds: frozenset[str]) -> None:
        super().__init__({ord(SEPARATOR): SEPARATOR})
        self.kinds = kinds

    def __missing__(self, code: int) -> str:
        self[code] = folded = self._fold(chr(code))
        return folded

    def _fold(self, character: str) -> str:
        kinds = self.kinds
        compatible = unicodedata.normalize("NFKC", character)
        if character in CLAUSE or compatible in CLAUSE:
            return compatible if compatible in CLAUSE else character
        category = unicodedata.category(character)
        if category[0] == "N":
            if "digits" in kinds:
                value = unicodedata.digit(character, None)
                if value is None and category == "No" and (many := unicodedata.numeric(character)).is_integer():
                    value = int(many)
                if value is not None:
                    return str(value)
            elif category != "Nd":
                return character
        if (category[0] in "CM" and not character.isspace()) or character in _FILLERS:
            return "" if "invisible" in kinds else character
        if "width" in kinds:
            if box := _BOXED.search(unicodedata.name(character, "")) if category == "So" else None:
                character = box[1]
            elif category[0] in "LN" or (category == "So" and character in _FORMS):
                character = "".join(c for c in compatible if c.isalnum()) or character
        if unicodedata.category(character[0])[0] in "PSZ" or character.isspace():
            return "" if "symbols" in kinds else character
        if "pinyin" in kinds:
            character = without_marks(character)
        if "script" in kinds:
            simple = _simple().convert(character)
            character = simple if len(simple) == len(character) else character
        return character.lower() if "case" in kinds else character


def without_marks(text: str) -> str:
    """Latin letters without tone marks and accents; ü is v, as it is typed."""
    if text.isascii() or not unicodedata.name(text[0], "").startswith("LATIN"):
        return text
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if c == "\u0308" or not unicodedata.combining(c))
    return bare.replace("u\u0308", "v").replace("U\u0308", "V").replace("\u0308", "")


@cache
def _simple() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
