"""Folded captions and their character shingles, over a whole column at once.

Two captions that differ in width, case, script variant, spaces or punctuation alone fold to the
same characters. Folding here is for comparison only (what ships is ``normalise``'s business), so
it is one table look-up per code point: compatibility decomposition without marks, case folding,
traditional to simplified by single characters, punctuation, spaces, symbols and controls removed.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

CODES = 0x110000
DROP, SPELL_OUT = np.uint32(0), np.uint32(0xFFFFFFFF)
CHUNK_ROWS = 1 << 13
"""Captions folded or hashed at a time: the work arrays stay in a core's cache."""
VERY_SHORT = 4
"""Folded captions below this many characters have one shingle, the whole text: they match exactly or not."""

_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, 0x323B0))
_AS_IS = ((0xAC00, 0xD7A4), (0xD800, 0xF900), *_HAN)
_REMOVED = ("P", "Z", "C", "M", "Sk", "So")


def fold(text: str) -> str:
    """``text`` folded for comparison; '' where nothing but punctuation and symbols is left."""
    codes = fold_column(pl.Series([text])).codes
    return "".join(map(chr, codes.tolist())).strip("\0")


@dataclass(frozen=True)
class Folded:
    """A column of folded captions, end to end.

    ``codes`` (total characters,) holds code points; caption ``i`` is ``codes[starts[i]:starts[i + 1]]``.
    Each caption holds at least one code: one that folds to nothing holds the single code 0.
    """

    codes: U32
    starts: I64

    @property
    def lengths(self) -> I64:
        """Characters per caption."""
        return np.diff(self.starts)

    def text_hash(self) -> U64:
        """(captions,) 64-bit hash of each folded caption: equal text, equal hash."""
        rows = len(self.starts) - 1
        out: U64 = np.empty(rows, dtype=np.uint64)
        for first in range(0, rows, CHUNK_ROWS):
            last = min(first + CHUNK_ROWS, rows)
            starts = self.starts[first:last]
            lengths = np.diff(self.starts[first : last + 1])
            codes = self.codes[starts[0] : self.starts[last]].astype(np.uint64)
            place = np.arange(starts[0], self.starts[last]) - np.repeat(starts, lengths)
            terms = mix64(codes + (place.astype(np.uint64) << np.uint64(32)))
            out[first:last] = mix64(np.add.reduceat(terms, starts - starts[0]) + lengths.astype(np.uint64))
        return out

    def shingles(self, n: int = 2) -> U32:
        """(total characters,) one 32-bit shingle hash per character: of the n-gram that starts there.

        The last n - 1 places of a caption repeat its last whole n-gram, so each caption has as many
        values as characters and its *set* of values is that of its n-grams. A very short caption has
        its text's hash at each place.
        """
        codes = self.codes.astype(np.uint64)
        hashed = codes * _MULTIPLIERS[0]
        for k in range(1, n):
            hashed = hashed + np.roll(codes, -k) * _MULTIPLIERS[k]
        out = (mix64(hashed) >> np.uint64(32)).astype(np.uint32)
        lengths = self.lengths
        ends, long_enough = self.starts[1:], lengths >= n
        for k in range(1, n):
            out[ends[long_enough] - k] = out[ends[long_enough] - n]
        short = np.flatnonzero(lengths < max(VERY_SHORT, n))
        if len(short):
            whole = (self.text_hash()[short] >> np.uint64(32)).astype(np.uint32)
            out[gather_ranges(self.starts[short], lengths[short])] = np.repeat(whole, lengths[short])
        return out

    def take(self, rows: I64) -> Folded:
        """The captions of ``rows``, in that order."""
        lengths = self.lengths[rows]
        codes = self.codes[gather_ranges(self.starts[rows], lengths)]
        return Folded(codes, np.concatenate([[0], np.cumsum(lengths)]))


_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F],
    dtype=np.uint64,
)
MAX_N = len(_MULTIPLIERS)


