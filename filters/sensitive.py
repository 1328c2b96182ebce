"""Sensitive words: masked, dropped or flagged by category, found through disguises, not inside other words.

The search runs over the folded caption (``fold.py``), over its syllables and over the entries' other spellings
(``word_search.py``). A hit must be no accident (``word_guards.py``): 大麻 in 大麻烦 is none, because the segmenter
reads 大 + 麻烦 and the hit would end inside 麻烦. Known tools take every substring (31 to 51 % of news captions hit,
with public lists).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, ClassVar, Literal, get_args

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .disguises import Form, latin_forms, split_forms
from .fold import MARKS
from .lexicon import load
from .pinyin import sounds
from .spans import Span, mark
from .word_guards import SHORT, Text, digits_of_its_own, disguised, homophone, torn
from .word_search import Search, search, squeeze

Kind = Literal["script", "width", "case", "digits", "symbols", "invisible", "repeats", "homophones", "split", "pinyin"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WORST = ("drop", "mask", "flag")


class Sensitive(StageModel):
    """Masks sensitive words, drops captions with words of the worst categories, and records every hit."""

    name: ClassVar[str] = "sensitive"
    adds: ClassVar[tuple[str, ...]] = ("sensitive", "caption", "caption_offsets")

    lexicons: tuple[str, ...] = Field(("default",), description="files of entries, or default; later ones win")
    foldings: tuple[Kind, ...] = Field(
        KINDS,
        description="disguises that are seen through: script (traditional), width, case, digits, symbols and "
        "spaces in between, invisible characters, repeats (赌赌博), homophones (堵博), split (贝者博), pinyin (dubo, "
        "d博); one that is left out is searched for as it stands",
    )
    mask: str = Field("＊", min_length=1, max_length=1, description="character that replaces each character of a hit")
    drop: bool = threshold(True, "drop captions with a word whose action is drop (off: they ship with it masked)")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        held = search(self.lexicons, frozenset(self.foldings))
        captions = batch["caption"]
        hits = pl.Series(held.candidates(captions.to_list()), dtype=pl.Boolean)
        return mark(batch, "sensitive", hits, lambda caption: find(caption, held, self.mask))

    def reasons(self) -> Mapping[str, pl.Expr]:
        worst = pl.col("sensitive").list.eval(pl.element().struct.field("action") == "drop").list.any()
        return {"sensitive_word": worst & pl.lit(self.drop)}

    def resources(self) -> Mapping[str, str]:
        return {"lexicon": load(self.lexicons).hash}


def find(caption: str, held: Search, mask: str = "＊") -> list[Span]:
    """The sensitive words of a caption as spans of it, sorted.

    Of two that overlap the one with the worse action stays, then the longer.
    """
    text = Text(caption, held.folding)
    kept: list[Span] = []
    found = set(_plain(text, held))
    if "repeats" in held.kinds:
        found |= set(_repeated(text, held, found))
    if "symbols" in held.kinds:
        found |= set(_across(text, held))
    found |= set(_other(text, held))
    spans = []
    for start, end, key in found:
        entry = held.entries[key]
        if _excepted(text, start, end, entry.exceptions):
            continue
        if "repeats" in held.kinds:
            start, end = _over_repeats(text, start, end)
        a, b = text.where[start], text.where[end - 1] + 1
        replacement = None if entry.action == "flag" else mask * (b - a)
        spans.append(Span(a, b, entry.word, entry.category, entry.action, replacement))
    taken = bytearray(len(caption))
    for span in sorted(spans, key=lambda s: (_WORST.index(s.action), s.start - s.end, s.start, s.word)):
        if not any(taken[span.start : span.end]):
            kept.append(span)
            taken[span.start : span.end] = b"\1" * (span.end - span.start)
    return sorted(kept)


def _plain(text: Text, held: Search) -> Iterator[tuple[int, int, str]]:
    """Entries as they stand in the folded text."""
    for index, start, end in held.words.find_matches_as_indexes(text.key, overlapping=True):
        key = held.keys[index]
        entry = held.entries[key]
        if text.inside_latin(start, end) or not digits_of_its_own(text, start, end, held.spoken(key)):
            continue
        if entry.boundary == "any":
            yield start, end, key
        elif entry.boundary == "word" or end - start <= SHORT or text.gaps(start, end):
            if not text.cuts(start, end, whole=entry.boundary == "word"):
                yield start, end, key
        else:
            yield start, end, key


def _repeated(text: Text, held: Search, found: Set[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Entries some of whose characters are repeated, where the text holds none without."""
    short, runs = squeeze(text.key)
    if len(short) == len(text.key):
        return
    view = text.at([a for a, _ in runs])
    known: dict[str, list[int]] = defaultdict(list)
    for a, _, key in sorted(found):
        known[key].append(a)
    automaton, keys = held.squeezed
    for index, first, last in automaton.find_matches_as_indexes(short, overlapping=True):
        key = keys[index]
        start, end = runs[first][0], runs[last - 1][1]
        asked = [b - a for a, b in squeeze(key)[1]]
        enough = all(b - a >= most for (a, b), most in zip(runs[first:last], asked, strict=True))
        within = bisect_left(known[key], end) > bisect_left(known[key], start)
        if enough and not within and not view.inside_latin(first, last) and not view.cuts(first, last):
            yield start, end, key


