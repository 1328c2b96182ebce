"""Where in captions a name may stand: what the model is shown. Most photo captions have no such place.

First all captions of a batch at once, as one array of characters: a surname before a Han character, an interpunct, a
role before or a verb of speech after, Latin capitals. Then the segmenter's tokens of the captions that pass. A place
is a word that the segmenter takes for a name unless the model never does (lexicons/names/common.txt), a word that only
the model takes for one (known.txt), a surname that begins no word, and what stands beside a role or a verb of speech.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .name_words import SOUND_MARKS, lexicon, simplified, titles, traditional
from .words import Words

if TYPE_CHECKING:
    import ahocorasick_rs

Place = tuple[int, int]

BESIDE = 12
"""Characters on both sides of a place that the model sees: 8 lose .005 of F1 on news sentences, 32 gain .005."""
LONGEST = 160
"""Characters that the model is shown at once; more is cut, at punctuation where there is some."""

_SURNAME, _HAN, _MARK, _CAPITAL, _TRADITIONAL, _SOUND = 1, 2, 4, 8, 16, 32
_LATIN = re.compile(r"[A-Z][a-z]+ ?[A-Z]|[A-Z]\.[A-Z一-鿿]")
_BREAKS = "。！？!?；;，,\n "
_FUNCTION_WORDS = frozenset("的了着在和上下里中是有与被把从向对很都也就不又去来过地得到个只条们人这那一二两三")
_BEFORE_THINGS = frozenset("小大老黑白黄红蓝绿灰花金银棕粉紫戴滑骑开穿拉打")
"""A word that begins with one of these and ends in one of things.txt is a thing or an action."""
_RARE = frozenset(("nr", "nrt", "nrfg", "ns", "nz"))
"""Tags that the segmenter gives to words it does not know."""


def candidates(captions: Sequence[str]) -> dict[int, tuple[list[Place], bool]]:
    """Index of each caption that may hold a name: the places beside roles and marks, and whether it is traditional."""
    joined = "\n".join(captions)
    kinds = _kinds()[np.minimum(np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32), 0xFFFF)]
    han = (kinds & _HAN) > 0
    before_han = np.append(han[1:], False)
    spots = [(at, at + 1) for at in np.flatnonzero(kinds & _MARK).tolist()]
    for word, start, end in _roles().find_matches_as_indexes(joined):
        if _sides()[word] == "before":
            if joined[end : end + 1] == " ":
                end += 1
            if end < len(joined) and (han[end] or kinds[end] & _CAPITAL):
                spots.append((end, end + 1))
        elif _sides()[word] == "here":
            spots.append((start, end))
        elif start and (han[start - 1] or joined[start - 1].isalpha()):
            spots.append((start - 1, start))
    if (kinds & _CAPITAL).any():
        spots += [m.span() for m in _LATIN.finditer(joined)]
    starts = np.cumsum([0] + [len(c) + 1 for c in captions])
    sound = (kinds & _SOUND) > 0
    sound[:-2] &= sound[1:-1] & sound[2:]
    sound[-2:] = False
    first = np.flatnonzero((((kinds & _SURNAME) > 0) & before_han) | sound)
    found: dict[int, tuple[list[Place], bool]] = {
        row: ([], False) for row in np.unique(np.searchsorted(starts, first, side="right") - 1).tolist()
    }
    rows = np.searchsorted(starts, [s for s, _ in spots], side="right") - 1
    for row, (start, end) in zip(rows.tolist(), spots, strict=True):
        found.setdefault(row, ([], False))[0].append((start - int(starts[row]), end - int(starts[row])))
    other = np.flatnonzero(kinds & _TRADITIONAL)
    for row in np.unique(np.searchsorted(starts, other, side="right") - 1).tolist():
        if row in found:
            found[row] = (found[row][0], True)
    return found


def windows(caption: str, beside: Sequence[Place], tokens: Words) -> list[Place]:
    """The parts of a caption in simplified characters, (start, end), that the model is to see; sorted, apart."""
    places = list(beside)
    common, known, family = lexicon("common"), lexicon("known"), lexicon("surnames")
    everyday = lexicon("everyday")
    at = 0
    for i, (word, tag) in enumerate(tokens):
        end = at + len(word)
        if tag[:2] == "nr":
            if word not in common and not _is_thing(word):
                places.append((at, end))
        elif word in known:
            places.append((at, end))
        elif len(word) == 1 and word in family and i + 1 < len(tokens):
            after, sort = tokens[i + 1]
            rare = sort in _RARE if word in everyday else after[0] not in _FUNCTION_WORDS
            if rare and "一" <= after[0] <= "鿿":
                places.append((at, end + len(after)))
        at = end
    return _merged(caption, sorted(places), np.cumsum([0] + [len(w) for w, _ in tokens]).tolist()) if places else []


def _is_thing(word: str) -> bool:
    """黄狗, 戴帽子, 马在: what the segmenter takes for a name because it begins with a surname."""
    if word in lexicon("not_names") or (len(word) == 2 and word[1] in _FUNCTION_WORDS):
        return True
    return word[0] in _BEFORE_THINGS and word[-1] in lexicon("things")


def _merged(caption: str, places: list[Place], edges: list[int]) -> list[Place]:
    """Places with what stands beside them, from word edge to word edge, joined where they meet, cut where long."""
    wide: list[Place] = []
    for at, behind in places:
        start = edges[bisect_right(edges, max(0, at - BESIDE)) - 1]
        end = edges[bisect_left(edges, min(len(caption), behind + BESIDE))]
        if wide and start <= wide[-1][1] + 4:
            start, end = wide[-1][0], max(wide.pop()[1], end)
        wide.append((start, end))
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
def _kinds() -> NDArray[np.uint8]:
    """What each code point of the basic plane is to this module, as bits."""
    kinds = np.zeros(0x10000, np.uint8)
    kinds[0x3400:0xA000] |= _HAN
    for characters, kind in (
        (traditional({s[0] for s in lexicon("surnames") if len(s) == 1}), _SURNAME),
        (lexicon("transliteration"), _SOUND),
        (SOUND_MARKS, _MARK),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _CAPITAL),
        (map(chr, simplified()), _TRADITIONAL),
    ):
        for c in characters:
            kinds[ord(c)] |= kind
    return kinds


@cache
def _sides() -> list[str]:
    """Per word of ``_roles`` where a name is: behind it (a role stands ``before`` one), before it (``after``), here."""
    return ["before"] * len(titles()["named"]) + ["after"] * len(titles()["said"]) + ["here"] * len(_hints())


@cache
def _roles() -> ahocorasick_rs.AhoCorasick:
    import ahocorasick_rs

    return ahocorasick_rs.AhoCorasick([*titles()["named"], *titles()["said"], *_hints()])


@cache
def _hints() -> tuple[str, ...]:
    """What names begin with that have no Chinese surname, in both scripts."""
    return tuple(sorted(traditional(lexicon("hints"))))
