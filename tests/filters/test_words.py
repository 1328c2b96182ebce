"""Words of many captions at once: the same as one by one, whatever was asked before."""

from __future__ import annotations

import pytest
import rjieba

from tuwen.filters import words
from tuwen.filters.words import tagged, with_tag

CAPTIONS = [
    "雪地里的两只狗在赛跑",
    "",
    "  红 ",
    "iPhone 15 Pro手机壳，1.5米长",
    "土里的路人看球",
    "\x0b\u2028\x85b",
    "。",
    "飞起来的蛐蛐儿龘龘",
    "雪地里的两只狗在赛跑",
]


def test_the_same_as_one_by_one_in_any_company() -> None:
    alone = [list(rjieba.tag(c)) for c in CAPTIONS]
    assert tagged(CAPTIONS) == alone
    assert [tagged([c])[0] for c in CAPTIONS] == alone
    assert tagged([]) == []
    nouns = [any(t[0] == "n" or t in ("vn", "eng") for _, t in some) for some in alone]
    assert with_tag(CAPTIONS, ("vn", "eng"), "n").tolist() == nouns


def test_line_ends_in_captions_move_nothing() -> None:
    told = tagged(["红\r\n车", "小\r", "\n狗"])
    assert ["".join(w for w, _ in some) for some in told] == ["红  车", "小 ", " 狗"]


def test_a_full_memory_forgets_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "REMEMBERED", 2)
    monkeypatch.setattr(words, "_TAGS", words._Tags())
    for caption in CAPTIONS:
        assert tagged([caption, "山顶的灯塔"]) == [list(rjieba.tag(caption)), list(rjieba.tag("山顶的灯塔"))]
