"""Sensitive words: seen through disguises, not seen where there are none, spans exact to the character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tuwen.filters.disguises import latin_forms, split_forms
from tuwen.filters.fold import CHARACTERS, folding
from tuwen.filters.lexicon import load
from tuwen.filters.normalise import Normalise
from tuwen.filters.sensitive import KINDS, Kind, Sensitive, find
from tuwen.filters.word_search import Search, search, squeeze
from tuwen.pipeline.columns import with_missing
from tuwen.pipeline.errors import InputError, RecipeError
from tuwen.pipeline.stage import StageModel, Tally, apply_stage

ALL = folding(frozenset(KINDS))


def through(captions: list[str], *stages: StageModel) -> pl.DataFrame:
    batch = pl.DataFrame({"key": [str(i) for i in range(len(captions))], "caption_raw": captions})
    for stage in (Normalise(), *stages):
        batch = apply_stage(stage, batch, Tally())
    return batch


def searching(tmp_path: Path, lines: str, *without: Kind) -> Search:
    (tmp_path / "own.txt").write_text(lines, "utf-8")
    return Search(load((str(tmp_path / "own.txt"),)).entries, frozenset(KINDS) - set(without))


def words(caption: str, held: Search | None = None) -> list[tuple[str, str]]:
    """(entry, what of the caption) of each hit; the batch must have seen a candidate where there is one."""
    held = held or search(("default",), frozenset(KINDS))
    found = [(s.word, caption[s.start : s.end]) for s in find(caption, held)]
    assert held.candidates([caption])[0] or not found
    return found


DISGUISED: list[tuple[Kind, str, str, str]] = [
    ("script", "有人在賭博", "賭博", "赌博"),
    ("width", "去 ⽼虎机 那里", "⽼虎机", "老虎机"),
    ("width", "🅺粉到货", "🅺粉", "K粉"),
    ("case", "k粉到货", "k粉", "K粉"),
    ("digits", "③级片下载", "③级片", "三级片"),
    ("digits", "３级片下载", "３级片", "三级片"),
    ("digits", "叁级片下载", "叁级片", "三级片"),
    ("digits", "约¹夜情吗", "¹夜情", "一夜情"),
    ("symbols", "有人在赌*博", "赌*博", "赌博"),
    ("symbols", "有人在赌 / 博", "赌 / 博", "赌博"),
    ("symbols", "赌🎲博网站", "赌🎲博", "赌博"),
    ("symbols", "有人在赌，博", "赌，博", "赌博"),
    ("symbols", "有人在赌!博!", "赌!博", "赌博"),
    ("symbols", "买六、合、彩", "六、合、彩", "六合彩"),
    ("invisible", "有人在赌\u200b博", "赌\u200b博", "赌博"),
    ("invisible", "有人在赌\u3164博", "赌\u3164博", "赌博"),
    ("repeats", "买六合合合彩", "六合合合彩", "六合彩"),
    ("repeats", "他们赌赌赌博", "赌赌赌博", "赌博"),
    ("homophones", "他们堵博", "堵博", "赌博"),
    ("homophones", "买溜河踩的", "溜河踩", "六合彩"),
    ("split", "有人贝者博", "贝者博", "赌博"),
    ("split", "买卖木仓 支", "木仓 支", "枪支"),
    ("pinyin", "dubo网站", "dubo", "赌博"),
    ("pinyin", "上 Du Bo 网", "Du Bo", "赌博"),
    ("pinyin", "上d-u-b-o网", "d-u-b-o", "赌博"),
    ("pinyin", "dǔbó网站", "dǔbó", "赌博"),
    ("pinyin", "赌bo网站", "赌bo", "赌博"),
    ("pinyin", "d博平台", "d博", "赌博"),
    ("pinyin", "买zhen人荷官", "zhen人荷官", "真人荷官"),
]


@pytest.mark.parametrize(("kind", "caption", "surface", "word"), DISGUISED)
def test_each_disguise_is_seen_through_and_can_be_left_alone(kind: Kind, caption: str, surface: str, word: str) -> None:
    assert words(caption) == [(word, surface)]
    # Of the other kinds those of single characters alone: a traditional character sounds like its simplified form.
    assert (word, surface) not in words(caption, search(("default",), frozenset(CHARACTERS) - {kind}))


@pytest.mark.parametrize(
    "caption",
    [
        "买大麻烦不烦",  # cut by 麻烦
        "他去赌，博物馆关门",  # a clause ends between
        "适合成人，网站很多",  # two words in two clauses
        "字很大，麻了",  # 大 is a word of its own
        "去赌 博物馆",  # a word begins after the space
        "首都博物馆",  # sounds like 赌博 and is cut
        "大麻哈鱼很新鲜",  # inside a word that is not made of it
        "他聊以自慰",  # an exception
        "坐海盗号游船",  # 海盗 is the better known word
        "OK粉很好吃",  # Latin letters go on
        "演员杜博到场",  # may be a person
        "小心病毒",  # sounds like 冰毒 and is a word
        "路边的大妈",  # sounds like 大麻 and is a word
        "D博士在讲课",  # a label before a word
        "the dubois family",
    ],
)
def test_what_only_looks_like_a_word_is_none(caption: str) -> None:
    assert words(caption) == []


def test_latin_words_that_read_as_pinyin_stay(tmp_path: Path) -> None:
    held = searching(tmp_path, "判打\n体恤\n妈妈的\n")
    assert words("一只panda在吃竹子", held) == []
    assert words("穿T恤的男人", held) == []
    assert words("穿t恤的男人", held) == []
    assert words("pan打了他", held) == [("判打", "pan打")]


def test_a_word_within_a_longer_one_counts_where_that_is_made_of_it() -> None:
    assert words("一台赌博机") == [("赌博", "赌博")]
    assert words("办裸贷的人") == [("裸贷", "裸贷")]  # in no dictionary, cut by none


def test_spaces_do_not_join_words(tmp_path: Path) -> None:
    held = searching(tmp_path, "师生\n")
    assert words("老师 生气了", held) == []
    assert words("师 生 关系", held) == [("师生", "师 生")]


def test_digits_of_an_entry_of_digits(tmp_path: Path) -> None:
    held = searching(tmp_path, "三五\n八九六四\n3p\n")
    assert words("气温35度", held) == []
    assert words("三五好友", held) == [("三五", "三五")]
    assert words("⑧⑨⑥④纪念", held) == [("八九六四", "⑧⑨⑥④")]
    assert words("电话189640", held) == []
    assert words("13P文件", held) == []


def test_repeats_that_belong_to_an_entry_are_asked_for(tmp_path: Path) -> None:
    held = searching(tmp_path, "天天彩票\n", "homophones")
    assert words("明天彩票开奖", held) == []
    assert words("天天彩彩票", held) == [("天天彩票", "天天彩彩票")]
    assert words("贩毒毒品的人") == [("贩毒", "贩毒"), ("毒品", "毒品")]


def test_traditional_characters_of_several_meanings_are_one(tmp_path: Path) -> None:
    held = searching(tmp_path, "干杯酒\n睡着了\n頭髮店\n")
    for caption in ("乾杯酒", "睡著了", "头发店", "頭發店"):
        assert [surface for _, surface in words(caption, held)] == [caption]


def test_boundaries_are_an_entry_s_own(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("word,boundary\n大麻,any\n赌博,word\n", "utf-8")
    held = Search(load((str(tmp_path / "own.csv"),)).entries, frozenset(KINDS))
    assert words("买大麻烦不烦", held) == [("大麻", "大麻")]
    assert words("一台赌博机", held) == []
    assert words("有人赌博", held) == [("赌博", "赌博")]


def test_the_worse_action_wins_where_entries_overlap(tmp_path: Path) -> None:
    held = searching(tmp_path, "枪支弹药库,weapons,flag\n枪支,weapons,drop\n")
    assert words("一座枪支弹药库", held) == [("枪支", "枪支")]


def test_offsets_are_exact_after_every_folding() -> None:
    caption = "A️①賭🎲\u200b博 Ｄ\u0301uBo、木仓支"
    for span in find(caption, search(("default",), frozenset(KINDS))):
        assert caption[span.start : span.end] in ("賭🎲\u200b博", "Ｄ\u0301uBo", "木仓支")
    assert len(find(caption, search(("default",), frozenset(KINDS)))) == 3


def test_foldings_are_the_same_with_and_without_offsets() -> None:
    for text in ("ＡＢ賭*博Ｈello １２", "红色的车", "①㎏ \u200b裏⑩½", "İstanbul 🅳", "dǔbó lǜ"):
        for kinds in (frozenset(KINDS), frozenset(CHARACTERS), frozenset[Kind]()):
            plain, where = folding(kinds).plain_with_offsets(text)
            assert plain == folding(kinds).plain(text)
            assert len(where) == len(plain) == len(folding(kinds).key(plain))
            assert kinds or plain == text


def test_a_very_long_caption_takes_time_in_proportion() -> None:
    """A hit must not look at every word of the caption: 20,000 hits would take minutes."""
    caption = "有人在赌 博，贝者博和赌赌博博，" * 7000
    found = words(caption)
    assert len(found) == 21_000
    assert {surface for _, surface in found} == {"赌 博", "贝者博", "赌赌博博"}


def test_forms_of_an_entry() -> None:
    forms = {f.text: f for f in (*split_forms("枪支", ALL), *latin_forms("枪支", "枪支"))}
    assert {"木仓支", "枪十又", "木仓十又", "qiangzhi", "枪zhi", "枪z", "枪zh", "q支"} <= set(forms)
    assert forms["木仓支"].changes == ((0, "木仓"),)
    assert forms["木仓十又"].places() == [(0, 2), (2, 4)]
    assert "nu人" in {f.text for f in latin_forms("女人", "女人")}
    assert squeeze("赌赌aa博") == ("赌aa博", [(0, 2), (2, 3), (3, 4), (4, 5)])


def test_candidates_of_a_batch_are_those_of_its_captions() -> None:
    held = search(("default",), frozenset(KINDS))
    captions = [c for _, c, _, _ in DISGUISED] + ["红色的车", "", None, "a\x1eb", "雪山", "换\n行", "\ud800赌博"]
    together = held.candidates(captions)
    assert together.tolist() == [bool(held.candidates([c])[0]) for c in captions]
    assert np.flatnonzero(~together).tolist() == [len(DISGUISED) + i for i in range(6)]
    assert held.candidates([]).tolist() == []


@pytest.mark.parametrize(
    ("caption", "shipped"),
    [
        ("有人在赌博", "有人在＊＊"),
        ("有人在賭博", "有人在＊＊"),
        ("有人在赌 博", "有人在＊＊＊"),
        ("有人在赌*博", "有人在＊＊＊"),
        ("有人在赌\u200b博", "有人在＊＊"),
        ("买大麻烦不烦", "买大麻烦不烦"),
        ("贩卖大麻被抓", "贩卖＊＊被抓"),
        ("他去赌，博物馆关门", "他去赌，博物馆关门"),
    ],
)
def test_sensitive_words_through_disguises_and_not_inside_words(caption: str, shipped: str) -> None:
    assert through([caption], Sensitive())["caption"].item() == shipped


def test_sensitive_spans_point_into_the_caption_as_found() -> None:
    raw = "ＡＢ&amp;赌*博网站"
    span = through([raw], Sensitive())["sensitive"].item()[0]
    assert raw[span["start"] : span["end"]] == "赌*博"
    assert (span["word"], span["category"], span["action"]) == ("赌博", "gambling", "mask")


def test_the_worst_categories_drop_and_a_recipe_may_ship_them_masked() -> None:
    assert through(["色情广告的牌子"], Sensitive())["reason"].item() == "sensitive_word"
    assert through(["色情广告的牌子"], Sensitive(drop=False))["caption"].item() == "＊＊广告的牌子"


def test_lexicons_of_all_kinds_and_their_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("#: category=mine action=flag\n香蕉\n苹果,fruit,mask,苹果园\n")
    (tmp_path / "b.yaml").write_text("veg:\n  action: drop\n  words: [白菜]\n")
    stage = Sensitive(lexicons=(str(tmp_path / "a.txt"), str(tmp_path / "b.yaml")))
    out = through(["香蕉和苹果", "苹果园里的人", "白菜"], stage)
    assert out["caption"].to_list() == ["香蕉和＊＊", "苹果园里的人", "＊＊"]
    assert out["reason"].to_list() == [None, None, "sensitive_word"]
    (tmp_path / "bad.txt").write_text("词,类别,mask\n词,类别,burn\n")
    with pytest.raises(RecipeError, match=r"bad\.txt:2.*'burn'.*mask, drop, flag"):
        load((str(tmp_path / "bad.txt"),))
    with pytest.raises(RecipeError, match="no file"):
        load((str(tmp_path / "nowhere.txt"),))


def test_a_long_entry_that_is_no_hit_hides_no_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("枪支弹药库,weapons,mask,枪支弹药库存\n枪支,weapons,mask\n", "utf-8")
    rows = pl.DataFrame({"caption_raw": ["枪支弹药库存放在这里", "一座枪支弹药库"]}).with_columns(caption="caption_raw")
    out = Sensitive(lexicons=(str(path),)).measure(with_missing(rows, ("caption_offsets",)))
    assert out["caption"].to_list() == ["＊＊弹药库存放在这里", "一座＊＊＊＊＊"]
    assert [[s["word"] for s in spans] for spans in out["sensitive"]] == [["枪支"], ["枪支弹药库"]]


def test_lexicons_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    for name, text, message in [
        ("gbk.txt", "赌博".encode("gbk"), "not UTF-8"),
        ("many.csv", "词,类别,mask,a,any,b\n".encode(), r"many\.csv:1: 6 values"),
        ("head.txt", b"#: kategory=x\n", r"head\.txt:1: kategory"),
        ("bound.csv", "词,类别,mask,,sometimes\n".encode(), r"bound\.csv:1: boundary 'sometimes'.*auto, any, word"),
        ("a.yaml", "veg: [白菜\n".encode(), r"a\.yaml:\d: not valid YAML"),
        ("b.yaml", "- 白菜\n".encode(), "expected a mapping"),
        ("c.yaml", "veg:\n  word: [白菜]\n".encode(), r"c\.yaml:1: veg: unknown word"),
        ("d.yaml", "veg:\n  words: 白菜\n".encode(), r"d\.yaml:1: veg: expected a list"),
    ]:
        (tmp_path / name).write_bytes(text)
        with pytest.raises((RecipeError, InputError), match=message):
            load((str(tmp_path / name),))


def test_entries_know_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("fruit:\n  words:\n  - 苹果\n  - 香蕉\nnone: []\n", "utf-8")
    lexicon = load((str(tmp_path / "a.yaml"),))
    assert [e.source.rsplit(":", 1)[1] for e in lexicon.entries] == ["3", "4"]
    assert lexicon.empty == ("none",)
