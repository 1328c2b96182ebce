"""Keeps Chinese. The script decides first, as a column expression; what is left is decided by marks of
the neighbours that also write in Han characters.

Statistical language identifiers fail on captions: py3langid keeps 60 to 67 % of short Chinese ones and
3 to 7 % of Cantonese. The rule here needs a table of bytes at most:

1. kana or hangul among the letters: Japanese or Korean (unless it is a trace in a long Han text);
2. too few Han characters among the letters: not Chinese (brand and unit tokens in Latin script are
   counted as one letter each, so that ``iPhone 15 Pro 手机壳`` stays);
3. Han only: what JIS X 0208 can write and neither GB 2312 nor Big5 can is Japanese (``scripts.py``), and so
   is what those can write too but holds a word that only Japanese has, or reads so by the evidence of its
   characters and their neighbours (``han_words.py``); function words name Cantonese and Wu. A character outside
   JIS X 0208 proves Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .han_words import evidence, fingerprint
from .scripts import outside
from .shingles import I64, U32, code_points

_LATIN_TOKEN = r"[\p{Latin}][\p{Latin}0-9\-'.&+]*"
_OTHER = r"[\p{Cyrillic}\p{Arabic}\p{Thai}\p{Hebrew}\p{Devanagari}\p{Greek}]"

CHINESE_ONLY, NOT_GB2312, NOT_BIG5, HAN, KANA, HANGUL, ELSE = 1, 2, 4, 8, 16, 32, 64
"""What a character shows, as bits; what JIS X 0208 cannot write is Chinese only, else are letters of other scripts."""


class Language(StageModel):
    """Names each caption's language by its script and marks, and keeps the Chinese ones."""

    name: ClassVar[str] = "language"
    adds: ClassVar[tuple[str, ...]] = ("lang", "han_ratio")

    keep: tuple[str, ...] = threshold(("zh", "yue", "wuu"), "languages that stay: zh, yue (Cantonese), wuu (Wu)")
    min_han: float = threshold(0.5, "share of Han among letters, a Latin word counting as one letter", ge=0, le=1)
    japanese_evidence: float = Field(
        0.75,
        description="nats of evidence by characters and their neighbours from which on Han alone reads as Japanese; "
        "chosen on one half of benchmarks/japanese.py, whose other half is reported",
    )
    max_kana: float = Field(0.15, ge=0, le=1, description="share of kana or hangul a Chinese caption may quote")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("caption")
        codes, starts = code_points(batch["caption"].fill_null(""))
        kinds = _kinds()[np.minimum(codes, len(_kinds()) - 1)]
        counts = {name: _count(kinds, starts, flag) for name, flag in _COUNTED.items()}
        asked = {"reads": self._reads_japanese(codes, starts, counts)}
        for name, pattern in (("latin", _LATIN_TOKEN), ("other", _OTHER)):
            asked[name] = batch["caption"].str.count_matches(pattern) if (counts["else"] > 0).any() else counts["else"]
        shown = pl.DataFrame({"caption": batch["caption"], **counts, **asked})
        han, hangul, latin, other = (pl.col(name).cast(pl.Int64) for name in ("han", "hangul", "latin", "other"))
        # Chinese captions use these as ornaments.
        kana = (pl.col("kana") - text.str.count_matches("[の〜・]").cast(pl.Int64)).clip(0)
        letters = han + kana + hangul + latin + other
        many = pl.when(letters > 0)
        mixed = (pl.col("not_gb2312") > 0) & (pl.col("not_big5") > 0)
        japanese = (pl.col("chinese_only") == 0) & (
            mixed | text.str.contains(_words("japanese")) | (pl.col("reads") & (han > 1))
        )
        foreign = (kana / letters > self.max_kana) | (hangul / letters > self.max_kana)
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
        ratio = many.then(han / letters).otherwise(0.0).round(4)
        return batch.with_columns(shown.select(lang=lang, han_ratio=ratio))

    def _reads_japanese(self, codes: U32, starts: I64, counts: Mapping[str, pl.Series]) -> pl.Series:
        """(captions,) what the evidence says, asked only of captions that no character decides."""
        open_ = ((counts["chinese_only"] == 0) & (counts["han"] > 1)).to_numpy()
        lengths = np.diff(starts)
        own = np.concatenate([[0], np.cumsum(lengths[open_])])
        reads = np.zeros(len(lengths), dtype=np.bool_)
        reads[open_] = evidence(codes[np.repeat(open_, lengths)], own) > self.japanese_evidence
        return pl.Series(reads)

    def resources(self) -> Mapping[str, str]:
        return {"language_weights": fingerprint()}

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"not_chinese": ~pl.col("lang").is_in(list(self.keep)) | (pl.col("han_ratio") < self.min_han)}


_COUNTED = {
    "chinese_only": CHINESE_ONLY,
    "not_gb2312": NOT_GB2312,
    "not_big5": NOT_BIG5,
    "han": HAN,
    "kana": KANA,
    "hangul": HANGUL,
    "else": ELSE,
}


def _count(kinds: npt.NDArray[np.uint8], starts: I64, flag: int) -> pl.Series:
    """(captions,) how many characters of each caption show ``flag``."""
    hits = (kinds & flag) > 0
    if not hits.any():
        return pl.Series(np.zeros(len(starts) - 1, dtype=np.int64))
    return pl.Series(np.diff(np.concatenate([[0], np.cumsum(hits)])[starts]))


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """(0x32400,) what each code point shows; beyond are no letters."""
    kinds = np.zeros(0x32400, dtype=np.uint8)
    table = pl.Series(list(map(chr, [c if not 0xD800 <= c < 0xE000 else 0xFFFD for c in range(len(kinds))])))
    scripts = ((r"[\p{Han}々〆]", HAN), (r"[\p{Hiragana}\p{Katakana}]", KANA), (r"\p{Hangul}", HANGUL))
    for pattern, flag in scripts:
        kinds[table.str.contains(pattern).to_numpy()] |= flag
    kinds[table.str.contains(rf"\p{{Latin}}|{_OTHER}").to_numpy()] |= ELSE
    for name, flag in (("jis", CHINESE_ONLY), ("gb2312", NOT_GB2312), ("big5", NOT_BIG5)):
        kinds[list(map(ord, outside(name)))] |= flag
    return kinds


@cache
def _words(name: str) -> str:
    """One regular expression over a lexicon's lines; a line that begins with # is a comment."""
    text = (files(__package__) / "lexicons" / "language" / f"{name}.txt").read_text("utf-8")
    entries = [e for line in text.splitlines() if not line.startswith("#") for e in line.split()]
    single = "".join(e for e in entries if len(e) == 1)
    words = sorted((e for e in entries if len(e) > 1), key=len, reverse=True)
    return "|".join([*([f"[{single}]"] if single else []), *map(re.escape, words)])
