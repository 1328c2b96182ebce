"""From what the model tags to names: the name alone, whole, and nothing that only sounds like one.

The model keeps 吴先生 or 贺龙元帅 as one person; here the title stays in the text. It takes clubs and towns that are
written by sound for persons, and breaks long foreign names at their interpunct.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise

from .name_words import SOUND_MARKS, lexicon, one_of, sound, titles
from .spans import Span, without_overlap

_HAN = "一-鿿㐀-䶿"
_LETTERS = f"{_HAN}A-Za-zÀ-ɏ々"
_RUN = re.compile(rf"[{_LETTERS}](?:(?:[{_LETTERS}{SOUND_MARKS}.'\-]|(?<=[A-Za-z.]) (?=[A-Za-z]))*[{_LETTERS}])?")
"""A tagged run without the punctuation at its ends, cut at the punctuation that lists names."""
_STATES = frozenset("中美日俄英法德韩朝印巴墨加澳以伊苏越泰台港欧亚非")
"""Short forms of states and regions: two of them are a relation (中美), not a person."""

_COUNTED = re.compile("[一两二三四五六七八九十几这那每](?:[只头匹棵朵辆架艘盏颗杯碗盘株][大小]?|个[大小])$")
"""Number and measure word of animals and things: 一只蓝狗 and 一个小黄木杯 begin with surnames and name no one.

Measure words of books and pictures are not among them: 一本鲁迅的书.
"""


def names(caption: str, tagged: Sequence[tuple[int, int, str]], nicknames: bool) -> list[Span]:
    """The names of a caption, given the model's (start, end, tag)."""
    found: list[Span] = []
    for at, end, tag in tagged:
        for run in _RUN.finditer(caption[at:end]):
            for start, stop in _apart(caption, at + run.start(), at + run.end()):
                span = _name(caption, start, stop, tag, nicknames)
                if span is not None:
                    found.append(span)
    found = _joined(caption, without_overlap(found))
    return together(found, _again(caption, found))


