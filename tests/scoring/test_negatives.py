from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from tuwen.scoring import negatives as module
from tuwen.scoring.negative_words import MEASURES, things
from tuwen.scoring.negatives import KINDS, HardNegatives, negatives, plain
from tuwen.scoring.score import Score


def made(caption: str, kind: str, key: str = "k") -> str | None:
    return dict(negatives(caption, key)).get(kind)


def every(caption: str, kind: str) -> set[str]:
    """What any key gives."""
    return {m for i in range(60) if (m := made(caption, kind, str(i)))}


@pytest.mark.parametrize(
    ("caption", "kind", "expected"),
    [
        ("红色的车和白色的房子", "rebind", {"白色的车和红色的房子"}),
        ("一只大狗追着一只小猫", "rebind", {"一只小狗追着一只大猫"}),
        ("一只大狗追着一只小狗", "rebind", {"一只小狗追着一只大狗"}),
        ("一只猫在一辆汽车的左边", "swap", {"一辆汽车在一只猫的左边"}),
        ("一个男孩背着一个女孩", "swap", {"一个女孩背着一个男孩"}),
        ("小孩骑着马。", "swap", {"马骑着小孩。"}),
        ("猫在汽车的左边", "position", {"猫在汽车的右边"}),
        ("大狗坐着", "size", {"小狗坐着"}),
        ("长头发的女孩", "size", {"短头发的女孩"}),
        ("人们走过木桥", "material", {"人们走过铁桥"}),
        ("叼着塑料袋的狗", "material", {"叼着皮袋的狗", "叼着布袋的狗"}),
        ("有一只狗站立着。", "action", {"有一只狗躺着。", "有一只狗坐着。"}),
        ("走在街道上的人", "position", {"走在草坪上的人", "走在沙滩上的人"}),
        ("他站在草地上", "action", {"他坐在草地上", "他躺在草地上", "他趴在草地上"}),
        ("一条狗在叫", "object", {"一只猫在叫", "一只兔子在叫", "一只羊在叫"}),
        ("一匹白马", "object", {"一头白牛", "一峰白骆驼", "一头白大象"}),
        ("两人在划船", "count", {"三人在划船", "四人在划船", "五人在划船"}),
        ("戴红帽子的男孩", "colour", {f"戴{c}帽子的男孩" for c in ("绿", "蓝", "黄", "白", "黑")}),
        ("两只黑狗", "colour", {f"两只{c}狗" for c in "白黄棕"}),
        ("深蓝色的毛衣", "colour", {f"深{c}色的毛衣" for c in "红黄橙"}),
    ],
)
def test_one_attribute_is_changed(caption: str, kind: str, expected: set[str]) -> None:
    assert every(caption, kind) == expected


def test_counts_rise_and_keep_their_measure_word() -> None:
    assert every("三只白色的小猫", "count") == {f"{n}只白色的小猫" for n in "四五六"}


@pytest.mark.parametrize(
    "caption",
    [
        "一群人在跑步", "一起去大海边看白云", "第一只蝴蝶", "明白的小朋友和大家", "桌上有白菜和黄瓜",
        "黑板前的老师", "路口的红绿灯", "大人带着小孩散步", "一条路上的行人", "一只手", "一个人扶着另一个人",
        "一个男人在给自己刮胡子", "小狗和小猫",
    ],
)  # fmt: skip
def test_words_that_only_look_like_attributes_stay(caption: str) -> None:
    told = dict(negatives(caption, "k"))
    assert {"count", "colour", "size", "rebind"}.isdisjoint(told)


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("黑狗和白狗", "rebind"), ("红头发的女孩和黑头发的女孩", "rebind"), ("猫和狗", "swap"),
        ("电话亭旁", "object"), ("玩四轮摩托", "object"), ("戴口罩的人", "object"), ("穿着大衣", "object"),
        ("吃玻璃袋", "material"),
        ("男孩在女孩旁边", "swap"), ("女孩看着男孩", "swap"), ("穿着泳衣的女子牵着狗", "swap"),
        ("男孩扑向父亲的怀里", "swap"), ("狗追着球", "swap"),
    ],
)  # fmt: skip
def test_what_means_the_same_or_nothing_turned_round_is_no_negative(caption: str, kind: str) -> None:
    assert not every(caption, kind)


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("男人从悬崖跳入水中", "position"), ("在雪地玩雪", "position"), ("爬雪洞的男子", "action"),
        ("打篮球的人", "object"), ("篮球场上的人", "object"), ("皮球在滚", "material"), ("拿着纸板的人", "material"),
        ("男孩和女孩", "object"),
    ],
)  # fmt: skip
def test_no_exchange_where_the_sentence_depends_on_the_word(caption: str, kind: str) -> None:
    assert not every(caption, kind)


def test_the_other_word_is_not_in_the_caption_already() -> None:
    for out in every("红色的车旁边有蓝色的车", "colour"):
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


def test_lexicons_hold_no_thing_twice_and_count_every_thing() -> None:
    names = [name for thing in set(things().values()) for name in thing.names]
    assert len(names) == len(set(names))
    for thing in things().values():
        assert thing.measures
        assert set(thing.measures) <= set(MEASURES), thing


def test_the_stage_bounds_their_number() -> None:
    frame = pl.DataFrame({"key": ["a", "b"], "caption": ["街道上，一只橙色的小狗在一辆蓝色的汽车的左边", "风景"]})
    out = HardNegatives(most=2).measure(frame)
    assert out["negatives"].list.len().to_list() == [2, 0]


def test_another_caption_of_the_same_image_is_no_negative() -> None:
    caption, others = "男人抱着小孩", ["女人抱着小孩。", "男人推着小孩"]
    base = {"key": ["a", "b"], "caption": [caption, "风景"]}
    plainly = {n["caption"] for n in HardNegatives(most=9).measure(pl.DataFrame(base))["negatives"][0]}
    assert plainly & {"女人抱着小孩", "男人推着小孩", "男人追着小孩"}
    merged = pl.DataFrame({**base, "captions_merged": [others, None]})
    beside = pl.DataFrame({"key": ["a", "b", "c"], "caption": [caption, *others], "image_sha256": ["x", "x", "x"]})
    for frame in (merged, beside):
        told = HardNegatives(most=9).measure(frame)["negatives"][0]
        assert {plain(n["caption"]) for n in told}.isdisjoint(map(plain, [caption, *others]))


def test_what_the_scorer_holds_for_likelier_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hears:
        """Scores a caption by whether it says 绿色."""

        def embed_images(self, images: Sequence[bytes]) -> np.ndarray:
            return np.array([[1.0, 0.0]] * len(images))

        def embed_texts(self, captions: Sequence[str]) -> np.ndarray:
            return np.array([[0.9, 0.1] if "绿" in c else [0.2, 0.8] for c in captions])

    monkeypatch.setattr(module, "load_scorer", lambda *_: Hears())
    keys = [str(i) for i in range(20)]
    frame = pl.DataFrame({"key": keys, "caption": ["红色的车"] * 20, "image": [b"x"] * 20, "score": [0.3] * 20})
    free = HardNegatives(check_score=False).among([Score()]).measure(frame)["negatives"].explode().struct["caption"]
    held = HardNegatives().among([Score()]).measure(frame)["negatives"].explode().struct["caption"].drop_nulls()
    assert any(re.search("绿", c) for c in free)
    assert held.len()
    assert not any(re.search("绿", c) for c in held)
