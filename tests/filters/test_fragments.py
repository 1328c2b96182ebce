"""Fragments in other languages, emoji and hashtags: what is cut, what stays, spans in raw offsets."""

from __future__ import annotations

import polars as pl
import pytest

from tests.filters.test_text import through
from tuwen.filters.fragments import Fragments
from tuwen.filters.language import Language
from tuwen.filters.social import Social
from tuwen.pipeline.recipe import load


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("一只狗在草地上 a dog runs on the grass", "一只狗在草地上"),
        ("一只狗在草地上（A dog runs on the grass.）跑", "一只狗在草地上跑"),
        ("welcome to my blog：湖边的小船", "湖边的小船"),
        ("夕阳下的海面, beautiful sunset", "夕阳下的海面"),
        ("wireless headphones 30mm 头戴式耳机", "30mm 头戴式耳机"),
        ("大海 ocean 蓝天", "大海 蓝天"),
        ("樱花盛开さくらの季節的京都", "樱花盛开季節的京都"),
        ("红色的汽车 빨간 자동차", "红色的汽车"),
        ("红场 Красная площадь 的雪", "红场 的雪"),
        ("BIG SALE NOW ONLY TODAY 红色连衣裙", "红色连衣裙"),
        ("été à la plage 海边的夏天", "海边的夏天"),
        # tokens that stay
        ("iPhone 15 Pro Max 手机壳", "iPhone 15 Pro Max 手机壳"),
        ("Nike运动鞋", "Nike运动鞋"),
        ("USB充电线15cm长", "USB充电线15cm长"),
        ("NBA球星vs CBA球星", "NBA球星vs CBA球星"),
        ("α粒子和μ子的轨迹", "α粒子和μ子的轨迹"),
        ("日本动漫「の」主题海报", "日本动漫「の」主题海报"),
        ("一只猫在窗台上", "一只猫在窗台上"),
    ],
)
def test_fragments_go_and_tokens_stay(caption: str, left: str) -> None:
    out = through([caption], Fragments())
    assert out["caption"].item() == left
    assert bool(len(out["fragments"].item())) is (caption != left)


def test_fragments_are_recorded_in_raw_offsets_and_off_by_default() -> None:
    raw = "湖边&nbsp;的小船　Ａ small boat"
    span = through([raw], Fragments())["fragments"].item()[0]
    assert (raw[span["start"] : span["end"]].strip(), span["category"]) == ("Ａ small boat", "latin")
    assert all(s.name != "fragments" for s in load("oppovl").stages)
    assert Fragments(brand_words=0, short=0)._find("Nike运动鞋")


@pytest.mark.parametrize(
    ("stage", "caption", "left"),
    [
        (Social(), "#旅行日记# 湖边的小船😀", "旅行日记 湖边的小船😀"),
        (Social(hashtags="cut"), "#旅行日记# 湖边的小船😀", "湖边的小船😀"),
        (Social(hashtags="keep", emoji="cut"), "#旅行日记# 湖边的小船😀", "#旅行日记# 湖边的小船"),
        (Social(hashtags="cut"), "湖边的小船 #travel #湖边", "湖边的小船"),
        (Social(), "湖边的小船 #travel", "湖边的小船 travel"),
        (Social(), "美景#旅行#湖边", "美景 旅行 湖边"),
        (Social(hashtags="cut", emoji="cut"), "1#楼和2#楼，#1", "1#楼和2#楼，#1"),
        (Social(emoji="cut"), "五星★好评♀👍🏽🇨🇳❤️", "五星★好评♀"),
    ],
)
def test_emoji_and_hashtags_are_a_choice(stage: Social, caption: str, left: str) -> None:
    assert through([caption], stage)["caption"].item() == left


def test_emoji_and_hashtags_are_measured_whatever_is_done() -> None:
    for stage in (Social(), Social(emoji="cut", hashtags="cut"), Social(hashtags="keep")):
        out = through(["#旅行# #湖边 😀👍🏽🇨🇳 小船", "小船"], stage)
        assert out.select("hashtag_count", "emoji_count").rows() == [(2, 3), (0, 0)]
    raw = "＃旅行＃湖边的小船😀"
    spans = through([raw], Social(emoji="cut", hashtags="cut"))["social"].item()
    assert [(raw[s["start"] : s["end"]], s["category"]) for s in spans] == [("＃旅行＃", "hashtag"), ("😀", "emoji")]


def test_batches_do_not_matter() -> None:
    captions = ["大海 ocean 蓝天", "#旅行# 小船😀", "山顶的灯塔"]
    stages = (Social(emoji="cut"), Language(), Fragments())
    whole = through(captions, *stages).drop("key")
    alone = pl.concat([through([c], *stages).drop("key") for c in captions], how="diagonal_relaxed")
    assert whole.select(sorted(whole.columns)).equals(alone.select(sorted(whole.columns)))