def together(found: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """``found`` and those of ``more`` that overlap none of it, sorted."""
    apart = [m for m in more if all(m.end <= s.start or m.start >= s.end for s in found)]
    return without_overlap([*found, *apart])


def _apart(caption: str, start: int, end: int) -> list[tuple[int, int]]:
    """Names that were written without anything between them (杨幂刘诗诗柳岩): each a surname and one or two more.

    The fewest names that fit, the first as long as can be; a run that does not split so is one name.
    """
    word = caption[start:end]
    if len(word) < 5 or not all("一" <= c <= "鿿" for c in word) or all(c in lexicon("transliteration") for c in word):
        return [(start, end)]
    lengths = _lengths(word)
    if lengths is None:
        return [(start, end)]
    ends = list(accumulate(lengths, initial=start))
    return list(pairwise(ends))


def _lengths(word: str) -> list[int] | None:
    """Of the names that ``word`` consists of, or None."""
    best: list[list[int] | None] = [None] * len(word) + [[]]
    for at in range(len(word) - 2, -1, -1):
        family = 2 if word[at : at + 2] in lexicon("surnames") else 1
        if word[at : at + family] not in lexicon("surnames"):
            continue
        for n in (family + 2, family + 1):
            rest = best[at + n] if at + n <= len(word) else None
            if rest is not None:
                now = best[at]
                if now is None or len(rest) + 1 < len(now):
                    best[at] = [n, *rest]
    return best[0]


def _name(caption: str, start: int, end: int, tag: str, nicknames: bool) -> Span | None:
    """What of one piece is a name."""
    word = caption[start:end]
    if re.search("[A-Za-z]", word):
        return _latin(caption, start, end)
    if tag != "PER" or word in lexicon("common") or "某" in word:
        return None
    title = _titled().search(word)
    if title and title.start():
        end = start + title.start()
        word = caption[start:end]
        if word in lexicon("surnames"):
            return Span(start, end, word, "surname", "")
    if _is_nickname(word):
        return Span(start, end, word, "nickname", "") if nicknames else None
    followed = bool(title) or _titled_ahead().match(caption, end) is not None
    if len(word) == 1:
        return Span(start, end, word, "surname", "") if followed and word in lexicon("surnames") else None
    if not followed and is_thing(caption, start, end):
        return None
    return Span(start, end, word, "foreign" if _sounds(word) else "chinese", "")


def _latin(caption: str, start: int, end: int) -> Span | None:
    """A Latin name has at least three letters, not all capitals: brands and abbreviations stay."""
    word = caption[start:end]
    letters = re.sub("[^A-Za-z]", "", word)
    if len(letters) < 3 or word.isupper() or re.search(rf"[{_HAN}]", word):
        return None
    return Span(start, end, word, "latin", "")


def _is_nickname(word: str) -> bool:
    """小王, 阿强, 王总, 小刘总: a surname or a character of the given name with one that says how near a person is."""
    near = titles()["nickname"]
    if len(word) == 3:
        return word[0] in "小老大阿" and word[1] in lexicon("surnames") and word[2] in near
    return len(word) == 2 and (
        (word[0] in "小老阿大" and word[0] != word[1]) or (word[0] in lexicon("surnames") and word[1] in near)
    )


def is_thing(caption: str, start: int, end: int) -> bool:
    """Whether the word, or what stands next to it, says place, team or thing rather than person."""
    word = caption[start:end]
    things = lexicon("not_names")
    if any(caption[start : start + n] in things for n in range(max(2, len(word)), 8)):
        return True
    if any(caption[max(0, start - n) : end] in things for n in (1, 2, 3)):
        return True
    if len(word) == 2 and (set(word) <= _STATES or _COUNTED.search(caption[max(0, start - 4) : start])):
        return True
    if _thing_ahead().match(caption, end) and not caption.startswith(("国庆", "号称"), end):
        return True
    if word[0] not in lexicon("surnames") and caption.startswith(titles()["place of a foreign name"], end):
        return True
    return caption.endswith(("vs", "VS", "Vs"), 0, start)


def _sounds(word: str) -> bool:
    """Whether a word is written in the characters that stand for foreign sounds, and is no usual Chinese name."""
    return len(word) > 3 or (word[0] not in lexicon("surnames") and all(c in lexicon("transliteration") for c in word))


def _joined(caption: str, found: list[Span]) -> list[Span]:
    """Parts of a name around an interpunct or hyphen as one; a part that the model missed is taken by its sounds."""
    out: list[Span] = []
    for span in found:
        start, end = span.start, span.end
        before = _part_before().search(caption[:start])
        if before:
            roles = titles()["before"]
            start = max(i for i in range(before.start(), start) if i == before.start() or caption.endswith(roles, 0, i))
        after = _part_after().match(caption, end)
        if after:
            end = after.end()
        if out and (start < out[-1].end or (start == out[-1].end and span.category == out[-1].category == "foreign")):
            start, end = out[-1].start, max(end, out[-1].end)
            out.pop()
        elif out and start == out[-1].end + 1 and caption[start - 1] in SOUND_MARKS + "-":
            start = out.pop().start
        changed = (start, end) != (span.start, span.end)
        out.append(Span(start, end, caption[start:end], "foreign", "") if changed else span)
    return out


def _again(caption: str, found: Sequence[Span]) -> list[Span]:
    """The same names elsewhere in the caption, where the model passed them by."""
    more = []
    for word in {s.word for s in found if s.category in ("chinese", "foreign") and len(s.word) > 2}:
        at = caption.find(word)
        while at >= 0:
            more.append(Span(at, at + len(word), word, "chinese" if len(word) == 3 else "foreign", ""))
            at = caption.find(word, at + len(word))
    return more


@cache
def _titled() -> re.Pattern[str]:
    return re.compile(f"(?:{one_of(titles()['after'])})$")


@cache
def _titled_ahead() -> re.Pattern[str]:
    return re.compile(one_of(titles()["after"]))


@cache
def _thing_ahead() -> re.Pattern[str]:
    return re.compile(one_of([*titles()["place"], *titles()["team"], *titles()["brand"]]))


@cache
def _part_before() -> re.Pattern[str]:
    return re.compile(rf"(?:(?:{sound()}{{1,6}}|[A-Z])[{SOUND_MARKS}])+$")


@cache
def _part_after() -> re.Pattern[str]:
    return re.compile(rf"(?:[{SOUND_MARKS}]{sound()}{{1,8}})+")
