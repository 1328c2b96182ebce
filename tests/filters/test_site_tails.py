"""Tails and heads that a site adds, learned by counting: what is cut, what stays, in one process and over Beam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tuwen.filters.duplicates import PairDuplicates
from tuwen.filters.frequency import CaptionFrequency
from tuwen.filters.normalise import Normalise
from tuwen.filters.site_tails import SiteTails, raw_span, restored
from tuwen.pipeline.beam_run import pipeline_options
from tuwen.pipeline.columns import with_missing
from tuwen.pipeline.relate import relate
from tuwen.pipeline.stage import VERDICT, judge

SEEN = [
    "白色的小狗",
    "红色的房子",
    "湖边的小船",
    "雪地里的狐狸",
    "夕阳下的海面",
    "公园里的长椅",
    "山顶的灯塔",
    "窗台上的猫",
]


def rows(captions: list[str], host: str = "pic.cn", raw: list[str] | None = None) -> pl.DataFrame:
    return with_missing(
        pl.DataFrame(
            {
                "caption": captions,
                "caption_raw": raw or captions,
                "page_url": [f"https://{host}/{i}.html" for i in range(len(captions))],
            }
        ),
        VERDICT,
    )


def cut(captions: list[str], stage: SiteTails | None = None, **more: Any) -> list[str]:
    return (stage or SiteTails(pages=5)).relate(rows(captions, **more))["caption"].to_list()


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        ("", "_新浪图片"),
        ("", " | 人民网"),
        ("", "（百图网）"),
        ("", "-百图网-高清图片下载"),
        ("", "——Sina Photo"),
        ("组图：", ""),
        ("【高清】", ""),
        ("高清图_", "_百图网"),
    ],
)
def test_planted_tails_and_heads_are_cut(head: str, tail: str) -> None:
    out = SiteTails(pages=5).relate(rows([f"{head}{s}{tail}" for s in SEEN]))
    assert out["caption"].to_list() == list(SEEN)
    for raw, spans in out.select("caption_raw", "site_tails").rows():
        assert {raw[s["start"] : s["end"]] for s in spans} == {head, tail} - {""}
        assert {s["action"] for s in spans} == {"cut"}
    if tail:
        assert set(out["tail_count"]) == {len(SEEN)}
    assert restored(out)["caption"].to_list() == out["caption_raw"].to_list()


@pytest.mark.parametrize(
    "captions",
    [
        [f"{s}_百图网" for s in SEEN[:4]],  # on too few pages
        ["湖边的小船_百图网"] * 8,  # one rest: a template, no tail
        [f"{s}百图网" for s in SEEN],  # not set off
        [f"{c}_百图网" for c in "甲乙丙丁戊己庚辛"],  # would leave too little
        [f"{c}色T-shirt" for c in "红橙黄绿蓝紫黑白"],  # a hyphen inside a word
        [f"{s}_{i}" for i, s in enumerate(SEEN)],  # not the same
        ["_百图网"] * 8,  # nothing else
    ],
)
def test_what_is_no_tail_stays(captions: list[str]) -> None:
    out = SiteTails(pages=5).relate(rows(captions))
    assert out["caption"].to_list() == captions
    assert out["site_tails"].null_count() == len(captions)


def test_a_tail_is_one_sites_and_may_be_as_rare_as_share_allows() -> None:
    both = pl.concat([rows([f"{s}_百图网" for s in SEEN[:4]], host) for host in ("a.cn", "b.cn")])
    assert SiteTails(pages=5).relate(both)["caption"].to_list() == both["caption"].to_list()
    assert SiteTails(pages=4).relate(both)["caption"].to_list() == [*SEEN[:4], *SEEN[:4]]
    rare = [f"{s}_成年" for s in SEEN] + [f"{SEEN[i % 8]}{i}_第{i}" for i in range(40)]
    assert cut(rare) == rare
    assert cut(rare, SiteTails(pages=5, share=0.1))[:8] == list(SEEN)


def test_pieces_that_differ_stay_when_the_outer_one_goes() -> None:
    places = ["北京", "上海", "广州", "西安", "成都", "昆明", "拉萨", "南京"]
    captions = [f"{s}_{p}_百图网" for s, p in zip(SEEN, places, strict=True)]
    assert cut(captions) == [f"{s}_{p}" for s, p in zip(SEEN, places, strict=True)]


def test_a_placeholder_is_nobodys_head() -> None:
    raw = [f"王小明：{s}" for s in SEEN]
    masked = [f"【人名】：{s}" for s in SEEN]
    assert cut(masked, raw=raw) == masked


def test_spans_are_those_of_the_caption_as_found() -> None:
    raw = [f" {s}&nbsp;＿百圖網 " for s in SEEN]
    found = Normalise(script="simplified").measure(rows(raw).drop("caption"))
    out = SiteTails(pages=5).relate(found)
    assert out["caption"].to_list() == list(SEEN)
    for text, spans in out.select("caption_raw", "site_tails").rows():
        (span,) = spans
        assert text[span["start"] : span["end"]].endswith("＿百圖網")
    assert raw_span("一只猫", "_百图网", last=True) is None


def test_the_same_over_beam_as_in_one_process(tmp_path: Path) -> None:
    captions = [f"组图：{s}_百图网" for s in SEEN] + list(SEEN) + [f"{s}_别处" for s in SEEN[:3]]
    frame = rows(captions).with_columns(
        key=pl.Series([f"{(i * 7) % 100:02}" for i in range(len(captions))]),
        origin=pl.Series([f"f#{i:03}" for i in range(len(captions))]),
    )
    given: dict[bool, pl.DataFrame] = {}
    for spread in (False, True):
        folder = tmp_path / str(spread)
        folder.mkdir()
        for u in range(3):
            unit = frame[u::3].with_row_index("ordinal").with_columns(unit=pl.lit(f"u{u}"))
            unit.write_parquet(folder / f"u{u}.parquet")
        parts = [str(folder / f"u{u}.parquet") for u in range(3)]
        relate(
            parts, [PairDuplicates(), SiteTails(pages=5), CaptionFrequency()], str(folder), pipeline_options(()), spread
        )
        given[spread] = pl.concat([pl.read_parquet(folder / f"u{u}.relate.parquet") for u in range(3)])
    assert given[False].equals(given[True])
    assert given[True]["caption_count"].to_list().count(2) == 16
    assert sorted(given[True]["caption"]) == sorted([*SEEN, *SEEN, *captions[-3:]])
    assert given[True]["head_count"].drop_nulls().value_counts(sort=True).rows() == [(8, 8), (1, 3)]


def test_frequent_captions_are_counted_and_dropped_only_where_a_recipe_says_so() -> None:
    frame = rows(["湖边的小船", "湖邊的小船！", "湖边的小船", "雪山"]).with_columns(key=pl.Series(list("abcd")))
    out = CaptionFrequency().relate(frame)
    assert out["caption_count"].to_list() == [3, 3, 3, 1]
    assert judge(CaptionFrequency(), out)["reason"].null_count() == 4
    assert judge(CaptionFrequency(most=2), out)["reason"].to_list() == ["caption_too_frequent"] * 3 + [None]
