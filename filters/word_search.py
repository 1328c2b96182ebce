"""Compiled searches for the entries of a lexicon, in all their disguises, one pass each over folded captions.

``words``   the entries as folded (``fold.py``); in text whose repeats are squeezed as well (赌赌博);
``split``   entries with characters taken apart, and ``latin`` in pinyin (``disguises.py``);
``sound``   entries and captions both as syllables, for homophones (堵博).

``candidates`` looks at a whole batch at once, so that a caption without a candidate costs no Python time, and the
number of entries matters little (benchmarks/sensitive_words.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.once import once
from .disguises import LONGEST, Form, latin_forms, split_forms
from .fold import MARKS, SEPARATOR, folding
from .lexicon import Entry, load
from .pinyin import sound_forms, sounds

Codes = npt.NDArray[np.uint32]


class Search:
    """The searches over one lexicon with some foldings on; they do not pickle, so there is one per process."""

    def __init__(self, entries: Iterable[Entry], kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.folding = folding(kinds)
        self.entries: dict[str, Entry] = {}
        for entry in entries:
            if key := self.folding.fold(entry.word):
                self.entries[key] = entry  # of several the last one wins
        self.keys = tuple(self.entries)
        self.words = _automaton(self.keys)

    @cached_property
    def squeezed(self) -> tuple[Any, list[str]]:
        """Search for the entries without repeats, and which entry each pattern is."""
        pairs = [(squeeze(key)[0], key) for key in self.keys]
        pairs = [(s, key) for s, key in pairs if len(s) > 1]
        return _automaton([s for s, _ in pairs]), [key for _, key in pairs]

    @cached_property
    def split(self) -> tuple[Any, list[str]]:
        """Search for the entries with characters taken apart, and which entry each pattern is."""
        return self._forms(lambda key: split_forms(key, self.folding))

    @cached_property
    def latin(self) -> tuple[Any, list[str]]:
        """Search for the entries in pinyin, and which entry each pattern is."""
        return self._forms(lambda key: latin_forms(key, self.spoken(key)))

    @cached_property
    def sound(self) -> tuple[Any, list[str]]:
        """Search for the entries as syllables, and which entry each pattern is."""
        pairs = [(s, k) for k in self.keys if 2 <= len(k) <= LONGEST for s in sound_forms(self.spoken(k)) if s != k]
        return _automaton([s for s, _ in pairs]), [k for _, k in pairs]

    def spoken(self, key: str) -> str:
        """An entry as it is spoken: its characters without other foldings than those of form."""
        return self.folding.plain(self.entries[key].word)

    def _forms(self, forms: Callable[[str], Iterable[Form]]) -> tuple[Any, list[str]]:
        pairs = dict.fromkeys((f.text, key) for key in self.keys for f in forms(key) if f.text not in self.entries)
        return _automaton([text for text, _ in pairs]), [key for _, key in pairs]

    def candidates(self, captions: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """(rows,) where a caption may hold a word; whether it does is for ``sensitive.find`` to say."""
        found = np.zeros(len(captions), dtype=np.bool_)
        if not len(captions) or not self.keys:
            return found
        plain = self.folding.plain(SEPARATOR.join(c.replace(SEPARATOR, " ") if c else "" for c in captions))
        key = self.folding.key(plain)
        codes = _codes(key)
        ends = np.flatnonzero(codes == ord(SEPARATOR))
        found[_rows(self.words.find_matches_as_indexes(key), ends)] = True
        if "symbols" in self.kinds and (marks := _is_mark()[np.minimum(codes, 0xFFFF)]).any():
            left = codes[~marks]
            text = left.tobytes().decode("utf-32-le", "surrogatepass")
            found[_rows(self.words.find_matches_as_indexes(text), np.flatnonzero(left == ord(SEPARATOR)))] = True
        if "split" in self.kinds:
            found[_rows(self.split[0].find_matches_as_indexes(key), ends)] = True
        if "repeats" in self.kinds and len(rows := _showing(_repeats(codes), ends)):
            captions = key.split(SEPARATOR)
            found[rows[_hit(self.squeezed[0], [squeeze(captions[row])[0] for row in rows])]] = True
        letters = (codes >= ord("a")) & (codes <= ord("z"))
        if "pinyin" in self.kinds and len(rows := _showing(letters, ends)):
            captions = key.split(SEPARATOR)
            found[rows[_hit(self.latin[0], [captions[row] for row in rows])]] = True
        if "homophones" in self.kinds:
            found[np.searchsorted(ends, self._alike(plain, codes), side="right")] = True
        return found

    def _alike(self, plain: str, codes: Codes) -> npt.NDArray[np.int64]:
        """Where entries begin that sound alike, are not the entry itself, and keep a character or have three."""
        automaton, _ = self.sound
        hits = np.array(automaton.find_matches_as_indexes(sounds(plain), overlapping=True), dtype=np.int64)
        if not len(hits):
            return np.empty(0, np.int64)
        which, start, end = hits.T
        length = end - start
        same = np.zeros(len(hits), dtype=np.int64)
        for k in range(int(length.max())):
            inside = np.flatnonzero(k < length)
            same[inside] += codes[start[inside] + k] == self._entry_codes[which[inside], k]
        alike: npt.NDArray[np.int64] = start[(same < length) & ((same > 0) | (length > 2))]
        return alike

    @cached_property
    def _entry_codes(self) -> Codes:
        """(patterns of ``sound``, LONGEST) code points of the entry behind each."""
        padded = "".join(k.ljust(LONGEST, "\0") for k in self.sound[1])
        return _codes(padded).reshape(-1, LONGEST)


@once(8)
def search(paths: tuple[str, ...], kinds: frozenset[str]) -> Search:
    """The searches over the lexicons at ``paths``, built once per process."""
    return Search(load(paths).entries, kinds)


def squeeze(text: str) -> tuple[str, list[tuple[int, int]]]:
    """``text`` with each run of one letter that is not ASCII written once, and where each run stands."""
    out: list[str] = []
    runs: list[tuple[int, int]] = []
    for i, character in enumerate(text):
        if out and character == out[-1] and not character.isascii():
            runs[-1] = (runs[-1][0], i + 1)
        else:
            out.append(character)
            runs.append((i, i + 1))
    return "".join(out), runs


@cache
def _is_mark() -> npt.NDArray[np.bool_]:
    """(0x10000,) the marks that end a clause."""
    table = np.zeros(0x10000, dtype=np.bool_)
    table[[ord(mark) for mark in MARKS]] = True
    return table


def _repeats(codes: Codes) -> npt.NDArray[np.bool_]:
    same = np.zeros(len(codes), dtype=np.bool_)
    same[1:] = (codes[1:] == codes[:-1]) & (codes[1:] > 0x7F)
    return same


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _showing(signs: npt.NDArray[np.bool_], ends: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The captions that show a sign (a repeat, a letter) somewhere."""
    return np.unique(np.searchsorted(ends, np.flatnonzero(signs), side="right"))


def _hit(automaton: Any, texts: Sequence[str]) -> npt.NDArray[np.intp]:
    """Which of ``texts`` hold a pattern."""
    text = SEPARATOR.join(texts)
    return _rows(automaton.find_matches_as_indexes(text), np.flatnonzero(_codes(text) == ord(SEPARATOR)))


def _rows(hits: list[tuple[int, int, int]], ends: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The captions that hits stand in; captions end at ``ends``."""
    return np.searchsorted(ends, np.array([start for _, start, _ in hits], dtype=np.int64), side="right")


def _automaton(patterns: Sequence[str]) -> Any:
    """Not leftmost-longest: a long entry that is no hit at some place must not hide a shorter one within it."""
    import ahocorasick_rs

    return ahocorasick_rs.AhoCorasick(
        list(patterns),
        matchkind=ahocorasick_rs.MatchKind.Standard,
        implementation=ahocorasick_rs.Implementation.ContiguousNFA,
        store_patterns=False,
    )