def _across(text: Text, held: Search) -> Iterator[tuple[int, int, str]]:
    """Entries with commas and other marks that end a clause between their characters (赌，博)."""
    kept = [i for i, c in enumerate(text.key) if c not in MARKS]
    if len(kept) == len(text.key):
        return
    view = text.at(kept)
    for index, first, last in held.words.find_matches_as_indexes(view.key, overlapping=True):
        start, end = kept[first], kept[last - 1] + 1
        crosses = end - start > last - first and torn(text, start, end)
        if crosses and not view.inside_latin(first, last) and not view.cuts(first, last):
            yield start, end, held.keys[index]


def _other(text: Text, held: Search) -> Iterator[tuple[int, int, str]]:
    """Entries in disguises that change their length or their characters."""
    if "split" in held.kinds:
        yield from _forms(text, held, held.split, lambda key: split_forms(key, held.folding))
    if "pinyin" in held.kinds and any("a" <= c <= "z" for c in text.plain):
        yield from _forms(text, held, held.latin, lambda key: latin_forms(key, held.spoken(key)))
    if "homophones" in held.kinds:
        automaton, keys = held.sound
        for index, start, end in automaton.find_matches_as_indexes(sounds(text.plain), overlapping=True):
            if homophone(text, start, end, keys[index]):
                yield start, end, keys[index]


def _forms(
    text: Text, held: Search, view: tuple[Any, list[str]], forms: Callable[[str], Iterable[Form]]
) -> Iterator[tuple[int, int, str]]:
    automaton, keys = view
    for index, start, end in automaton.find_matches_as_indexes(text.key, overlapping=True):
        for form in forms(keys[index]):
            if form.text == text.key[start:end] and disguised(text, start, keys[index], form):
                yield start, end, keys[index]


def _excepted(text: Text, start: int, end: int, exceptions: tuple[str, ...]) -> bool:
    """Whether the hit lies inside one of the entry's harmless longer words."""
    for longer in map(text.folding.fold, exceptions):
        at = text.key.find(longer, max(0, end - len(longer)))
        if 0 <= at <= start and at + len(longer) >= end:
            return True
    return False


def _over_repeats(text: Text, start: int, end: int) -> tuple[int, int]:
    """The hit with what repeats its first or last character and is no word's: 赌赌博, but not 贩毒 in 贩毒毒品."""
    first, last = text.key[start], text.key[end - 1]
    while not first.isascii() and start and text.key[start - 1] == first and start - 1 in text.alone:
        start -= 1
    while not last.isascii() and end < len(text.key) and text.key[end] == last and end in text.alone:
        end += 1
    return start, end
