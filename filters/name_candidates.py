"""Where in a caption a name may stand: what the model is shown. Most photo captions have no such place.

First patterns over the whole column (a surname before a Han character, an interpunct, a role before or a verb of
speech after, Latin capitals); then the segmenter's tokens of the captions that pass. A place is a word that the
segmenter takes for a name unless the model never does (lexicons/names/common.txt), a word that only the model takes
for one (known.txt), a surname that begins no word, and whatever stands beside a role or a verb of speech.
"""

from __future__ import annotations

import re
from functools import cache

import polars as pl

from .name_words import SOUND_MARKS, lexicon, one_of, simplified, surnames, titles

BESIDE = 16
"""Characters on both sides of a place that the model sees: 10 lose .005 of F1 on news, 32 gain .002."""
LONGEST = 160
"""Characters that the model is shown at once; more is cut, at punctuation where there is some."""

_FUNCTION_WORDS = frozenset("的了着在和上下里中是有与被把从向对很都也就不又去来过地得到个只条们人这那一二两三")
_BREAKS = "。！？!?；;，,\n "


def columns(captions: pl.Expr) -> dict[str, pl.Expr]:
    """``place``: the caption may hold a name; ``beside``: by what stands beside; ``other``: it is not simplified."""
    other = "".join(chr(c) for c in simplified())
    return {
        "place": captions.str.contains(rf"(?:{surnames()})\p{{Han}}|{_beside_names()}"),
        "beside": captions.str.contains(_beside_names()),
        "other": captions.str.contains(f"[{other}]"),
    }


def windows(caption: str, beside: bool = True, other: bool = True) -> list[tuple[int, int]]:
    """The parts of a caption, (start, end), that the model is to see; sorted, apart."""
    import rjieba

    tokens: list[tuple[str, str]] = rjieba.tag(caption.translate(simplified()) if other else caption)
    places = [m.span() for m in _beside().finditer(caption)] if beside else []
    common, known, family = lexicon("common"), lexicon("known"), lexicon("surnames")
    everyday, things = lexicon("everyday"), lexicon("things")
    at = 0
    for i, (word, tag) in enumerate(tokens):
        end = at + len(word)
        if tag[:2] == "nr":
            thing = word in common or word[-1] in _FUNCTION_WORDS or (word[0] in _BEFORE_THINGS and word[-1] in things)
            if not thing:
                places.append((at, end))
        elif word in known:
            places.append((at, end))
        elif len(word) == 1 and word in family and word not in everyday and i + 1 < len(tokens):
            after = tokens[i + 1][0]
            if "一" <= after[0] <= "鿿" and after[0] not in _FUNCTION_WORDS:
                places.append((at, end + len(after)))
        at = end
    return _merged(caption, sorted(places)) if places else []


_BEFORE_THINGS = frozenset("小大老黑白黄红蓝绿灰花金银棕粉紫戴张滑骑开穿拉打")


def _merged(caption: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places with what stands beside them, joined where they meet, cut where they are long."""
    wide: list[list[int]] = []
    for start, end in places:
        start, end = max(0, start - BESIDE), min(len(caption), end + BESIDE)
        if wide and start <= wide[-1][1] + 4:
            wide[-1][1] = max(wide[-1][1], end)
        else:
            wide.append([start, end])
    out = []
    for start, end in wide:
        while end - start > LONGEST:
            cut = max(caption.rfind(b, start + LONGEST // 2, start + LONGEST) for b in _BREAKS) + 1
            cut = cut or start + LONGEST
            out.append((start, cut))
            start = cut
        out.append((start, end))
    return out


@cache
def _beside_names() -> str:
    """What makes a caption worth a look whatever the segmenter says of its words; for Rust's and Python's regex."""
    latin = r"[A-Z][a-z]+ ?[A-Z]"
    return rf"[{SOUND_MARKS}]|(?:{one_of(titles()['named'])})[一-鿿A-Z]|{latin}|[一-鿿](?:{one_of(titles()['said'])})"


@cache
def _beside() -> re.Pattern[str]:
    return re.compile(_beside_names())
