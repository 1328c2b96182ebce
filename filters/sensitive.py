"""Sensitive words: masked, dropped or flagged by category, found through disguises, not inside other words.

The search runs over the folded caption (``fold.py``). Short entries must not cut a word in two: 大麻 in
大麻烦 is no hit, because the segmenter reads 大 + 麻烦 and the hit would end inside 麻烦. Known tools take
every substring (31 to 51 % of news captions hit, with public lists).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .fold import fold, fold_with_offsets
from .lexicon import Entry, Lexicon, load
from .spans import Span, mark

SHORT = 3
"""Characters up to which an entry is held against word boundaries; longer ones rarely arise by chance."""


class Sensitive(StageModel):
    """Masks sensitive words, drops captions with words of the worst categories, and records every hit."""

    name: ClassVar[str] = "sensitive"
    adds: ClassVar[tuple[str, ...]] = ("sensitive", "caption", "caption_offsets")

    lexicons: tuple[str, ...] = Field(("default",), description="files of entries, or default; later ones win")
    mask: str = Field("＊", min_length=1, max_length=1, description="character that replaces each character of a hit")
    drop: bool = threshold(True, "drop captions with a word whose action is drop (off: they ship with it masked)")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        lexicon = load(self.lexicons)
        search = lexicon.automaton.find_matches_as_indexes
        hits = pl.Series([bool(c) and bool(search(fold(c))) for c in batch["caption"]], dtype=pl.Boolean)
        return mark(batch, "sensitive", hits, lambda caption: find(caption, lexicon, self.mask))

    def reasons(self) -> Mapping[str, pl.Expr]:
        worst = pl.col("sensitive").list.eval(pl.element().struct.field("action") == "drop").list.any()
        return {"sensitive_word": worst & pl.lit(self.drop)}

    def resources(self) -> Mapping[str, str]:
        return {"lexicon": load(self.lexicons).hash}


def find(caption: str, lexicon: Lexicon, mask: str) -> list[Span]:
    """The sensitive words of a caption as spans of it, which may overlap: each entry has its own exceptions."""
    folded, where = fold_with_offsets(caption)
    ends: set[int] | None = None
    found = []
    for index, start, end in lexicon.automaton.find_matches_as_indexes(folded, overlapping=True):
        entry = lexicon.entries[lexicon.words[index]]
        if _excepted(folded, start, end, entry):
            continue
        if end - start <= SHORT:
            ends = _boundaries(folded) if ends is None else ends
            if _cuts_a_word(folded, start, end, ends):
                continue
        a, b = where[start], where[end - 1] + 1
        replacement = None if entry.action == "flag" else mask * (b - a)
        found.append(Span(a, b, entry.word, entry.category, entry.action, replacement))
    return found


def _excepted(folded: str, start: int, end: int, entry: Entry) -> bool:
    """Whether the hit lies inside one of the entry's harmless longer words."""
    for longer in entry.exceptions:
        at = folded.find(fold(longer), max(0, start - len(longer)))
        if 0 <= at <= start and at + len(longer) >= end:
            return True
    return False


def _boundaries(folded: str) -> set[int]:
    """Offsets at which the segmenter ends a word."""
    import rjieba

    ends, at = {0}, 0
    for word in rjieba.cut(folded):
        at += len(word)
        ends.add(at)
    return ends


def _cuts_a_word(folded: str, start: int, end: int, ends: set[int] | Sequence[int]) -> bool:
    """Whether a word of the segmentation overlaps the hit only in part."""
    before = max(e for e in ends if e <= start)
    after = min(e for e in ends if e >= end)
    inside = any(start < e < end for e in ends)
    return (before < start or after > end) and inside
