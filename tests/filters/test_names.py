from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tuwen.filters.name_candidates import LONGEST, candidates, windows
from tuwen.filters.name_model import MODEL, fingerprint, load
from tuwen.filters.name_spans import names
from tuwen.filters.names import Names, find
from tuwen.filters.words import tagged

SENTENCES = [
    "记者陈晓东报道，市长林国栋昨天会见了来访的史密斯先生。",
    "导演徐佳宁的新片由演员周子墨和韩雪莹主演",
    "一只棕色的狗在草地上追着红色的球跑",
    "总经理赵振华告诉记者，公司今年的利润有所增长。",
    "克里斯托弗·诺兰执导的影片上映",
    "中场球员马尔克斯在第八十分钟打入一球，伊万诺夫扳平比分",
    "穿白衣服的小女孩在沙滩上堆沙子",
    "副总统彭斯和国务卿布林肯出席仪式，彭斯发表讲话",
    "画家吴德明、作家冯一凡与诗人孟晓舟在座谈会上",
    "😀 hello world 123",
    "張志豪與黃美玲在臺北結婚",
]


def words(caption: str, **options: bool) -> list[str]:
    return [s.word for s in find([caption], **options).get(caption, [])]


def frame(captions: list[str | None]) -> pl.DataFrame:
    offsets = pl.Series("caption_offsets", [None] * len(captions), dtype=pl.List(pl.UInt32))
    return pl.DataFrame([pl.Series("caption", captions, dtype=pl.String), offsets])


def shipped(caption: str, **options: object) -> str:
    return str(Names.model_validate(options).measure(frame([caption]))["caption"].item())


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("记者陈晓东在现场报道", ["陈晓东"]),
        ("市长林国栋会见了史密斯先生", ["林国栋", "史密斯"]),
        ("孙女士和她的猫", ["孙"]),
        ("书架上有一本莫言的小说", ["莫言"]),
        ("欧阳振华与诸葛明在台上", ["欧阳振华", "诸葛明"]),
        ("買買提·艾力在草原上唱歌", ["買買提·艾力"]),
        ("买买提·艾力在草原上唱歌", ["买买提·艾力"]),
        ("卡里姆·阿卜杜勒-贾巴尔投篮", ["卡里姆·阿卜杜勒-贾巴尔"]),
        ("日本首相安倍晋三与韩国总统文在寅会谈", ["安倍晋三", "文在寅"]),
        ("演员李彬周静雅在红毯上", ["李彬", "周静雅"]),
        ("张志豪與黃美玲在臺北結婚", ["张志豪", "黃美玲"]),
        ("导演Christopher Nolan在片场", ["Christopher Nolan"]),
        ("周小川在发言，会后周小川离开", ["周小川", "周小川"]),
        ("村上春树新书发布", ["村上春树"]),
        ("铃木一朗在球场上", ["铃木一朗"]),
        ("扎西次仁在布达拉宫前", ["扎西次仁"]),
        ("古力娜扎现身机场", ["古力娜扎"]),
        ("记者 王小明 摄", ["王小明"]),
        ("J.K.罗琳签名售书", ["J.K.罗琳"]),
        ("左起：陈道明、葛优、张国立", ["陈道明", "葛优", "张国立"]),
        ("朴槿惠出庭", ["朴槿惠"]),
        ("林書豪投籃瞬間", ["林書豪"]),
    ],
)
def test_the_name_alone_is_found(caption: str, expected: list[str]) -> None:
    assert words(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "黄狗和白狗在雪地里打架",
        "屋子里，一只蓝鸟在一个紫色的球的右边",
        "下面是一个小黄木水杯，夜晚",
        "戴帽子的男人在马路边",
        "小女孩张大嘴巴吃苹果",
        "张家界的山和黄河的水",
        "李宁运动鞋旗舰店",
        "麻婆豆腐和宫保鸡丁",
        "唐朝的瓷器与明代的家具",
        "Nike Air Max 新款跑鞋",
        "中美两国代表团",
        "利物浦主场对阵阿森纳",
        "长颈鹿在高高的树下",
        "毛血旺",
        "黄山迎客松",
        "王老吉凉茶",
        "路易威登手袋",
        "张家口 滑雪场",
        "",
    ],
)
def test_what_is_no_name_stays(caption: str) -> None:
    assert words(caption) == []


def test_nicknames_are_a_choice() -> None:
    caption = "记者看到小王和老李在钓鱼，王建国在看书"
    assert words(caption) == ["王建国"]
    assert words(caption, nicknames=True) == ["小王", "老李", "王建国"]


