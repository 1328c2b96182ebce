"""Replaces personal names by a placeholder, so that a caption says what is seen and not who.

A dictionary tagger alone marks a "name" in 12.8 % of harmless captions (jieba's nr tags on human image
captions). Here a name needs evidence besides its shape: a title behind it (张伟先生), a role before it
(记者王建国), a verb of speech or a credit after it, another name beside it in a list, or a foreign
name's interpunct. Shape alone counts only where surname and both given characters are typical and the
segmenter knows no word there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, threshold
from .spans import Span, mark, without_overlap

_SPEECH = (
    "说",
    "表示",
    "介绍",
    "认为",
    "指出",
    "告诉",
    "称",
    "回应",
    "透露",
    "坦言",
    "强调",
    "摄",
    "提供",
    "出席",
    "现身",
    "主演",
    "饰",
    "担任",
)
_LATIN = r"[A-Z][a-z]+(?: [A-Z]\.?)?(?: [A-Z][a-z]+){1,2}"


class Names(StageModel):
    """Replaces names of persons (Chinese, minority, transliterated, Latin) by a placeholder that stays the same."""

    name: ClassVar[str] = "names"
    adds: ClassVar[tuple[str, ...]] = ("names", "caption", "caption_offsets")

    placeholder: str = Field("【人名】", min_length=1, description="what takes a name's place (Wukong: <人名>)")
    action: Literal["mask", "drop", "flag"] = Field("mask", description="mask, drop the caption, or only record")
    numbered: bool = Field(False, description="number the placeholders: the same name in a caption, the same number")
    keep: str = Field("", description="file of names that stay (public figures), one a line; empty: none stay")
    drop_captions: bool = threshold(True, "drop captions with a name where action is drop")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        candidates = batch.select(pl.col("caption").str.contains(_prefilter())).to_series().fill_null(False)
        return mark(batch, "names", candidates, self._spans)

    def reasons(self) -> Mapping[str, pl.Expr]:
        worst = pl.col("names").list.eval(pl.element().struct.field("action") == "drop").list.any()
        return {"personal_name": worst & pl.lit(self.drop_captions)}

    def _spans(self, caption: str) -> list[Span]:
        numbers: dict[str, int] = {}
        found = []
        for start, end, kind in find(caption):
            word = caption[start:end]
            if self.keep and word in _kept(self.keep):
                continue
            number = numbers.setdefault(word, len(numbers) + 1)
            stands_for = self.placeholder
            if self.numbered:
                stands_for = (
                    f"{stands_for[:-1]}{number}{stands_for[-1]}" if len(stands_for) > 1 else f"{stands_for}{number}"
                )
            found.append(Span(start, end, word, kind, self.action, stands_for if self.action == "mask" else None))
        return found


def find(caption: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) of the personal names in a caption."""
    spans = [Span(m.start(), m.end(), m.group(), "foreign", "") for m in _foreign().finditer(caption)]
    roles = "|".join(_titles()["before"])
    spans += [
        Span(m.start(1), m.end(1), m.group(1), "latin", "") for m in re.finditer(rf"(?:{roles})\s?({_LATIN})", caption)
    ]
    spans += _chinese(caption)
    return [(s.start, s.end, s.category) for s in without_overlap(spans)]


def _chinese(caption: str) -> list[Span]:
    """Chinese names, from the segmenter's tokens and the evidence around them."""
    import rjieba

    tokens, at = [], 0
    for word, tag in rjieba.tag(caption):
        tokens.append((at, word, tag))
        at += len(word)
    found: list[Span] = []
    sounds = _lexicon("transliteration")
    for start, word, tag in tokens:
        tagged = tag in ("nrt", "nrfg", "nr") and len(word) >= 3 and all(c in sounds for c in word)
        if tagged and not _is_place(caption, start, start + len(word)):
            found.append(Span(start, start + len(word), word, "foreign", ""))
    if found:
        return found + [s for s in _walk(caption, tokens) if all(s.end <= f.start or s.start >= f.end for f in found)]
    return _walk(caption, tokens)


def _walk(caption: str, tokens: list[tuple[int, str, str]]) -> list[Span]:
    """Names with a Chinese surname, left to right."""
    found: list[Span] = []
    i = 0
    while i < len(tokens):
        span = _at(caption, tokens, i, found)
        if span is not None:
            found.append(span)
            while i < len(tokens) and tokens[i][0] < span.end:
                i += 1
        else:
            i += 1
    return found


