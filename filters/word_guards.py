"""What tells a sensitive word from characters that happen to stand beside each other.

A caption is segmented once, by its dictionary words alone (no guessed ones): 大麻 in 买大麻烦不烦 ends inside 麻烦, and
裸贷 is not in the dictionary, yet nothing in 办裸贷 speaks against it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from functools import cached_property, lru_cache
from itertools import pairwise

from .disguises import Form
from .fold import MARKS, Folding
from .name_words import lexicon as names_lexicon
from .pinyin import foreign

SHORT = 3
"""Characters up to which an entry is held against word boundaries; longer ones rarely arise by chance."""
LETTERS = 4
"""Letters that an entry in pinyin alone must have: ma, hen and li are words of other languages."""
DIGITS = 4
"""Digits that an entry of digits alone must have to be found in other digits than its own."""
COMMON = 3000
"""Occurrences in the segmenter's dictionary from which a character is a word of its own, no disguise (在, 看, 狗).

With 20,000 entries drawn from a dictionary 0.03 % of photo captions then hold a false homophone of two characters; from
5,000 on it is 0.18 %, for 7 points more of recall.
"""

GRAMMAR = frozenset("着了过的地得上下在不是有和与一个们来去里到中出起看好要会能可很太都也就还又我你他她它这那")
"""Characters that stand beside any verb or noun; an entry of two characters with one of them has no homophones."""
EVERYDAY = 20_000
"""The same for the edges of longer entries, which more characters speak for."""

TORN = 50_000
"""Occurrences from which a character between marks is a word of its own (大, 人, 在).

