"""Replaces personal names by a placeholder, so that a caption says what is seen and not who.

Patterns and the segmenter find the few captions in which a name may stand (``name_candidates``), a compact published
tagger reads those places (``name_model``), and rules make names of its tags: titles stay in the text, names around an
interpunct become whole, clubs and towns go (``name_spans``). Without the model, rules alone look for evidence
(``name_rules``): faster on news, half as good.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .name_candidates import Place, candidates, windows
from .name_model import MODEL, fingerprint, load
from .name_rules import by_rules, marked
from .name_spans import names, together
from .name_words import SOUND_MARKS, lexicons_hash, simplified
from .spans import Span, mark
from .words import tagged


class Names(StageModel):
    """Replaces names of persons (Chinese, minority, transliterated, Latin) by a placeholder that stays the same."""

    name: ClassVar[str] = "names"
    adds: ClassVar[tuple[str, ...]] = ("names", "caption", "caption_offsets")

    placeholder: str = Field("【人名】", min_length=1, description="what takes a name's place (Wukong: <人名>)")
    action: Literal["mask", "drop", "flag"] = Field("mask", description="mask, drop the caption, or only record")
    numbered: bool = Field(False, description="number the placeholders: the same name in a caption, the same number")
    keep: str = Field(
        "",
        description="names that stay (public figures): a file, one a line, either script, # for comments; empty: none",
    )
    nicknames: bool = Field(False, description="also 小王, 老李, 王总: they name nobody outside a small circle")
    model: Literal["lac", "none"] = Field(
        "lac", description="lac: the shipped tagger (LAC-small) with rules; none: rules alone, faster and half as good"
    )
    drop_captions: bool = threshold(True, "drop captions with a name where action is drop")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        captions = batch["caption"].to_list()
        found = find(list(dict.fromkeys(c for c in captions if c)), self.model != "none", self.nicknames)
        hit = pl.Series([caption in found for caption in captions], dtype=pl.Boolean)
        return mark(batch, "names", hit, lambda caption: self._spans(found[caption]))

    def reasons(self) -> Mapping[str, pl.Expr]:
        worst = pl.col("names").list.eval(pl.element().struct.field("action") == "drop").list.any()
        return {"personal_name": worst & pl.lit(self.drop_captions)}

    def resources(self) -> Mapping[str, str]:
        used = {"names_words": lexicons_hash()}
        if self.model != "none":
            used["names_model"] = fingerprint(MODEL)
        if self.keep:
            used["names_keep"] = hashlib.sha256(Path(self.keep).read_bytes()).hexdigest()
        return used

    def _spans(self, found: Sequence[Span]) -> list[Span]:
        """What is done to the names of one caption."""
        numbers: dict[str, int] = {}
        spans = []
        for start, end, word, kind, *_ in found:
            person = _person(word)
            if self.keep and person in _kept(self.keep):
                continue
            number = numbers.setdefault(person, len(numbers) + 1)
            stands_for = self.placeholder
            if self.numbered:
                stands_for = (
                    f"{stands_for[:-1]}{number}{stands_for[-1]}" if len(stands_for) > 1 else f"{stands_for}{number}"
                )
            spans.append(Span(start, end, word, kind, self.action, stands_for if self.action == "mask" else None))
        return spans


def find(captions: Sequence[str], model: bool = True, nicknames: bool = False) -> dict[str, list[Span]]:
    """Caption to its names, sorted, for those that have some; without the model, by rules alone."""
    worth = {captions[i]: flags for i, flags in candidates(captions).items()}
    read = {c: _readable(c, other) for c, (_, other) in worth.items()}
    if model:
        seen = _by_model({read[c]: beside for c, (beside, _) in worth.items()})
        found = {c: together(names(t, seen[t], nicknames), marked(t)) for c, t in read.items() if t in seen}
    else:
        found = {c: by_rules(t) for c, t in read.items()}
    return {c: [s._replace(word=c[s.start : s.end]) for s in some] for c, some in found.items() if some}


def _readable(caption: str, other_script: bool) -> str:
    """A caption as the rules and the model know text, character for character: simplified, no space between words."""
    if other_script:
        caption = caption.translate(simplified())
    return _SPACED.sub("，", caption) if " " in caption else caption


_SPACED = re.compile("(?<=[一-鿿]) (?=[一-鿿])")


def _by_model(worth: Mapping[str, Sequence[Place]]) -> dict[str, list[tuple[int, int, str]]]:
    """What the model says of the captions that have a place worth showing, (start, end, tag)."""
    words = tagged(list(worth))
    each = zip(worth.items(), words, strict=True)
    shown = [(c, start, end) for (c, beside), some in each for start, end in windows(c, beside, some)]
    if not shown:
        return {}
    found: dict[str, list[tuple[int, int, str]]] = {caption: [] for caption, _, _ in shown}
    for (caption, at, _), some in zip(shown, load(MODEL).spans([c[a:b] for c, a, b in shown]), strict=True):
        found[caption] += [(start + at, end + at, tag) for start, end, tag in some]
    return found


@cache
def _kept(path: str) -> frozenset[str]:
    lines = Path(path).read_text("utf-8-sig").splitlines()
    return frozenset(_person(line) for line in lines if line.strip() and not line.startswith("#"))


def _person(name: str) -> str:
    """What is one name: 張偉 and 张伟, 梅西·里奥 and 梅西•里奥, TAYLOR SWIFT and Taylor  Swift."""
    one = " ".join(name.translate(simplified()).split()).casefold()
    return one.translate(_ONE_MARK)


_ONE_MARK = dict.fromkeys(map(ord, SOUND_MARKS), SOUND_MARKS[0])