def mix64(values: U64) -> U64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def gather_ranges(starts: I64, lengths: I64) -> I64:
    """Indices ``starts[i] .. starts[i] + lengths[i]`` for all i, end to end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    places: I64 = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return places


def fold_column(captions: pl.Series) -> Folded:
    """Fold a column of captions (null counts as '')."""
    pieces = [_fold_rows(captions[i : i + CHUNK_ROWS]) for i in range(0, max(len(captions), 1), CHUNK_ROWS)]
    lengths = np.concatenate([p.lengths for p in pieces])
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Folded(np.concatenate([p.codes for p in pieces]), starts)


def _fold_rows(captions: pl.Series) -> Folded:
    captions = captions.fill_null("")
    codes, starts = code_points(captions)
    folded = _table()[codes]
    hard = folded == SPELL_OUT
    if hard.any():
        rows = np.unique(np.searchsorted(starts, np.flatnonzero(hard), side="right") - 1)
        spelled = pl.Series([_spell_out(captions[int(r)]) for r in rows], dtype=pl.String)
        captions = captions.scatter(rows, spelled)
        codes, starts = code_points(captions)
        folded = _table()[codes]
    kept = folded != DROP
    counts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])[starts]
    lengths = np.diff(counts)
    bare = np.flatnonzero(lengths == 0)
    return Folded(np.insert(folded[kept], counts[bare], 0), counts + np.concatenate([[0], np.cumsum(lengths == 0)]))


def hash_strings(strings: pl.Series) -> U64:
    """(strings,) 64-bit hash of each string as it is; null counts as ''."""
    return Folded(*code_points(strings.fill_null("") + "\n")).text_hash()


def code_points(captions: pl.Series) -> tuple[U32, I64]:
    """Code points of all captions end to end, and where each begins (one more at the end)."""
    starts = np.zeros(len(captions) + 1, dtype=np.int64)
    np.cumsum(captions.str.len_chars().to_numpy(), out=starts[1:])
    text = captions.str.join("").item() if len(captions) else ""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), starts


def _spell_out(caption: str) -> str:
    """Characters that stand for several (㍿, ½, ﬁ) written as those."""
    return "".join(c if _table()[ord(c)] != SPELL_OUT else unicodedata.normalize("NFKD", c).casefold() for c in caption)


@lru_cache(maxsize=1)
def _table() -> U32:
    """(0x110000,) folded code point of each code point; ``DROP`` removes it, ``SPELL_OUT`` stands for several."""
    table: U32 = np.zeros(CODES, dtype=np.uint32)
    for start, end in _AS_IS:
        table[start:end] = np.arange(start, end)
    table[0xD800:0xF900] = DROP
    for start, end in ((0, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0x20000)):
        for code in range(start, end):
            table[code] = _fold_one(chr(code))
    for code in range(0x2F800, 0x2FA20):
        table[code] = _fold_one(chr(code))
    han = np.concatenate([np.arange(*span, dtype=np.uint32) for span in _HAN])
    simplified = _simplify(han)
    lookup = np.arange(CODES, dtype=np.uint32)
    lookup[han] = simplified
    plain = table != SPELL_OUT
    table[plain] = lookup[table[plain]]
    return table


def _fold_one(char: str) -> np.uint32:
    if unicodedata.category(char)[0] == "C":
        return DROP
    spelled = unicodedata.normalize("NFKD", char).casefold()
    kept = [c for c in unicodedata.normalize("NFKD", spelled) if not unicodedata.category(c).startswith(_REMOVED)]
    if not kept:
        return DROP
    return np.uint32(ord(kept[0])) if len(kept) == 1 else SPELL_OUT


def _simplify(han: U32) -> U32:
    """Each Han character's simplified form by OpenCC's character dictionary; itself where that is not one character."""
    lines = _opencc().convert("\n".join(map(chr, han.tolist()))).split("\n")
    return np.array([ord(s) if len(s) == 1 else h for s, h in zip(lines, han.tolist(), strict=True)], dtype=np.uint32)


def _opencc() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
