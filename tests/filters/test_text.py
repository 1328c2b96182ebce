"""The text stages, one after another on real sentences."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tuwen.filters.boilerplate import Boilerplate
from tuwen.filters.language import Language
from tuwen.filters.length import Length
from tuwen.filters.name_rules import by_rules
from tuwen.filters.names import Names
from tuwen.filters.normalise import Normalise, normalise
from tuwen.filters.scripts import repertoire
from tuwen.filters.sensitive import Sensitive
from tuwen.pipeline.stage import StageModel, Tally, apply_stage


def through(captions: list[str], *stages: StageModel) -> pl.DataFrame:
    batch = pl.DataFrame({"key": [str(i) for i in range(len(captions))], "caption_raw": captions})
    for stage in (Normalise(), *stages):
        batch = apply_stage(stage, batch, Tally())
    return batch


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ＡＢＣ１２３", "ABC123"),
        ("红色的车，停在路边。", "红色的车，停在路边。"),
        ("  红色\u3000的\t车 \n", "红色 的 车"),
        ("红\u200b色\ufeff的车", "红色的车"),
        ("红色&amp;绿色&nbsp;的&#36710;", "红色&绿色 的车"),
        ("①号㎏", "1号kg"),
        ("e\u0301te\u0301", "été"),
        ("", ""),
    ],
)
def test_normalise(raw: str, clean: str) -> None:
    text, where = normalise(raw)
    assert text == clean
    assert len(where) == len(text)
    assert all(0 <= a < len(raw) for a in where)
    assert where == sorted(where)


def test_normalised_characters_know_where_they_came_from() -> None:
    raw = "Ａ&amp;  红"
    text, where = normalise(raw)
    assert [(c, raw[a]) for c, a in zip(text, where, strict=True)] == [
        ("A", "Ａ"),
        ("&", "&"),
        (" ", " "),
        ("红", "红"),
    ]


def test_script_is_a_choice_and_keeps_lengths() -> None:
    batch = pl.DataFrame({"caption_raw": ["頭髮和發展的後面", "干净的头发"]})
    assert Normalise(script="simplified").measure(batch)["caption"].to_list() == ["头发和发展的后面", "干净的头发"]
    assert Normalise().measure(batch)["caption"].to_list() == batch["caption_raw"].to_list()


@pytest.mark.parametrize(
    ("caption", "lang", "kept"),
    [
        ("一只猫坐在窗台上", "zh", True),
        ("這裏附近有沒有郵局", "zh", True),
        ("雪山", "zh", True),
        ("iPhone 15 Pro 手机壳", "zh", True),
        ("今日嘅天氣好好", "yue", True),
        ("侬今朝辰光有伐？", "wuu", True),
        ("伊拉克的油田", "zh", True),
        ("一个能看海浪的窗口", "zh", True),
        ("阿拉侪欢喜吃大闸蟹", "wuu", True),
        ("駅前広場", "ja", False),
        ("残高照会", "ja", False),
        ("調理場 自転車置場", "ja", False),
        ("駐車場入口", "ja", False),
        ("営業時間案内", "ja", False),
        ("珍珠奶茶", "zh", True),
        ("三明治", "zh", True),
        ("臺北夜市", "zh", True),
        ("小籠包", "zh", True),
        ("東京塔夜景很美", "zh", True),
        ("5G基站", "zh", True),
        ("經濟發展", "zh", True),
        ("東京大学", "ja", False),
        ("赤い車が止まっている", "ja", False),
        ("빨간 자동차", "ko", False),
        ("a red car in the street", "latin", False),
        ("красная машина", "other", False),
        ("12345 !!!", "und", False),
        ("日本动漫「の」主题海报很好看", "zh", True),
    ],
)
def test_language(caption: str, lang: str, kept: bool) -> None:
    out = through([caption], Language())
    assert out["lang"].item() == lang
    assert (out["status"].item() is None) is kept


def test_recipes_choose_which_chinese_stays() -> None:
    assert through(["今日嘅天氣好好"], Language(keep=("zh",)))["reason"].item() == "not_chinese"


def test_repertoires_come_from_the_standards() -> None:
    assert {"国", "这"} <= repertoire("gb2312")
    assert {"國", "這", "裏"} <= repertoire("big5")
    assert "広" in repertoire("jis")
    assert "広" not in repertoire("gb2312") | repertoire("big5")
    assert len(repertoire("jis")) == 6356  # levels 1 and 2 of JIS X 0208, and 仝 among its signs


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("红色的汽车停在草地上（图片来源：视觉中国）", "红色的汽车停在草地上"),
        ("两只狗在草地上 - 新浪新闻网", "两只狗在草地上"),
        ("一只猫在草地上_预览图", "一只猫在草地上"),
        ("草地上的猫，点击查看大图", "草地上的猫"),
        ("图1：雪地里的红狐", "雪地里的红狐"),
        ("红色的车 IMG_2034.jpg", "红色的车"),
        ("红色的车 https://a.cn/b.html", "红色的车"),
        ("这是来源不明的一只猫", "这是来源不明的一只猫"),
        ("编辑正在办公室里写稿", "编辑正在办公室里写稿"),
    ],
)
def test_boilerplate_is_cut_and_descriptions_stay(caption: str, left: str) -> None:
    out = through([caption], Boilerplate())
    assert out["status"].item() is None
    assert out["caption"].item().strip() == left


@pytest.mark.parametrize(
    "caption", ["点击查看大图", "图片来源：新华社", "责任编辑：李明", "微信图片_20230807", "二维码", "暂无图片"]
)
def test_captions_of_boilerplate_alone_are_dropped(caption: str) -> None:
    out = through([caption], Boilerplate())
    assert out["reason"].item() == "boilerplate"
    span = out["boilerplate"].item()[0]
    assert (span["start"], span["end"]) == (0, len(caption))


@pytest.mark.parametrize(
    ("caption", "shipped"),
    [
        ("张伟先生在公园里散步", "【人名】先生在公园里散步"),
        ("记者王建国摄", "记者【人名】摄"),
        ("演员李娜和导演陈志强出席活动", "演员【人名】和导演【人名】出席活动"),
        ("克里斯蒂亚诺·罗纳尔多在球场上", "【人名】在球场上"),
        ("一个高兴的小男孩张开双臂", "一个高兴的小男孩张开双臂"),
        ("白云下面的黄河和马路", "白云下面的黄河和马路"),
        ("一个女人在拉小提琴", "一个女人在拉小提琴"),
    ],
)
def test_names(caption: str, shipped: str) -> None:
    assert through([caption], Names())["caption"].item() == shipped


def test_names_can_be_numbered_kept_or_recorded_only(tmp_path: Path) -> None:
    caption = "记者王建国和记者李晓明，还有记者王建国"
    assert (
        through([caption], Names(numbered=True))["caption"].item() == "记者【人名1】和记者【人名2】，还有记者【人名1】"
    )
    (tmp_path / "keep.txt").write_text("王建国\n")
    assert (
        through([caption], Names(keep=str(tmp_path / "keep.txt")))["caption"].item()
        == "记者王建国和记者【人名】，还有记者王建国"
    )
    flagged = through([caption], Names(action="flag"))
    assert flagged["caption"].item() == caption
    assert flagged["names"].list.len().item() == 3
    assert through([caption], Names(action="drop"))["reason"].item() == "personal_name"


def test_name_spans_hold_exactly_the_name() -> None:
    caption = "演员李娜和导演陈志强出席活动"
    assert [s.word for s in by_rules(caption)] == ["李娜", "陈志强"]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("雪地里的狗", None),
        ("狗", "caption_too_short"),
        ("红色的车" * 60, "caption_too_long"),
        ("哈哈哈哈哈哈", "caption_uninformative"),
        ("好好好好坏坏坏坏", "caption_uninformative"),
    ],
)
def test_length(caption: str, reason: str | None) -> None:
    assert through([caption], Length())["reason"].item() == reason


def test_a_noun_can_be_asked_for() -> None:
    stage = Length(require_noun=True)
    assert through(["一只红色的狐狸", "非常非常地快"], stage)["reason"].to_list() == [None, "caption_uninformative"]


def test_a_batch_gives_what_its_rows_give_alone() -> None:
    captions = ["红色的车（图片来源：新华社）", "记者王建国摄于北京", "有人在赌博", "駅前広場", "", "红\ufffd色的车"]
    stages = (Language(), Boilerplate(), Sensitive(), Length(), Names())
    whole = through(captions, *stages).drop("key")
    alone = pl.concat([through([c], *stages).drop("key") for c in captions], how="diagonal_relaxed")
    assert whole.select(sorted(whole.columns)).equals(alone.select(sorted(whole.columns)))
