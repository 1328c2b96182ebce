"""What is wrong with a lexicon before it is used, and what it hits on real captions (``curate lexicon check``).

Errors mean that an entry cannot do what its author meant: a line that does not parse, two meanings for one word, a
single character, an exception that never applies. Warnings are for a person to judge; notes say what is so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import Any, Literal

from .common_words import common_words
from .lexicon import Entry, Lexicon
from .sensitive import KINDS, find
from .word_search import Search

EVERYDAY = 3000
"""Rank among the commonest words up to which an entry that is one is reported."""
FREQUENT = 0.002
"""Share of the sample's captions from which an entry that hits them is reported."""
BATCH = 4096

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What is said of an entry; ``source`` is file:line."""

    level: Level
    kind: str
    source: str
    word: str
    message: str


def check(lexicon: Lexicon, problems: Sequence[str] = ()) -> list[Finding]:
    """All that can be said without captions, errors first."""
    search = Search(lexicon.entries, frozenset(KINDS))
    found = [Finding("error", "does_not_parse", *_place(problem)) for problem in problems]
    found += _same(lexicon.entries, search)
    for entry in lexicon.entries:
        found += _alone(entry, search.folding.fold)
    found += _within(search)
    found += _common(search)
    found += [Finding("note", "empty_category", "", c, "the category has no entry") for c in lexicon.empty]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda f: order.index(f.level))


def _place(problem: str) -> tuple[str, str, str]:
    source, _, message = problem.partition(": ")
    return source, "", message


def _same(entries: Iterable[Entry], search: Search) -> Iterator[Finding]:
    """Entries that are one word, as written or after folding; the later one is the one that counts."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[search.folding.fold(entry.word)].append(entry)
    for key, group in groups.items():
        for before, entry in pairwise(group) if key else ():
            how = "again" if entry.word == before.word else f"the same as {before.word} after folding"
            at = f"{how}: {before.source}"
            for field in ("category", "action"):
                old, new = getattr(before, field), getattr(entry, field)
                if old != new:
                    message = f"{at} has {field} {old}, here it is {new}; keep one"
                    yield Finding("error", f"conflicting_{field}", entry.source, entry.word, message)
            if (before.category, before.action) == (entry.category, entry.action):
                yield Finding("warning", "duplicate", entry.source, entry.word, f"{at}; remove one")


def _alone(entry: Entry, fold: Any) -> Iterator[Finding]:
    """What an entry says of itself."""
    key = fold(entry.word)
    if not key:
        message = "only signs, which folding takes out; it can never hit"
        yield Finding("error", "nothing_left", entry.source, entry.word, message)
    elif len(key) == 1:
        message = "one character; it stands in too many words: write the words that are meant"
        yield Finding("error", "one_character", entry.source, entry.word, message)
    elif key.isascii() and len(key) < 3:
        message = "two Latin letters or digits; many names and units are so written"
        yield Finding("warning", "short_latin", entry.source, entry.word, message)
    for longer in entry.exceptions:
        if key not in fold(longer):
            message = f"exception {longer} does not contain the entry and never applies"
            yield Finding("error", "idle_exception", entry.source, entry.word, message)
        elif fold(longer) == key:
            message = f"exception {longer} is the entry itself, which then never hits"
            yield Finding("error", "idle_entry", entry.source, entry.word, message)


def _within(search: Search) -> Iterator[Finding]:
    """Entries that hold another entry, which would hit there without them."""
    held: dict[str, str] = {}
    for key in search.keys:
        for index, start, end in search.words.find_matches_as_indexes(key, overlapping=True):
            if end - start < len(key):
                held.setdefault(key, search.keys[index])
    for key, inner in held.items():
        outer, other = search.entries[key], search.entries[inner]
        same = (outer.category, outer.action) == (other.category, other.action)
        message = f"holds {other.word} ({other.source}: {other.category}, {other.action})"
        if outer.action == "flag" and not same:
            # Of two hits that overlap the worse action stays.
            message += f"; there {other.action} wins: make it an exception of {other.word} if it is harmless"
            yield Finding("warning", "inside_another", outer.source, outer.word, message)
        else:
            yield Finding("note", "inside_another", outer.source, outer.word, message)


def _common(search: Search) -> Iterator[Finding]:
    """Entries that hit common words, or are among the commonest."""
    words = list(common_words())
    hits: dict[str, list[str]] = defaultdict(list)
    for word, candidate in zip(words, search.candidates(words), strict=True):
        for span in find(word, search) if candidate else ():
            hits[search.folding.fold(span.word)].append(word)
    for key, hit in hits.items():
        entry = search.entries[key]
        longer = [w for w in hit if search.folding.fold(w) != key]
        if longer:
            shown = " ".join(longer[:8]) + (" …" if len(longer) > 8 else "")
            message = f"hits in {len(longer)} common words: {shown}; exceptions keep what is harmless"
            yield Finding("warning", "hits_common_words", entry.source, entry.word, message)
        rank = next((common_words()[w] for w in hit if search.folding.fold(w) == key), len(words))
        if rank < EVERYDAY:
            message = f"is the {rank + 1}. commonest word of {len(words)}; a longer entry would say what is meant"
            yield Finding("warning", "common_word", entry.source, entry.word, message)


@dataclass(frozen=True)
class Rate:
    """How many captions of a sample an entry hits, and the first of them."""

    word: str
    category: str
    action: str
    source: str
    hits: int
    rate: float
    disguised: int
    example: str


def rates(lexicon: Lexicon, captions: Iterable[str]) -> tuple[int, int, list[Rate]]:
    """Captions read, captions with a hit, and each entry that hits, the most frequent first."""
    search = Search(lexicon.entries, frozenset(KINDS))
    counts: Counter[str] = Counter()
    disguised: Counter[str] = Counter()
    example: dict[str, str] = {}
    read = hit = 0
    source = iter(captions)
    while piece := list(islice(source, BATCH)):
        read += len(piece)
        for i in search.candidates(piece).nonzero()[0].tolist():
            spans = find(piece[i], search)
            hit += bool(spans)
            for key in {search.folding.fold(s.word) for s in spans}:
                counts[key] += 1
                example.setdefault(key, piece[i])
            plain = search.folding.fold
            disguised.update({plain(s.word) for s in spans if piece[i][s.start : s.end].lower() != s.word.lower()})
    told = []
    for key, n in sorted(counts.items(), key=lambda kn: (-kn[1], kn[0])):
        e = search.entries[key]
        told.append(
            Rate(e.word, e.category, e.action, e.source, n, round(n / read, 6), disguised[key], example[key][:120])
        )
    return read, hit, told


def frequent(found: Sequence[Rate]) -> list[Finding]:
    """Entries that hit so many captions that a look at them is worth it."""
    return [
        Finding("warning", "frequent", r.source, r.word, f"hits {r.rate:.2%} of the sample, e.g. {r.example}")
        for r in found
        if r.rate >= FREQUENT
    ]


def summary(
    lexicon: Lexicon, findings: Sequence[Finding], sample: tuple[int, int, list[Rate]] | None
) -> dict[str, Any]:
    """All of it as plain values, for ``--json``."""
    told: dict[str, Any] = {
        "entries": len(lexicon.entries),
        "categories": dict(Counter(e.category for e in lexicon.entries)),
        "levels": dict(Counter(f.level for f in findings)),
        "findings": [asdict(f) for f in findings],
    }
    if sample is not None:
        read, hit, each = sample
        told["sample"] = {"captions": read, "hit": hit, "entries": [asdict(r) for r in each]}
    return told
