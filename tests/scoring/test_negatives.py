from __future__ import annotations

import polars as pl
import pytest

from tuwen.scoring.negatives import KINDS, HardNegatives, negatives


def made(caption: str, kind: str, key: str = "k") -> str | None:
    return dict(negatives(caption, key)).get(kind)


@pytest.mark.parametrize(
    ("caption", "kind", "expected"),
    [
        ("红色的车和白色的房子", "rebind", "白色的车和红色的房子"),
        ("一只大狗追着一只小猫", "rebind", "一只小狗追着一只大猫"),
        ("一只猫在一辆汽车的左边", "swap", "一辆汽车在一只猫的左边"),
        ("一个男孩背着一个女孩", "swap", "一个女孩背着一个男孩"),
        ("猫在汽车的左边", "position", "猫在汽车的右边"),
        ("小狗坐着", "size", "大狗坐着"),
    ],
)
def test_one_attribute_is_changed(caption: str, kind: str, expected: str) -> None:
    assert made(caption, kind) == expected


def test_counts_keep_their_measure_word() -> None:
    out = made("三只白色的小猫", "count")
    assert out is not None
    assert out.endswith("只白色的小猫")
    assert out[0] in "一两四五"


@pytest.mark.parametrize("caption", ["一群人在跑步", "一起去大海边看白云", "第一只蝴蝶", "明白的小朋友和大家"])
def test_words_that_only_look_like_attributes_stay(caption: str) -> None:
    told = dict(negatives(caption, "k"))
    assert {"count", "colour", "size"}.isdisjoint(told)


def test_what_means_the_same_turned_round_is_no_negative() -> None:
    assert made("黑狗和白狗", "rebind") is None
    assert made("猫和狗", "swap") is None


def test_the_other_word_is_not_in_the_caption_already() -> None:
    for key in map(str, range(40)):
        out = made("红色的车旁边有蓝色的车", "colour", key)
        assert out is not None
        assert out.count("红色") + out.count("蓝色") == 1


def test_negatives_are_the_same_for_the_same_key_and_never_the_caption() -> None:
    captions = ["街道上，一只橙色的小狗在一辆蓝色的汽车的左边", "两个金属杯子", "他站在草地上"]
    for caption in captions:
        assert negatives(caption, "a") == negatives(caption, "a")
        texts = [c for _, c in negatives(caption, "a")]
        assert caption not in texts
        assert len(set(texts)) == len(texts)
        assert {k for k, _ in negatives(caption, "a")} <= set(KINDS)
    assert any(negatives(captions[0], "a") != negatives(captions[0], str(i)) for i in range(9))


def test_the_stage_bounds_their_number() -> None:
    frame = pl.DataFrame({"key": ["a", "b"], "caption": ["街道上，一只橙色的小狗在一辆蓝色的汽车的左边", "风景"]})
    out = HardNegatives(most=2).measure(frame)
    assert out["negatives"].list.len().to_list() == [2, 0]
