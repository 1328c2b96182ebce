"""Keeps Chinese. The script decides first, as a column expression; what is left is decided by marks of
the neighbours that also write in Han characters.

Statistical language identifiers fail on captions: py3langid keeps 60 to 67 % of short Chinese ones and
3 to 7 % of Cantonese. The rule here needs no model:

1. kana or hangul among the letters: Japanese or Korean (unless it is a trace in a long Han text);
2. too few Han characters among the letters: not Chinese (brand and unit tokens in Latin script are
   counted as one letter each, so that ``iPhone 15 Pro 手机壳`` stays);
3. Han only: what JIS X 0208 can write and neither GB 2312 nor Big5 can is Japanese (``scripts.py``), and so
   is what those can write too but holds a word that only Japanese has; function words name Cantonese
   and Wu. A character outside JIS X 0208 proves Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .scripts import character_class

_HAN = r"[\p{Han}々〆]"
_LATIN_TOKEN = r"[\p{Latin}][\p{Latin}0-9\-'.&+]*"


class Language(StageModel):
    """Names each caption's language by its script and marks, and keeps the Chinese ones."""

    name: ClassVar[str] = "language"
    adds: ClassVar[tuple[str, ...]] = ("lang", "han_ratio")

    keep: tuple[str, ...] = threshold(("zh", "yue", "wuu"), "languages that stay: zh, yue (Cantonese), wuu (Wu)")
    min_han: float = threshold(0.5, "share of Han among letters, a Latin word counting as one letter", ge=0, le=1)
    max_kana: float = Field(0.15, ge=0, le=1, description="share of kana or hangul a Chinese caption may quote")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("caption")
        han = text.str.count_matches(_HAN)
        kana = text.str.count_matches(r"[\p{Hiragana}\p{Katakana}]") - text.str.count_matches("[の〜・]")
        hangul = text.str.count_matches(r"\p{Hangul}")
        latin = text.str.count_matches(_LATIN_TOKEN)
        other = text.str.count_matches(r"[\p{Cyrillic}\p{Arabic}\p{Thai}\p{Hebrew}\p{Devanagari}\p{Greek}]")
        letters = han + kana.clip(0) + hangul + latin + other
        many = pl.when(letters > 0)
        chinese = text.str.contains(character_class("!jis"))
        mixed = text.str.contains(character_class("!gb2312")) & text.str.contains(character_class("!big5"))
        japanese = ~chinese & (mixed | text.str.contains(_words("japanese")))
        foreign = (kana.clip(0) / letters > self.max_kana) | (hangul / letters > self.max_kana)
        lang = (
            pl.when(letters == 0)
            .then(pl.lit("und"))
            .when(foreign & (hangul > kana))
            .then(pl.lit("ko"))
            .when(foreign & (han + kana > latin))
            .then(pl.lit("ja"))
            .when(han == 0)
            .then(pl.when(latin >= other).then(pl.lit("latin")).otherwise(pl.lit("other")))
            .when(japanese)
            .then(pl.lit("ja"))
            .when(text.str.contains(_words("cantonese")))
            .then(pl.lit("yue"))
            .when(text.str.contains(_words("wu")))
            .then(pl.lit("wuu"))
            .otherwise(pl.lit("zh"))
        )
        return batch.with_columns(lang=lang, han_ratio=many.then(han / letters).otherwise(0.0).round(4))

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"not_chinese": ~pl.col("lang").is_in(list(self.keep)) | (pl.col("han_ratio") < self.min_han)}


@cache
def _words(name: str) -> str:
    """One regular expression over a lexicon's lines; a line that begins with # is a comment."""
    text = (files(__package__) / "lexicons" / "language" / f"{name}.txt").read_text("utf-8")
    entries = [e for line in text.splitlines() if not line.startswith("#") for e in line.split()]
    single = "".join(e for e in entries if len(e) == 1)
    words = sorted((e for e in entries if len(e) > 1), key=len, reverse=True)
    return "|".join([*([f"[{single}]"] if single else []), *map(re.escape, words)])
