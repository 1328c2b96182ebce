"""Length and information of a caption: characters, distinct ones, repetition, entropy, a noun.

Bounds follow what published sets say: LAION asks for 5 characters of alt text, DanQing for 5 to 60 words
and a noun, Wukong drops what has no meaning. Four Chinese characters say about as much as those five
Latin ones twice over, and real captions of four (雪地里狗) describe their image.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from ..pipeline.stage import StageModel, threshold
from .words import with_tag


class Length(StageModel):
    """Drops captions that are too short, too long, or say nothing: digits, one repeated character, no noun."""

    name: ClassVar[str] = "length"
    adds: ClassVar[tuple[str, ...]] = ("chars", "distinct_chars", "repetition", "char_entropy", "has_noun")

    shortest: int = threshold(4, "characters; fewer letters and digits drop (LAION: 5)", ge=0)
    longest: int = threshold(200, "characters; more drop (DanQing: 60 words)", ge=1)
    min_distinct: int = threshold(3, "distinct letters and digits; fewer drop", ge=0)
    max_repetition: float = threshold(
        0.7, "share of the caption that repeats an earlier pair of characters", ge=0, le=1
    )
    require_noun: bool = threshold(False, "drop captions without a noun (DanQing does)")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        captions = batch["caption"].fill_null("")
        nouns = pl.Series("has_noun", with_tag(captions.str.slice(0, 400).to_list(), _NOUNS, beginning="n"))
        return batch.with_columns(*information(captions), nouns)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {
            "caption_too_short": pl.col("chars") < self.shortest,
            "caption_too_long": pl.col("chars") > self.longest,
            "caption_uninformative": (pl.col("distinct_chars") < self.min_distinct)
            | (pl.col("repetition") > self.max_repetition)
            | (pl.lit(self.require_noun) & ~pl.col("has_noun")),
        }


def information(captions: pl.Series) -> list[pl.Series]:
    """chars, distinct_chars, repetition and char_entropy of a column of captions, all at once.

    Letters and digits alone count. Repetition is 1 - distinct pairs of neighbours / pairs of neighbours;
    entropy is Shannon's, in bits, of the letters. Both are rounded to four decimals, so that no decision hangs
    on the last bit.
    """
    rows = len(captions)
    lengths = captions.str.len_chars().to_numpy().astype(np.int64)
    codes = np.frombuffer("".join(captions.to_list()).encode("utf-32-le"), dtype=np.uint32)
    row = np.repeat(np.arange(rows), lengths)
    kept = _alphanumeric()[codes]
    codes, row = codes[kept].astype(np.uint64), row[kept].astype(np.uint64)
    chars = np.bincount(row.astype(np.int64), minlength=rows)

    of, counts = _runs(np.bitwise_or(row << np.uint64(21), codes, dtype=np.uint64), 21)
    distinct = np.bincount(of, minlength=rows)
    share = counts / chars[of]
    entropy = np.bincount(of, weights=-share * np.log2(share), minlength=rows)

    # Neighbours within one caption: 21 bits a character leave 22 for the row, more than a batch ever has.
    beside = row[1:] == row[:-1]
    pairs = (row[1:][beside] << np.uint64(42)) | (codes[:-1][beside] << np.uint64(21)) | codes[1:][beside]
    different = np.bincount(_runs(pairs, 42)[0], minlength=rows)
    all_pairs = np.maximum(chars - 1, 0)
    repetition = np.where(all_pairs > 0, 1 - different / np.maximum(all_pairs, 1), 0.0)
    return [
        pl.Series("chars", chars, dtype=pl.UInt32),
        pl.Series("distinct_chars", distinct, dtype=pl.UInt32),
        pl.Series("repetition", np.round(repetition, 4), dtype=pl.Float32),
        pl.Series("char_entropy", np.abs(np.round(entropy, 4)), dtype=pl.Float32),
    ]


def _runs(values: npt.NDArray[np.uint64], bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row (the bits above ``bits``) and count of each distinct value."""
    distinct, counts = np.unique(values, return_counts=True)
    return (distinct >> np.uint64(bits)).astype(np.int64), counts


@cache
def _alphanumeric() -> npt.NDArray[np.bool_]:
    """(0x110000,) whether a code point is a letter or a digit, as ``str.isalnum`` has it."""
    return np.fromiter((chr(c).isalnum() for c in range(0x110000)), dtype=np.bool_, count=0x110000)


_NOUNS = ("vn", "an", "j", "eng")
"""Tags of words that name something, beside those that begin with n."""
