"""Captions that differ by a telling word: a number, a colour, a side, a sex, a size.

"三只黑狗" and "三只白狗" differ in one character, like a caption and its misprint, but mean another
thing. Two captions contrast where, within one class of telling words, each has one that the other
lacks. A suffix that adds such a word to one side only is no contrast.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .shingles import CODES, U64, Folded

# Members of a class; characters of one member mean the same. Closed classes of the language only.
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


@lru_cache(maxsize=1)
def _bits() -> tuple[U64, tuple[np.uint64, ...]]:
    """(0x110000,) bit of each code point, 0 for most; and the mask of each class."""
    table: U64 = np.zeros(CODES, dtype=np.uint64)
    masks, bit = [], 0
    for members in CLASSES:
        mask = 0
        for member in members:
            for char in member:
                table[ord(char)] = 1 << bit
            mask |= 1 << bit
            bit += 1
        masks.append(np.uint64(mask))
    return table, tuple(masks)


def contrast_masks(folded: Folded) -> U64:
    """(captions,) the telling words of each caption, one bit per member."""
    if len(folded.starts) == 1:
        return np.empty(0, dtype=np.uint64)
    table, _ = _bits()
    return np.bitwise_or.reduceat(table[folded.codes], folded.starts[:-1])


def contrasts(a: U64, b: U64) -> np.typing.NDArray[np.bool_]:
    """Where masks ``a`` and ``b`` (same length) each hold a member of one class that the other lacks."""
    _, classes = _bits()
    only_a, only_b = a & ~b, b & ~a
    out = np.zeros(len(a), dtype=np.bool_)
    for mask in classes:
        out |= ((only_a & mask) != 0) & ((only_b & mask) != 0)
    return out