def test_one_person_has_one_number_however_written(tmp_path: Path) -> None:
    caption = "记者張志豪報道，張志豪与张志豪是一人，导演Christopher Nolan说"
    assert shipped(caption, numbered=True) == ("记者【人名1】報道，【人名1】与【人名1】是一人，导演【人名2】说")
    (tmp_path / "keep.txt").write_text("# public figures\nchristopher  nolan\n張志豪\n", "utf-8")
    assert shipped(caption, keep=str(tmp_path / "keep.txt")) == caption


def test_rules_alone_do_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuwen.filters.names.load", None)
    assert shipped("记者王建国摄", model="none") == "记者【人名】摄"
    assert "names_model" not in Names(model="none").resources()


def test_a_caption_gives_the_same_whatever_stands_beside_it() -> None:
    rng = random.Random(1)
    captions = SENTENCES * 2 + ["".join(rng.sample(SENTENCES, 3)) for _ in range(40)]
    stage = Names(numbered=True)
    alone = pl.concat([stage.measure(frame([c])) for c in captions])
    for _ in range(3):
        order = rng.sample(range(len(captions)), len(captions))
        together = stage.measure(frame([captions[i] for i in order]))
        assert together.equals(alone[order])


def test_the_models_numbers_are_the_same_to_the_bit_in_any_company() -> None:
    model = load(MODEL)
    texts = sorted(SENTENCES, key=len)
    lengths = np.array([len(t) for t in texts], np.int32)
    together = model._emissions(texts, lengths)
    for i, text in enumerate(texts):
        alone = model._emissions([text], lengths[i : i + 1])
        assert alone[:, 0].tobytes() == np.ascontiguousarray(together[: len(text), i]).tobytes()


def test_decoding_takes_the_path_of_the_highest_score() -> None:
    model = load(MODEL)
    rng = np.random.default_rng(0)
    emissions = rng.normal(size=(3, 2, len(model.tags))).astype(np.float32) * 3
    paths = model._decode(emissions, np.array([2, 3], np.int32))

    def score(sequence: list[int], path: tuple[int, ...]) -> float:
        total = float(model.start[path[0]] + model.end[path[-1]])
        total += sum(float(emissions[t, sequence[0], tag]) for t, tag in enumerate(path))
        return total + sum(float(model.step[a, b]) for a, b in pairwise(path))

    every = range(len(model.tags))
    best = max(((a, b) for a in every for b in every), key=lambda p: score([0], p))
    assert tuple(paths[:2, 0]) == best
    found = tuple(int(t) for t in paths[:, 1])
    for place in range(3):  # no change of one tag is better
        for tag in every:
            other = (*found[:place], tag, *found[place + 1 :])
            assert score([1], other) <= score([1], found) + 1e-4


def test_photo_captions_are_not_shown_to_the_model() -> None:
    captions = ["一只狗在雪地里奔跑", "两个孩子在玩滑梯", "穿红色衣服的女人在拉琴", "白色的船停在海边"]
    found = candidates(captions)
    assert [w for i, (beside, _) in found.items() for w in windows(captions[i], beside, tagged([captions[i]])[0])] == []


def test_long_captions_are_shown_in_parts() -> None:
    caption = "记者陈晓东报道，" * 100
    parts = windows(caption, candidates([caption])[0][0], tagged([caption])[0])
    assert all(end - start <= LONGEST for start, end in parts)
    assert words(caption) == ["陈晓东"] * 100


def test_missing_and_odd_captions_pass() -> None:
    batch = Names().measure(frame([None, "", "·", "😀王建国先生在说话", "a" * 5000]))
    assert batch["names"].list.len().to_list() == [0, 0, 0, 1, 0]
    assert batch["caption"][0] is None


def test_titles_that_the_model_takes_for_part_of_the_name_stay() -> None:
    caption = "贺龙元帅和吴先生"
    assert [s.word for s in names(caption, [(0, 4, "PER"), (5, 8, "PER")], False)] == ["贺龙", "吴"]


def test_every_source_of_a_result_has_a_hash(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("王建国\n", "utf-8")
    used = Names(keep=str(tmp_path / "keep.txt")).resources()
    assert used["names_model"] == fingerprint(MODEL)
    (tmp_path / "keep.txt").write_text("李晓明\n", "utf-8")
    assert Names(keep=str(tmp_path / "keep.txt")).resources()["names_keep"] != used["names_keep"]


def test_the_stage_needs_no_torch() -> None:
    code = "import sys, tuwen.filters.names as n; n.find(['记者王建国摄']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
