"""Names by rules alone: what the stage does without a model, and what the model does not know.

A dictionary tagger alone marks a "name" in 12.8 % of harmless captions (jieba's nr tags on human image
captions). Here a name needs evidence besides its shape: a title behind it (张伟先生), a role before it
(记者王建国), a verb of speech or a credit after it, another name beside it in a list, or a foreign
name's interpunct. Shape alone counts only where surname and both given characters are typical and the
segmenter knows no word there.
"""

from __future__ import annotations

import re
from functools import cache

from .name_spans import is_thing
from .name_words import SOUND_MARKS, lexicon, one_of, sound, titles
from .spans import Span, without_overlap

_LATIN = r"[A-Z][a-z]+(?: [A-Z]\.?)?(?: [A-Z][a-z]+){1,2}"


def by_rules(caption: str) -> list[Span]:
    """The names of a caption, sorted."""
    return without_overlap([*marked(caption), *_chinese(caption)])


def marked(caption: str) -> list[Span]:
    """Names that their writing gives away: an interpunct among sounds, Latin names behind a role."""
    spans = [Span(m.start(), m.end(), m.group(), "foreign", "") for m in _foreign().finditer(caption)]
    return spans + [Span(m.start(1), m.end(1), m.group(1), "latin", "") for m in _latin().finditer(caption)]


def _chinese(caption: str) -> list[Span]:
    """Chinese names, from the segmenter's tokens and the evidence around them."""
    import rjieba

    tokens, at = [], 0
    for word, tag in rjieba.tag(caption):
        tokens.append((at, word, tag))
        at += len(word)
    found: list[Span] = []
    sounds = lexicon("transliteration")
    for start, word, tag in tokens:
        tagged = tag in ("nrt", "nrfg", "nr") and len(word) >= 3 and all(c in sounds for c in word)
        if tagged and not is_thing(caption, start, start + len(word)):
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
    surname = next((word[:n] for n in (2, 1) if word[:n] in lexicon("surnames")), "")
    if not surname:
        return None
    role = any(
        caption.endswith(r, 0, start) or caption.endswith((r + " ", r + "："), 0, start) for r in titles()["before"]
    )
    titled = _titled()
    if word == surname and titled.match(caption, start + len(surname)):
        return Span(start, start + len(surname), surname, "surname", "")
    for end in _ends(tokens, i, len(surname), role):
        if caption[end : end + 1] in tuple(SOUND_MARKS):
            return None
        given = caption[start + len(surname) : end]
        if not 1 <= len(given) <= 2 or not all("一" <= c <= "鿿" for c in given) or given.endswith(titles()["speech"]):
            continue
        title = titled.match(caption, end) is not None
        speech = caption.startswith(titles()["speech"], end)
        typical = sum(c in lexicon("given") for c in given)
        tagged = tag == "nr" and end == start + len(word)
        if tagged and len(word) == 3 and typical == 2 and not is_thing(caption, start, end):
            return Span(start, end, word, "chinese", "")
        listed = bool(found) and found[-1].end + 1 == start and caption[found[-1].end] in "、和与/ "
        known = tag not in ("nr", "nrt", "x", "zg", "nrfg") and end == start + len(word) and len(word) > 1
        evidence = 2 * (title or role or listed) + speech + tagged + (typical == len(given))
        if is_thing(caption, start, end):
            continue
        if not known and evidence >= (3 if len(given) == 2 or title or role or listed else 4):
            return Span(start, end, caption[start:end], "chinese", "")
    return None


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
def _titled() -> re.Pattern[str]:
    return re.compile(one_of(titles()["after"]))


@cache
def _latin() -> re.Pattern[str]:
    return re.compile(rf"(?:{one_of(titles()['before'])})\s?({_LATIN})")


@cache
def _foreign() -> re.Pattern[str]:
    """Names with an interpunct, in characters that are used for sounds, so that no word before or after is drawn in."""
    mark = f"[{SOUND_MARKS}]"
    return re.compile(
        rf"(?<![《“‘A-Za-z.])(?:[A-Z]\.){{1,3}}{sound()}{{2,6}}|"
        rf"(?<![《“‘])(?:{sound()}{{2,6}}|[A-Z]){mark}{sound()}{{1,8}}(?:{mark}{sound()}{{1,8}}){{0,2}}(?![》])"
    )
