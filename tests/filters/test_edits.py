from __future__ import annotations

import random

import polars as pl
import pytest

from tuwen.filters.edits import edit_distance
from tuwen.filters.shingles import fold_column


def levenshtein(a: str, b: str) -> int:
    """The textbook's table, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_equals_the_textbook_up_to_the_limit(limit: int) -> None:
    drawn = random.Random(limit)
    a = ["".join(drawn.choices("甲乙丙", k=drawn.randrange(1, 12))) for _ in range(600)]
    b = []
    for text in a:
        chars = list(text)
        for _ in range(drawn.randrange(4)):
            at = drawn.randrange(len(chars) + 1)
            chars[at : at + drawn.randrange(2)] = drawn.choices("甲乙丙", k=drawn.randrange(3))
        b.append("".join(chars) or "乙")
    expected = [min(levenshtein(x, y), limit + 1) for x, y in zip(a, b, strict=True)]
    assert edit_distance(fold_column(pl.Series(a)), fold_column(pl.Series(b)), limit).tolist() == expected
    assert set(expected) == set(range(limit + 2))


def test_no_pairs() -> None:
    nothing = fold_column(pl.Series([], dtype=pl.String))
    assert edit_distance(nothing, nothing).tolist() == []