def _at(caption: str, tokens: list[tuple[int, str, str]], i: int, found: list[Span]) -> Span | None:
    """A name that begins at token ``i``, or None."""
    start, word, tag = tokens[i]
    surname = next((word[:n] for n in (2, 1) if word[:n] in _lexicon("surnames")), "")
    if not surname:
        return None
    role = any(
        caption.endswith(r, 0, start) or caption.endswith((r + " ", r + "："), 0, start) for r in _titles()["before"]
    )
    titled = re.compile("|".join(_titles()["after"]))
    if word == surname and titled.match(caption, start + len(surname)):
        return Span(start, start + len(surname), surname, "surname", "")
    for end in _ends(tokens, i, len(surname), role):
        if caption[end : end + 1] in ("·", "•"):
            return None
        given = caption[start + len(surname) : end]
        if not 1 <= len(given) <= 2 or not all("一" <= c <= "鿿" for c in given) or given.endswith(_SPEECH):
            continue
        title = titled.match(caption, end) is not None
        speech = caption.startswith(_SPEECH, end)
        typical = sum(c in _lexicon("given") for c in given)
        tagged = tag == "nr" and end == start + len(word)
        if tagged and len(word) == 3 and typical == 2 and not _is_place(caption, start, end):
            return Span(start, end, word, "chinese", "")
        listed = bool(found) and found[-1].end + 1 == start and caption[found[-1].end] in "、和与/ "
        known = tag not in ("nr", "nrt", "x", "zg", "nrfg") and end == start + len(word) and len(word) > 1
        evidence = 2 * (title or role or listed) + speech + tagged + (typical == len(given))
        if _is_place(caption, start, end):
            continue
        if not known and evidence >= (3 if len(given) == 2 or title or role or listed else 4):
            return Span(start, end, caption[start:end], "chinese", "")
    return None


def _is_place(caption: str, start: int, end: int) -> bool:
    """Whether what follows, or a list of known words, says place, team or thing rather than person."""
    if any(caption.startswith(w, start) for w in _lexicon("not_names") if w[0] == caption[start]):
        return True
    return caption[end : end + 1] in tuple("路街区县镇村山河湖市州省国岛港城队杯奖号站")


def _ends(tokens: list[tuple[int, str, str]], i: int, surname: int, role: bool) -> list[int]:
    """Where a name that begins at token ``i`` may end: at token ends, two or three characters on; longest first.

    After a role any character may end it: the segmenter knows no border inside 记者李丽华摄.
    """
    start = tokens[i][0]
    ends = {at + len(word) for at, word, _ in tokens[i : i + 3]}
    if role and len(tokens[i][1]) + len("".join(w for _, w, _ in tokens[i + 1 : i + 3])) > surname + 1:
        ends |= {start + surname + 1, start + surname + 2}
    return sorted({e for e in ends if surname < e - start <= surname + 2}, reverse=True)


@cache
def _lexicon(name: str) -> frozenset[str]:
    text = (files(__package__) / "lexicons" / "names" / f"{name}.txt").read_text("utf-8")
    return frozenset(w for line in text.splitlines() if not line.startswith("#") for w in line.split())


@cache
def _foreign() -> re.Pattern[str]:
    """Names with an interpunct, in characters that are used for sounds, so that no word before or after is drawn in."""
    sound = "[" + "".join(sorted(_lexicon("transliteration"))) + "]"
    return re.compile(rf"(?<![《“‘])(?:{sound}{{2,6}}|[A-Z])[·•]{sound}{{1,8}}(?:[·•]{sound}{{1,8}}){{0,2}}(?![》])")


@cache
def _titles() -> dict[str, tuple[str, ...]]:
    """Titles ``after`` a name and roles ``before`` one, longest first."""
    text = (files(__package__) / "lexicons" / "names" / "titles.txt").read_text("utf-8")
    told: dict[str, list[str]] = {}
    side = ""
    for line in text.splitlines():
        if line.startswith("#"):
            side = line[1:].strip().rstrip(":")
        else:
            told.setdefault(side, []).extend(line.split())
    return {k: tuple(sorted(v, key=len, reverse=True)) for k, v in told.items()}


@cache
def _prefilter() -> str:
    """A caption without a surname before a Han character, interpunct or capital pair holds no name."""
    singles = "".join(s for s in _lexicon("surnames") if len(s) == 1)
    firsts = "".join(sorted({s[0] for s in _lexicon("surnames")} | set(singles)))
    return rf"[{firsts}]\p{{Han}}|[·•・]|[A-Z][a-z]+ [A-Z]"


@cache
def _kept(path: str) -> frozenset[str]:
    return frozenset(Path(path).read_text("utf-8").split())
