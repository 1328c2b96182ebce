"""One form for all disguises of a word, with the way back to where each character stood.

Folded: traditional to simplified, full to half width and other compatibility forms, case, styled and
Chinese-numeral digits stay as they are; symbols and spaces that were put between characters are
removed, but never the punctuation that ends a clause, across which no word reaches.
"""

from __future__ import annotations

import unicodedata
from functools import cache

CLAUSE = frozenset("，。！？；：、…,!?;:\n")


@cache
def _table() -> dict[int, str]:
    """What every character that folds becomes; looked up by ``str.translate``, so a caption costs one C loop."""
    import opencc

    simple = opencc.OpenCC("t2s")
    table: dict[int, str] = {}
    for code in range(0x30000):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cn", "Cs", "Co"):
            continue
        folded = unicodedata.normalize("NFKC", character).lower()
        if character in CLAUSE or folded in CLAUSE:
            folded = unicodedata.normalize("NFKC", character)
        elif category[0] in "PSZCM":
            folded = ""
        if 0x3400 <= code <= 0x9FFF or code >= 0x20000:
            one = simple.convert(character)
            folded = one if len(one) == 1 else folded
        if folded != character:
            table[code] = folded
    return table


def fold(text: str) -> str:
    """The folded text."""
    return text.translate(_table())


def fold_with_offsets(text: str) -> tuple[str, list[int]]:
    """The folded text and, for each of its characters, the index in ``text`` it came from."""
    table = _table()
    pieces, where = [], []
    for i, character in enumerate(text):
        folded = table.get(ord(character), character)
        pieces.append(folded)
        where += [i] * len(folded)
    return "".join(pieces), where