With 20,000 entries no photo caption and 2 of 6,000 news sentences then hold a false hit across a mark; at 3,000 one,
for 50 points less of recall.
"""


class Text:
    """A caption, its folded forms, and its words as far as they are asked for. Offsets are of the folded text."""

    def __init__(self, caption: str, folding: Folding) -> None:
        self.caption = caption
        self.folding = folding
        self.plain, self.where = folding.plain_with_offsets(caption)
        self.key = folding.key(self.plain)

    def at(self, chosen: Sequence[int]) -> Text:
        """The same caption with some of the folded characters alone."""
        text = copy(self)
        for cached in ("words", "parted", "alone"):
            text.__dict__.pop(cached, None)
        text.plain, text.key = ("".join(s[i] for i in chosen) for s in (self.plain, self.key))
        text.where = [self.where[i] for i in chosen]
        return text

    @cached_property
    def words(self) -> list[tuple[int, int]]:
        """Start and end of each dictionary word."""
        return _words(self.plain)

    @cached_property
    def parted(self) -> list[tuple[int, int]]:
        """The same where signs and spaces that folding took out part words."""
        pieces: list[tuple[int, int]] = []
        start = 0
        for i in range(1, len(self.plain) + 1):
            if i == len(self.plain) or self.apart(i):
                pieces += [(a + start, b + start) for a, b in _words(self.plain[start:i])]
                start = i
        return pieces

    @cached_property
    def alone(self) -> frozenset[int]:
        """Characters that are a word of their own, or of one with their like (哈哈)."""
        return frozenset(i for a, b in self.words if len(set(self.key[a:b])) == 1 for i in range(a, b))

    def apart(self, i: int) -> bool:
        """Whether a sign or a space was taken out before character ``i``; what is invisible does not part."""
        between = self.caption[self.where[i - 1] + 1 : self.where[i]]
        return any(c.isspace() or unicodedata.category(c)[0] in "PSZ" for c in between)

    def gaps(self, start: int, end: int) -> list[int]:
        """The characters of a hit that something stood before."""
        return [i for i in range(start + 1, end) if self.apart(i)]

    def inside_latin(self, start: int, end: int) -> bool:
        """Whether the hit begins or ends amid a run of Latin letters, or of digits."""
        return self._joined(start - 1) or self._joined(end - 1)

    def _joined(self, i: int) -> bool:
        if i < 0 or i + 1 >= len(self.key) or self.apart(i + 1):
            return False
        a, b = self.plain[i], self.plain[i + 1]
        return a.isascii() and b.isascii() and ((a.isalpha() and b.isalpha()) or (a.isdigit() and b.isdigit()))

    def cuts(self, start: int, end: int, whole: bool = False) -> bool:
        """Whether the hit overlaps a word in part, or lies in a longer word that is not made of it.

        赌博机 is made of 赌博, 大麻哈鱼 is not of 大麻: 哈鱼 is no word.
        With ``whole`` no longer word will do.
        """
        for a, b in _near(self.words, start, end):
            if a < start or b > end:
                inside = a <= start and end <= b
                if not inside or whole or not _made_of(self.plain[a:b], start - a, end - a):
                    return True
        return bool(self.gaps(start, end)) and any(
            (a < start or b > end) and b - a > 1 for a, b in _near(self.parted, start, end)
        )

    def is_word(self, start: int, end: int) -> bool:
        """Whether a dictionary word of two characters or more lies within the stretch."""
        return any(start <= a and b <= end and b - a > 1 for a, b in _near(self.words, start, end))

    def holds_word(self, start: int, end: int) -> bool:
        """Whether a dictionary word of two characters or more reaches into the stretch."""
        return any(b - a > 1 for a, b in _near(self.words, start, end))


def disguised(text: Text, start: int, entry: str, form: Form) -> bool:
    """Whether a form of ``disguises.py`` at ``start`` is a disguise and not plain writing."""
    end = start + len(form.text)
    if text.inside_latin(start, end) or text.cuts(start, end):
        return False
    places = [(start + a, start + b) for a, b in form.places()]
    if form.kind == "split":
        # 女子 is a word; longer entries have more characters that speak for them, and 贝反毒 is 贩毒 all the same.
        return len(entry) > 2 or not any(text.is_word(a, b) for a, b in places)
    if form.kind == "initial":
        surface = text.caption[text.where[start] : text.where[end - 1] + 1]
        # Capitals before a character are labels (A座, T恤); where two characters are left they hide a word as well.
        return not _in_dictionary(surface) and (len(entry) > 2 or surface == surface.lower())
    if len(form.changes) == len(entry):
        parts = [a for a, _ in places]
        gaps = text.gaps(start, end)
        spelled_out = len(gaps) == end - start - 1
        return len(form.text) >= LETTERS and form.text not in foreign() and (spelled_out or set(gaps) <= set(parts))
    return True


def homophone(text: Text, start: int, end: int, entry: str) -> bool:
    """Whether the characters at ``start`` sound like the entry and are not words in their own right."""
    changed = [i for i in range(start, end) if text.key[i] != entry[i - start]]
    if not changed or (len(entry) == 2 and len(changed) == 2):
        return False
    if text.cuts(start, end) or any(text.holds_word(i, i + 1) for i in changed):
        return False
    if len(entry) > 2:
        # 着红色 is no 赭红色: what stands at the edge is a word beside a word.
        return not any(i in (start, end - 1) and _frequency(text.plain[i]) > EVERYDAY for i in changed)
    if any(c in GRAMMAR for c in entry):
        return False
    # 杜博 may be a person, and 在 or 看 is a word that stands beside any other.
    common = any(_frequency(text.plain[i]) > COMMON for i in changed)
    return not common and not (changed == [start] and text.plain[start] in names_lexicon("surnames"))


def torn(text: Text, start: int, end: int) -> bool:
    """Whether the marks in a hit tear it apart and do not just stand between clauses (适合成人，网站很多).

    They do where they leave single characters alone: all of three or more, or on one side of each mark one that is
    no everyday word by itself.
    """
    pieces = re.split(_MARKS, text.plain[start:end])
    if all(len(p) == 1 for p in pieces) and len(pieces) > 2:
        return True
    rare = [len(p) == 1 and _frequency(p) <= TORN for p in pieces]
    if len(pieces) == 2 and len(pieces[0]) == len(pieces[1]) == 1:
        return all(rare)
    return all(a or b for a, b in pairwise(rare))


_MARKS = re.compile(f"[{re.escape(''.join(sorted(MARKS)))}]+")


def digits_of_its_own(text: Text, start: int, end: int, plain_entry: str) -> bool:
    """False where a short entry of digits alone stands in other digits: 三五 is not 35."""
    return end - start >= DIGITS or not text.key[start:end].isdigit() or text.plain[start:end] == plain_entry


def _near(words: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """The words that overlap a stretch; they are in order and leave nothing out."""
    first = max(0, bisect_right(words, (start, sys.maxsize)) - 1)
    return [w for w in words[first : first + 1 + end - start] if w[0] < end and w[1] > start]


def _words(text: str) -> list[tuple[int, int]]:
    import rjieba

    out, at = [], 0
    for word in rjieba.cut(text, False):
        out.append((at, at + len(word)))
        at += len(word)
    return out


@lru_cache(4096)
def _made_of(word: str, start: int, end: int) -> bool:
    """Whether a dictionary word is one within it and more words: not 大麻哈鱼 of 大麻, not 海盗号 of 盗号."""
    import rjieba

    if any(len(r) > 1 and not rjieba.has_word(r) for r in (word[:start], word[end:])):
        return False
    across = (word[a:b] for a in range(len(word)) for b in range(a + 2, len(word) + 1) if _crosses(a, b, start, end))
    own = _frequency(word[start:end])
    return not any(rjieba.has_word(w) and _frequency(w) > own for w in across)


def _crosses(a: int, b: int, start: int, end: int) -> bool:
    """Whether two stretches overlap and neither holds the other."""
    return a < start < b < end or start < a < end < b


@lru_cache(8192)
def _frequency(word: str) -> int:
    """Occurrences of a word in the segmenter's dictionary."""
    import rjieba

    return int(rjieba.suggest_freq(word))


def _in_dictionary(word: str) -> bool:
    import rjieba

    return bool(rjieba.has_word(word) or rjieba.has_word(word.upper()))
