"""Hard negatives: captions that differ from the original in one attribute, and so are wrong about the image.

Kinds after SugarCrepe (Hsieh et al. 2023, arXiv 2306.14610) and NegCLIP (Yuksekgonul et al. 2022), for
Chinese: colour, count (the measure word stays right), material, size, position, action, swap (two things change
places), rebind (two attributes change things) and object (another thing of its kind). Rules and small lexicons
only: the same key gives the same negatives anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr

from ..pipeline.columns import NEGATIVE
from ..pipeline.stage import StageModel, operational
from . import negative_attributes as by_word
from . import negative_swaps as by_exchange
from .negative_words import Sentence, sentence
from .scorer import load_scorer

KINDS = ("rebind", "swap", "colour", "material", "size", "position", "action", "object", "count")
"""From the rarest to the commonest, so that the few that a pair may have are of many kinds."""

_BY_WORD = {
    "colour": by_word.colour,
    "material": by_word.material,
    "size": by_word.size,
    "position": by_word.position,
    "action": by_word.action,
    "object": by_word.thing,
    "count": by_word.count,
}
_BY_EXCHANGE = {"swap": by_exchange.swap, "rebind": by_exchange.rebind}


class HardNegatives(StageModel):
    """Writes captions that are wrong in one attribute: colour, count, material, size, position, action, binding."""

    name: ClassVar[str] = "hard_negatives"
    phase: ClassVar[Any] = "emit"
    adds: ClassVar[tuple[str, ...]] = ("negatives",)

    kinds: tuple[str, ...] = Field(KINDS, description="kinds to try, in this order")
    most: int = Field(4, ge=0, description="negatives per pair at most")
    check_score: bool = Field(
        True, description="leave out what the recipe's scorer holds for likelier than the original by max_gain"
    )
    max_gain: float = Field(
        0.05, ge=0, le=2, description="cosine; a scorer is blind to much, so a negative a little above is no mistake"
    )
    batch_size: int = Field(32, ge=1, description="captions the scorer sees at once; fixed")
    device: str = operational("auto", "auto, cpu, cuda or cuda:N")

    _scorer: str = PrivateAttr("")

    def among(self, stages: Sequence[StageModel]) -> Self:
        """This stage with the scorer of the recipe."""
        bound = self.model_copy()
        bound._scorer = next((str(getattr(s, "scorer", "")) for s in stages if s.name == "score"), "")
        return bound

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        told = _told_of_the_image(batch)
        made = [
            negatives(caption, key, self.kinds, known)
            for caption, key, known in zip(batch["caption"], batch["key"], told, strict=True)
        ]
        if self.check_score and self._scorer and "image" in batch.columns and "score" in batch.columns:
            made = self._unlikely(made, batch)
        rows = [[{"kind": k, "caption": c} for k, c in some[: self.most]] for some in made]
        return batch.with_columns(pl.Series("negatives", rows, dtype=pl.List(NEGATIVE)))

    def _unlikely(self, made: list[list[tuple[str, str]]], batch: pl.DataFrame) -> list[list[tuple[str, str]]]:
        """``made`` without what scores more than the original and ``max_gain``: it may well be true."""
        scorer = load_scorer(self._scorer, self.device, self.batch_size)
        rows = [row for row, some in enumerate(made) for _ in some]
        if not rows or batch["image"].null_count():
            return made
        images = scorer.embed_images(batch["image"].to_list())
        texts = scorer.embed_texts([c for some in made for _, c in some])
        cosine = np.round(np.einsum("nd,nd->n", images[rows], texts).astype(np.float64), 4)
        original = np.round(batch["score"].to_numpy().astype(np.float64), 4)[rows]
        good = iter(~(cosine - original > self.max_gain))
        return [[one for one in some if next(good)] for some in made]


def _told_of_the_image(batch: pl.DataFrame) -> list[set[str]]:
    """For each row every caption that its image is known to have: its own, those merged into it, those beside it."""
    columns = [c for c in ("caption", "caption_raw", "caption_synthetic") if c in batch.columns]
    told = [{c for c in row if c} for row in batch.select(columns).rows()]
    if "captions_merged" in batch.columns:
        for known, merged in zip(told, batch["captions_merged"], strict=True):
            known.update(merged if merged is not None else ())
    if "image_sha256" in batch.columns:
        together: dict[str, set[str]] = {}
        for known, image in zip(told, batch["image_sha256"], strict=True):
            if image:
                together.setdefault(image, set()).update(known)
        told = [together.get(image, known) for known, image in zip(told, batch["image_sha256"], strict=True)]
    return told


def negatives(
    caption: str, key: str, kinds: Sequence[str] = KINDS, known: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(kind, caption) of each kind that the caption allows; none says what the caption or one of ``known`` says."""
    text = sentence(caption)
    taken = {plain(c) for c in (caption, *known)}
    told: list[tuple[str, str]] = []
    for kind in kinds:
        options = [c for c in dict.fromkeys(_made(text, kind)) if plain(c) not in taken]
        if options:
            told.append((kind, options[_number(key, kind) % len(options)]))
            taken.add(plain(told[-1][1]))
    return told


def _made(text: Sentence, kind: str) -> Iterator[str]:
    """All negatives of one kind, in an order that only the caption decides."""
    if kind in _BY_EXCHANGE:
        yield from _BY_EXCHANGE[kind](text)
        return
    for start, end, word in _BY_WORD[kind](text):
        yield text.text[:start] + word + text.text[end:]


_FILLING = re.compile(r"[\s，。！？、,.!?：；:;“”\"'的着了正在]+|(?<=[一两三四五])[个只条名位]")


def plain(caption: str) -> str:
    """``caption`` without what changes nothing in its meaning: signs, 的, 着, the choice of a measure word."""
    return _FILLING.sub("", caption)


def _number(key: str, kind: str) -> int:
    """A hash of key and kind, so that a pair's negatives are the same wherever it is processed."""
    return int.from_bytes(hashlib.blake2b(f"{key}/{kind}".encode(), digest_size=8).digest(), "big")
