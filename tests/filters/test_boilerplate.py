"""What pages add to captions, kind by kind, and sentences that only look like it."""

from __future__ import annotations

import polars as pl
import pytest

from tests.filters.test_text import through
from tuwen.filters.boilerplate import PATTERNS, Boilerplate, _any, _find, python_regex

BOAT = "湖边的小船"
ADDED = [
    ("source", " 图片来源：视觉中国"),
    ("source", "（图源：网络）"),
    ("source", " 圖片來源：中央社"),
    ("from_web", " 图片来源于网络"),
    ("from_web", "，图片来自网络，侵删"),
    ("rights", " 版权归原作者所有"),
    ("rights", " 未经授权禁止转载"),
    ("rights", "（转载请注明出处）"),
    ("credit", " 责任编辑：李四"),
    ("credit", "（图/新华社）"),
    ("photographer", "（新华社记者李刚摄）"),
    ("mention", "@摄影师小王"),
    ("call", "【点击放大】"),
    ("call", "(点击图片查看高清大图)"),
    ("call", " 點擊查看大圖"),
    ("call", "，扫码关注公众号"),
    ("more", " 更多>>"),
    ("preview", "-预览图"),
    ("number", "(3/12)"),
    ("number", " - 第3张"),
    ("time", " 发布时间：2023-08-07 12:30"),
    ("time", " 2023年8月7日"),
    ("time", " 20230807"),
    ("url", " example.com"),
    ("phone", " 电话：13812345678"),
    ("contact", " 微信号：abc12345"),
    ("price", " 价格：¥199起"),
    ("price", " 仅需99.9元包邮"),
    ("camera", " NIKON D850"),
    ("camera", " OLYMPUS DIGITAL CAMERA"),
    ("camera", " 相机：佳能 EOS R5"),
    ("camera", " 光圈：f/2.8 快门：1/250 ISO：100"),
    ("camera", " Shot on iPhone 13"),
    ("camera", " 华为P40 Pro拍摄"),
    ("file", ".jpg"),
    ("file", " IMG_20230807_123456.jpg"),
]


@pytest.mark.parametrize(("kind", "added"), ADDED)
def test_each_kind_is_cut_with_its_brackets_and_separators(kind: str, added: str) -> None:
    out = through([BOAT + added], Boilerplate())
    assert out["caption"].item() == BOAT
    assert out["status"].item() is None
    assert kind in {span["category"] for span in out["boilerplate"].item()}


@pytest.mark.parametrize("added", ["Canon EOS 5D Mark IV ", "图1：", "點擊查看大圖 ", "20230807 "])
def test_what_stands_in_front_goes_too(added: str) -> None:
    assert through([added + BOAT], Boilerplate())["caption"].item() == BOAT


@pytest.mark.parametrize(
    "caption",
    [
        "桌上的相机是佳能 EOS R5",
        "一台单反相机 NIKON D850",
        "1949年10月1日天安门广场上的人群",
        "一瓶199元的红酒",
        "点击鼠标的手",
        "编辑部的同事在开会",
        "下载APP的年轻人",
        "扫码支付的顾客",
        "更多的人走上街头",
        "拨打电话的女人",
        "iPhone 13手机放在桌上",
        "微信：一个绿色的图标",
        "人民网记者在采访",
        "图：雪地里的红狐",
        "通过ISO9001认证的工厂",
        "侵略者的铁蹄",
        "MP3000型机器",
    ],
)
def test_what_is_said_of_the_picture_stays(caption: str) -> None:
    assert through([caption], Boilerplate())["caption"].item() == caption


def test_cuts_in_a_row_leave_nothing_between_them() -> None:
    spans = _find(f"{BOAT}，图片来自网络，侵删 - 第3张")
    assert [(s.start, s.end) for s in spans] == [(5, 12), (12, 15), (15, 21)]


def test_both_engines_read_the_same_patterns() -> None:
    """polars finds the captions, Python the places: what Python finds polars must have seen."""
    captions = [BOAT + added for _, added in ADDED]
    assert pl.Series(captions).str.contains(_any()).all()
    assert python_regex(r"\p{Han}{2}[\p{Han}A-Z]") == "[一-鿿㐀-䶿]{2}[一-鿿㐀-䶿A-Z]"
    assert {kind for kind, _ in ADDED} <= set(PATTERNS)
