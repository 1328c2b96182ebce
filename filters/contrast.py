"""Captions that differ by a telling word: a number, a colour, a side, a sex, a size.

"三只黑狗" and "三只白狗" differ in one character, like a caption and its misprint, but mean another
thing. Two captions contrast where, within one class of telling words, each has one more of something
than the other. A suffix that adds such a word to one side only is no contrast.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .shingles import CODES, Folded

CLASSES: tuple[tuple[str, ...], ...] = (
    ("0零", "1一", "2二两双", "3三", "4四", "5五", "6六", "7七", "8八", "9九", "十"),
    ("红", "橙", "黄", "绿", "蓝", "紫", "黑", "白", "灰", "粉", "棕褐", "金", "银", "青"),
    ("左", "右"),
    ("上", "下"),
    ("前", "后"),
    ("里内", "外"),
    ("东", "南", "西", "北"),
    ("男", "女"),
    ("大", "小"),
    ("长", "短"),
    ("高", "低矮"),
    ("新", "旧"),
    ("春", "夏", "秋", "冬"),
)
"""Closed classes of the language; the characters of one string mean the same."""

MEMBERS = sum(len(c) for c in CLASSES)


@lru_cache(maxsize=1)
def _member() -> npt.NDArray[np.int8]:
    """(0x110000,) number of the member that each code point belongs to, -1 for most."""
    table = np.full(CODES, -1, dtype=np.int8)
    for number, member in enumerate(m for c in CLASSES for m in c):
        table[[ord(char) for char in member]] = number
    return table


def telling(folded: Folded) -> npt.NDArray[np.int16]:
    """(captions, members) how often each caption has each telling word."""
    rows = len(folded.starts) - 1
    member = _member()[folded.codes]
    at = np.flatnonzero(member >= 0)
    row = np.searchsorted(folded.starts, at, side="right") - 1
    counts = np.bincount(row * MEMBERS + member[at], minlength=rows * MEMBERS)
    return counts.reshape(rows, MEMBERS).astype(np.int16)


def contrasts(a: npt.NDArray[np.int16], b: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """(pairs,) whether the telling words of row i of ``a`` and of ``b``, both (pairs, members), contrast."""
    more, less = a > b, a < b
    first = np.cumsum([0, *(len(c) for c in CLASSES[:-1])])
    one = np.logical_or.reduceat(more, first, axis=1)
    other = np.logical_or.reduceat(less, first, axis=1)
    return np.asarray((one & other).any(axis=1))
