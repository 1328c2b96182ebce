"""Cuts what is not Chinese out of Chinese captions: the OPPOVL article removes such text; off unless a recipe names it.

Brand and unit tokens in Latin script stay, by form and not by list. Of a run of Latin words

- strong tokens stay wherever they are: with a digit (15cm, WH-1000XM5), all capitals (USB, NBA; up to three in a
  row, more are a sentence), capitals inside (iPhone, YouTube);
- the whole run stays if it has no ordinary word: at most four words, each a strong token, capitalised (Nike, Pro
  Max) or of up to three letters (vs, cm);
- else its other words go, with brackets that held nothing else.

Of other scripts all goes but single letters (の, α, μ), which Chinese captions use as signs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel
from .boilerplate import join_words, with_brackets, with_separators
from .spans import Span, mark, without_double_spaces

_LATIN = r"A-Za-z\u00c0-\u024f\u1e00-\u1eff"
_OTHER = {
    "kana": "\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\uff66-\uff9f",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3",
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u03ff",
    "hebrew": "\u0590-\u05ff",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "indic": "\u0900-\u0dff",
    "thai": "\u0e01-\u0eff",
}
"""Scripts other than Latin and Han, as ranges: Python's re knows no script names."""
_WORD = rf"[{_LATIN}0-9]+(?:['’.&+/-][{_LATIN}0-9]+)*"
_RUN = re.compile(rf"{_WORD}(?:[ ,.;:!?'’&+-]{{1,3}}{_WORD})*[.!?]?")
_CAPITALS_IN_A_ROW = 3


class Fragments(StageModel):
    """Cuts fragments in other languages out of captions; brand and unit tokens in Latin script stay."""

    name: ClassVar[str] = "fragments"
    adds: ClassVar[tuple[str, ...]] = ("fragments", "caption", "caption_offsets")

    short: int = Field(3, ge=0, description="letters of a Latin word that is a token whatever its case")
    brand_words: int = Field(4, ge=0, description="words of a run that may be a brand's name (iPhone 15 Pro Max: 4)")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        candidates = batch.select(pl.col("caption").str.contains(_candidate()).fill_null(False)).to_series()
        return mark(batch, "fragments", candidates, self._find)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {}

    def _find(self, caption: str) -> list[Span]:
        found = [*self._latin(caption), *_others(caption)]
        return without_double_spaces(caption, [_whole(caption, *piece) for piece in found])

    def _latin(self, caption: str) -> Iterator[tuple[int, int, str]]:
        """(start, end, category) of each stretch of Latin words that goes."""
        for run in _RUN.finditer(caption):
            words = list(re.finditer(_WORD, run.group()))
            strong = _strong([w.group() for w in words])
            ordinary = [
                not s and len(w.group()) > self.short and not w.group()[0].isupper()
                for w, s in zip(words, strong, strict=True)
            ]
            if not any(ordinary) and len(words) <= self.brand_words:
                continue
            start = None
            for word, stays in zip(words, strong, strict=True):
                if not stays and start is None:
                    start = word.start()
                if stays and start is not None:
                    yield run.start() + start, run.start() + word.start(), "latin"
                    start = None
            if start is not None:
                yield run.start() + start, run.end(), "latin"


def _strong(words: list[str]) -> list[bool]:
    """Which words of a run are tokens by their form alone."""
    capitals = [w.isupper() and not any(c.isdigit() for c in w) and len(w) > 1 for w in words]
    shouted = sum(capitals) > _CAPITALS_IN_A_ROW
    return [
        any(c.isdigit() for c in w)
        or (capital and not shouted)
        or (not w.isupper() and any(c.isupper() for c in w[1:]))
        for w, capital in zip(words, capitals, strict=True)
    ]


def _others(caption: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, category) of runs in other scripts; words of one script are one run."""
    for category, ranges in _OTHER.items():
        for run in re.finditer(rf"[{ranges}]+(?:[\s,.!?'・-]+[{ranges}]+)*", caption):
            if len(run.group()) > 1:
                yield run.start(), run.end(), category


def _whole(caption: str, start: int, end: int, category: str) -> Span:
    """The cut with brackets that hold nothing else, and without dangling separators."""
    word = caption[start:end].strip()
    start, end = with_separators(caption, *with_brackets(caption, start, end))
    return Span(start, end, word[:60], category, "cut", join_words(caption, start, end))


@cache
def _candidate() -> str:
    """What a caption must have to be looked at: two letters in a row."""
    others = "|".join(f"[{ranges}]{{2}}" for ranges in _OTHER.values())
    return rf"[{_LATIN}]{{2}}|{others}"
