from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tuwen.filters.contrast import MEMBERS, contrasts, telling
from tuwen.filters.minhash import caption_shingles
from tuwen.filters.near_captions import CaptionRule, jaccard
from tuwen.filters.shingles import fold_column


def near(a: str, b: str, rule: CaptionRule | None = None) -> bool:
    folded = fold_column(pl.Series([a, b]))
    one, other = np.array([0]), np.array([1])
    rule = rule or CaptionRule()
    assert rule.near(folded, one, other) == rule.near(folded, other, one)
    return bool(rule.near(folded, one, other)[0])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("一隻黑狗在雪地裏奔跑", "一只黑狗，在雪地里奔跑！"),
        ("ＡＢＣ大楼", "abc大樓"),
        ("狗", "狗。"),
        ("清晨的湖面上有薄雾", "清晨的湖面有薄雾"),
        ("清晨的湖面上漂着一层薄雾", "清晨的湖而上漂着一重薄雾"),
        ("清晨的湖面有薄雾", "清晨的湖面有薄雾_高清图片下载"),
        ("清晨的湖面有薄雾", "【组图】清晨的湖面有薄雾"),
        ("……", "！"),  # nothing but marks: both say nothing
    ],
)
def test_near(a: str, b: str) -> None:
    assert near(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("一只黑狗在雪地里奔跑", "一只白狗在雪地里奔跑"),
        ("操场上有三个男孩在踢球", "操场上有三个女孩在踢球"),
        ("一个抱着双臂的孩子站着_高清图片", "两个抱着双臂的孩子站着"),
        ("在水中有一只狗在奔跑", "一只狗在水中奔跑着"),
        ("狗在跑", "猫在跑"),
        ("狗", "狗在跑"),
        ("洞里的人", "睡在洞里的人"),
        ("湖面有雾", "湖面有雾而远处是连绵不断的群山和一片晚霞"),
    ],
)
def test_not_near(a: str, b: str) -> None:
    assert not near(a, b)


def test_the_thresholds_are_the_rules() -> None:
    a, b = "一只黑狗在雪地里奔跑", "一只白狗在雪地里奔跑"
    assert near(a, b, CaptionRule(contrast=False))
    assert not near(a, b, CaptionRule(contrast=False, edits=0, jaccard=0.9))
    a, b = "清晨的湖面有薄雾", "清晨的湖面有薄雾高清图片"
    assert not near(a, b, CaptionRule(affix=0.9))


def test_jaccard_is_that_of_the_sets() -> None:
    a = ["高高高高高山", "平静的湖面", "一二三四五", "红红"]
    b = ["高山高高", "平静的湖面和远山", "六七八九十", "红红红"]
    sets = [[set(caption_shingles(c)) for c in side] for side in (a, b)]
    expected = [len(x & y) / len(x | y) for x, y in zip(*sets, strict=True)]
    assert jaccard(fold_column(pl.Series(a)), fold_column(pl.Series(b))).tolist() == pytest.approx(expected)


def test_telling_words_are_counted_by_member() -> None:
    words = telling(fold_column(pl.Series(["二两双", "零0０", "无", "左右"])))
    assert words.shape == (4, MEMBERS)
    assert words.sum(axis=1).tolist() == [3, 3, 0, 2]
    assert words[0].max() == words[1].max() == 3
    assert contrasts(words[[0, 0, 3]], words[[1, 2, 2]]).tolist() == [True, False, False]
