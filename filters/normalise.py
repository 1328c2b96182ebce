"""One spelling for captions: NFKC, spaces, control and zero-width characters, markup left over from pages.

Chinese punctuation stays full-width (，。！？：；（）), which NFKC alone would turn into ASCII: it is how
Chinese is written, and text models are trained on it. Letters and digits are folded (Ａ１ becomes A1).
Traditional to simplified is a recipe's choice: DanQing does it, OPPOVL does not say.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel
from .spans import rewrite

KEEP = frozenset("，。！？：；（）【】《》“”‘’、…—·～％＋－＝＆＠＃＊／")
"""Full-width and Chinese punctuation that stays as it is."""

_REMOVED = re.compile(r"[\u200b-\u200f\u2060-\u2064\ufeff\u00ad\u202a-\u202e\ufffc\u180e\ufe0e]")
_USUAL = r"[\p{Han}A-Za-z0-9，。！？：；（）【】《》“”、,.!?:;()\-]+"
_PLAIN = f"^{_USUAL}( {_USUAL})*$"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")


class Normalise(StageModel):
    """Brings captions to one spelling (NFKC, spaces, controls) and, by choice, to simplified characters."""

    name: ClassVar[str] = "normalise"
    adds: ClassVar[tuple[str, ...]] = ("caption", "caption_offsets", "normalised_chars")

    script: Literal["as_is", "simplified", "traditional"] = Field(
        "as_is", description="as_is, simplified or traditional; character by character, by OpenCC's tables"
    )

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        batch = batch.with_columns(
            caption=pl.col("caption_raw").fill_null(""), caption_offsets=pl.lit(None, dtype=pl.List(pl.UInt32))
        )
        # Most captions are plain already; only the others are looked at character by character.
        plain = batch.select(pl.col("caption").str.contains(_PLAIN)).to_series()
        changed: dict[int, tuple[str, list[int] | None]] = {}
        for i in (~plain).arg_true().to_list():
            caption = batch["caption"][i]
            text, where = normalise(caption)
            if text != caption:
                changed[i] = (text, where)
        batch = rewrite(batch, changed).with_columns(normalised_chars=pl.col("caption").str.len_chars())
        if self.script == "as_is":
            return batch
        table = converter("t2s" if self.script == "simplified" else "s2t")
        return batch.with_columns(caption=pl.Series([table(c) for c in batch["caption"]], dtype=pl.String))

    def reasons(self) -> Mapping[str, pl.Expr]:
        # Not from ``caption``: later stages change it, and a replay decides from what the ledger holds at the end.
        return {"caption_empty": pl.col("normalised_chars") == 0}


def normalise(caption: str) -> tuple[str, list[int]]:
    """The caption in one spelling and, for each of its characters, where it came from."""
    text: list[str] = []
    where: list[int] = []
    for start, end, piece in _entities(caption):
        for offset, character in enumerate(piece):
            at = start + offset if end - start == len(piece) else start
            for folded in _fold(character):
                if folded == " " and (not text or text[-1] == " "):
                    continue
                text.append(folded)
                where.append(at)
    while text and text[-1] == " ":
        text.pop()
        where.pop()
    composed = unicodedata.normalize("NFC", "".join(text))
    if len(composed) != len(text):
        return composed, _align(text, where, composed)
    return composed, where


def _entities(caption: str) -> list[tuple[int, int, str]]:
    """(start, end, text) pieces of a caption with character references resolved."""
    if "&" not in caption:
        return [(0, len(caption), caption)]
    pieces, at = [], 0
    for match in _ENTITY.finditer(caption):
        pieces.append((at, match.start(), caption[at : match.start()]))
        pieces.append((match.start(), match.end(), html.unescape(match.group())))
        at = match.end()
    return [*pieces, (at, len(caption), caption[at:])]


@lru_cache(1 << 16)
def _fold(character: str) -> str:
    if character in KEEP:
        return character
    if _REMOVED.match(character):
        # The joiner of emoji sequences is U+200D; without it a family becomes four people, which reads the same.
        return ""
    if unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    return unicodedata.normalize("NFKC", character)


def _align(text: list[str], where: list[int], composed: str) -> list[int]:
    """Offsets after composition: each composed character comes from the first of those it was made of."""
    at, out = 0, []
    for character in composed:
        out.append(where[min(at, len(where) - 1)])
        at += len(unicodedata.normalize("NFD", character)) if at < len(text) and text[at] != character else 1
    return out


@lru_cache(4)
def converter(config: str) -> Any:
    """A conversion that keeps the number of characters, so that offsets stay true."""
    import opencc

    converter = opencc.OpenCC(config)
    table: dict[int, str] = {}

    def convert(text: str) -> str:
        whole: str = converter.convert(text)
        if len(whole) == len(text):
            return whole
        for character in text:
            if ord(character) not in table:
                one = converter.convert(character)
                table[ord(character)] = one if len(one) == 1 else character
        return text.translate(table)

    return convert
