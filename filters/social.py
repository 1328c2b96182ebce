"""Emoji and hashtags: counted always; kept or cut by choice.

An emoji says little that an encoder's Chinese vocabulary holds, and #话题# is a mark of microblogs around words
that may well describe the picture. So the words of a tag stay by default and the marks go; emoji stay.

Runs after ``normalise``, which leaves single emoji of what joiners made one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel
from .spans import Span, mark, without_double_spaces

_MARK = "[#＃]"
# Pictographs with their skin tones and variation selectors, flags, keycaps: Emoji=Yes of Unicode's emoji-data without
# digits, # and *, and without ♀ and ♂, which captions use as signs; so are ★ and ♪, which are no emoji.
_PICTOGRAPHS = (
    "\u231a\u231b\u23e9-\u23f3\u23f8-\u23fa\u25fd\u25fe\u2600-\u2604\u260e\u2611\u2614\u2615\u2618\u261d\u2620\u2622\u2623"
    "\u2626\u262a\u262e\u262f\u2638-\u263a\u2648-\u2653\u265f\u2660\u2663\u2665\u2666\u2668\u267b\u267e\u267f\u2692-\u2697\u2699"
    "\u269b\u269c\u26a0\u26a1\u26a7\u26aa\u26ab\u26b0\u26b1\u26bd\u26be\u26c4\u26c5\u26c8\u26ce\u26cf\u26d1\u26d3\u26d4\u26e9\u26ea"
    "\u26f0-\u26f5\u26f7-\u26fa\u26fd\u2702\u2705\u2708-\u270d\u270f\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c"
    "\u274e\u2753-\u2755\u2757\u2763\u2764\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
    "\U0001f004\U0001f0cf\U0001f18e\U0001f300-\U0001faff"
)
EMOJI = f"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|[{_PICTOGRAPHS}][\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*)"
# #话题# as Weibo writes it; #tag as others do, to the next space or mark. #1 is a number, 3#楼 a house.
_TAG = re.compile(
    r"(?<![0-9A-Za-z])[#＃](?:([^#＃\s][^#＃\n]{0,38}[^#＃\s]|[^#＃\s])[#＃](?![0-9A-Za-z])|(\w*[^\W\d]\w*))"
)
_EMOJI = re.compile(EMOJI)


class Social(StageModel):
    """Counts emoji and hashtags and keeps or cuts them."""

    name: ClassVar[str] = "social"
    adds: ClassVar[tuple[str, ...]] = ("social", "emoji_count", "hashtag_count", "caption", "caption_offsets")

    emoji: Literal["keep", "cut"] = Field("keep", description="keep or cut emoji")
    hashtags: Literal["keep", "words", "cut"] = Field(
        "words", description="#话题# and #tag: keep as they are, keep the words without the marks, or cut both"
    )

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        marked = batch.select(pl.col("caption").str.contains("[#＃]").fill_null(False)).to_series()
        tags = [len(_TAG.findall(c)) if m else 0 for c, m in zip(batch["caption"], marked, strict=True)]
        batch = batch.with_columns(
            emoji_count=pl.col("caption").str.count_matches(EMOJI).fill_null(0).cast(pl.UInt32),
            hashtag_count=pl.Series(tags, dtype=pl.UInt32),
        )
        wanted = (pl.col("emoji_count") > 0) & (self.emoji == "cut")
        wanted |= (pl.col("hashtag_count") > 0) & (self.hashtags != "keep")
        return mark(batch, "social", batch.select(wanted).to_series(), self._find)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {}

    def _find(self, caption: str) -> list[Span]:
        found = []
        if self.emoji == "cut":
            found += [_span(m.start(), m.end(), m.group(), "emoji") for m in _EMOJI.finditer(caption)]
        if self.hashtags != "keep":
            for match in _TAG.finditer(caption):
                start, end = match.span()
                word = match.group(1) or match.group(2)
                if self.hashtags == "cut":
                    found.append(_span(start, end, word, "hashtag"))
                    continue
                found.append(_mark(caption, start, word))
                if match.group(1):
                    found.append(_mark(caption, end - 1, word))
        return without_double_spaces(caption, found)


def _span(start: int, end: int, word: str, category: str) -> Span:
    return Span(start, end, word, category, "cut", "")


def _mark(caption: str, at: int, word: str) -> Span:
    """A tag's mark; a space takes its place where words would run into one another."""
    before, after = caption[:at][-1:], caption[at + 1 :][:1]
    return Span(at, at + 1, word, "hashtag", "cut", " " if before.isalnum() and after.isalnum() else "")
