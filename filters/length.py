"""Length and information of a caption: characters, distinct ones, repetition, entropy, a noun.

Bounds follow what published sets say: LAION asks for 5 characters of alt text, DanQing for 5 to 60 words
and a noun, Wukong drops what has no meaning. Four Chinese characters say about as much as those five
Latin ones twice over, and real captions of four (雪地里狗) describe their image.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from math import log2
from typing import ClassVar

import polars as pl

from ..pipeline.stage import StageModel, threshold


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
        rows = [_information(c or "") for c in batch["caption"]]
        told = pl.DataFrame(
            rows,
            schema={
                "chars": pl.UInt32,
                "distinct_chars": pl.UInt32,
                "repetition": pl.Float32,
                "char_entropy": pl.Float32,
                "has_noun": pl.Boolean,
            },
            orient="row",
        )
        return batch.hstack(told)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {
            "caption_too_short": pl.col("chars") < self.shortest,
            "caption_too_long": pl.col("chars") > self.longest,
            "caption_uninformative": (pl.col("distinct_chars") < self.min_distinct)
            | (pl.col("repetition") > self.max_repetition)
            | (pl.lit(self.require_noun) & ~pl.col("has_noun")),
        }


def _information(caption: str) -> tuple[int, int, float, float, bool]:
    """chars, distinct, repetition, entropy, has_noun of one caption."""
    letters = [c for c in caption if c.isalnum()]
    counts = Counter(letters)
    total = len(letters)
    entropy = -sum(n / total * log2(n / total) for n in counts.values()) if total else 0.0
    pairs = len(letters) - 1
    repeated = 1 - len(set(itertools.pairwise(letters))) / pairs if pairs > 0 else 0.0
    return total, len(counts), round(repeated, 4), round(entropy, 4), _has_noun(caption[:400])


def _has_noun(caption: str) -> bool:
    import rjieba

    return any(tag.startswith("n") or tag in ("vn", "an", "j", "eng") for _, tag in rjieba.tag(caption))
