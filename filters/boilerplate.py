"""Cuts what pages add to captions (sources, editors, calls to click, file names, prices, addresses) and drops
captions that are nothing else.

The patterns are Chinese page habits, written for this project; each has a name that stands in the
ledger's spans as ``category``. A pattern that may stand anywhere is cut where it stands, one that
is boilerplate only at an end is anchored there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import polars as pl

from ..pipeline.stage import StageModel, threshold
from .spans import Span, mark

_SITE = r"(?:网|网站|新闻|频道|在线|百科|官网|论坛|社区|日报|晚报|图库|图片|客户端)"
_DANGLING = "，、,;；:：-_—|｜ ·"
_NAME = r"[\p{Han}A-Za-z0-9·/ ]{1,24}"

# ruff: noqa: E501  (a pattern broken over lines is harder to read than a long one)
PATTERNS: dict[str, str] = {
    # attribution
    "source": rf"[（(\[【]?\s*(?:图片|图文|照片|视频|图|文|信息|资料|素材)?\s*(?:来源|來源|源自|出处)\s*[:：|]\s*{_NAME}[）)\]】]?",
    "credit": rf"[（(\[【]?\s*(?:责任编辑|責任編輯|责编|编辑|编审|校对|供图|制图|配图|图/文|文/图|摄影|图)\s*[:：/|]\s*{_NAME}[）)\]】]?",
    "photographer": r"[（(]\s*(?:新华社|中新社|人民网|央视|本报|本网|资料)?(?:记者|通讯员|发)?\s*[\p{Han}]{2,4}\s*(?:摄|发)\s*[）)]",
    "file_photo": r"[（(\[【]\s*(?:资料图片?|网络图片?|视觉中国|东方IC|截图|示意图|配图|图文无关|来自网络|图片来自网络)\s*[）)\]】]",
    # calls
    "call": (
        r"(?:请?(?:点击|點擊|单击|长按|扫码|扫描|扫一扫|轻触)(?:上方|下方|此处|这里|图片|二维码|链接|按钮|可)?"
        r"(?:查看|放大|进入|下载|关注|识别|阅读|浏览|观看|购买|打开|领取)?(?:更多|大图|原图|高清(?:大图|原图)?|详情|全文|二维码|图片|公众号)?)"
        r"(?:[>»›]+)?"
    ),
    "more": r"(?:查看|阅读|浏览)(?:更多|大图|原图|全文|详情)(?:内容|图片|信息)?(?:[>»›]+)?|[\[【](?:详细|详情|更多|全文|图集?|组图|高清|视频)[\]】]",
    "preview": r"(?:[-_ ]?(?:预览图|缩略图|效果图预览|高清大图|大图预览|原图下载|免费下载|素材下载|壁纸下载))",
    "app": r"下载[\p{Han}A-Za-z]{0,8}(?:客户端|APP|App|app)(?:[，,]?[\p{Han}]{0,12})?",
    # at an end
    "site": rf"(?:\s*[-_—|｜]+\s*[\p{{Han}}A-Za-z0-9]{{1,12}}{_SITE})+\s*$",
    "number": r"(?:^\s*(?:图|组图|图片|图解)\s*[一二三四五六七八九十\d]{1,3}\s*[:：、.．])|(?:[（(]\s*\d{1,3}\s*/\s*\d{1,3}\s*[）)]\s*$)|(?:[（(](?:图|组图|图集|\d{1,2})[）)]\s*$)",
    "time": r"(?:^|\s)\d{4}\s*[-/.年]\s*\d{1,2}\s*[-/.月]\s*\d{1,2}\s*日?(?:\s*\d{1,2}:\d{2}(?::\d{2})?)?\s*(?:$|\s)",
    # anywhere
    "url": r"(?:https?://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+",
    "mail": r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+\.[A-Za-z]{2,}",
    "phone": r"(?:(?:联系|咨询|订购|客服|服务)?(?:电话|热线|手机|Tel|TEL)\s*[:：]?\s*)?(?:1[3-9]\d{9}|400[- ]?\d{3}[- ]?\d{4}|0\d{2,3}-\d{7,8})",
    "contact": r"(?:微信|QQ|qq|VX|vx|薇信|微信号|公众号)(?:号|群)?\s*[:：]\s*[A-Za-z0-9_\-\p{Han}]{2,20}",
    "price": r"(?:[¥￥]\s*\d+(?:[.,]\d+)?(?:元|起)?)|(?:\d+(?:\.\d+)?元(?:包邮|起|/\p{Han}))|(?:包邮|限时抢购|满减|折扣价)",
    "file": (
        r"(?:IMG|DSC|DSCN|DSCF|MVIMG|PXL|GOPR|P)[-_]?\d{3,}(?:[-_]\d+)*(?:\.[A-Za-z]{3,4})?|(?:微信|QQ)(?:图片|截图)[-_]?\d*"
        r"|[A-Za-z0-9_\-()]+\.(?:jpe?g|png|gif|webp|bmp|JPE?G|PNG)|(?:截图|屏幕快照|Screenshot)[-_ ]?\d[\d\-_. ]*"
    ),
}  # fmt: skip

WHOLE = [
    "图片",
    "图",
    "照片",
    "配图",
    "插图",
    "封面",
    "封面图",
    "头图",
    "题图",
    "图标",
    "头像",
    "用户头像",
    "作者头像",
    "广告",
    "广告图",
    "二维码",
    "微信二维码",
    "公众号二维码",
    "首页",
    "主页",
    "返回",
    "顶部",
    "返回顶部",
    "登录",
    "注册",
    "搜索",
    "分享",
    "收藏",
    "点赞",
    "评论",
    "关注",
    "更多",
    "详情",
    "加载中",
    "正在加载",
    "暂无图片",
    "无图",
    "图片加载失败",
    "默认图片",
    "占位图",
    "缩略图",
    "预览图",
    "展开全文",
    "播放",
    "视频",
    "logo",
    "LOGO",
    "Logo",
    "网站logo",
    "网站标志",
    "标志",
    "banner",
    "Banner",
    "横幅",
    "轮播图",
    "背景",
    "背景图",
    "分割线",
    "空白",
    "图片说明",
    "图片描述",
    "请输入图片描述",
    "在这里插入图片描述",
    "图像",
    "image",
    "Image",
    "img",
    "photo",
    "截图",
    "原图",
    "大图",
    "组图",
    "下一页",
    "上一页",
    "打印",
    "关闭",
    "客户端",
    "手机版",
    "微信",
    "微博",
    "扫一扫",
]
"""Captions that describe no image when they stand alone."""


class Boilerplate(StageModel):
    """Cuts page habits (sources, calls to click, file names, prices, …) and drops captions that hold little else."""

    name: ClassVar[str] = "boilerplate"
    adds: ClassVar[tuple[str, ...]] = ("boilerplate", "boilerplate_share", "caption", "caption_offsets")

    max_share: float = threshold(0.6, "share of a caption that may be boilerplate; more drops it", gt=0, le=1)

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        before = batch.select(_words("caption").alias("n")).to_series()
        candidates = batch.select(pl.col("caption").str.contains(_any()) | pl.col("caption").is_in(WHOLE)).to_series()
        batch = mark(batch, "boilerplate", candidates.fill_null(False), _find)
        share = pl.when(before > 0).then(1 - _words("caption") / before).otherwise(0.0)
        return batch.with_columns(boilerplate_share=share.round(4))

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"boilerplate": pl.col("boilerplate_share") > self.max_share}


def _words(column: str) -> pl.Expr:
    """Han characters and runs of other letters and digits: a file name counts as what it says, not by its length."""
    return pl.col(column).str.count_matches(r"\p{Han}|[\p{Latin}\p{N}_]+|\p{L}")


@cache
def _compiled() -> dict[str, re.Pattern[str]]:
    """Python's re knows no \\p{Han}; the basic block and extension A are what captions use."""
    return {
        n: re.compile(p.replace(r"[\p{Han}]", "[一-鿿㐀-䶿]").replace(r"\p{Han}", "一-鿿㐀-䶿"))
        for n, p in PATTERNS.items()
    }


@cache
def _any() -> str:
    return "|".join(f"(?:{p})" for p in PATTERNS.values())


def _find(caption: str) -> list[Span]:
    if caption in WHOLE:
        return [Span(0, len(caption), caption, "phrase", "drop", "")]
    found = []
    for name, pattern in _compiled().items():
        for match in pattern.finditer(caption):
            if match.group().strip():
                start, end = with_separators(caption, match.start(), match.end())
                found.append(Span(start, end, match.group().strip()[:60], name, "cut", join_words(caption, start, end)))
    return found


def with_separators(caption: str, start: int, end: int) -> tuple[int, int]:
    """The cut with the commas and dashes that would be left dangling at an end of the caption."""
    if not caption[end:].strip(_DANGLING):
        end = len(caption)
        while start and caption[start - 1] in _DANGLING:
            start -= 1
    if not caption[:start].strip(_DANGLING):
        start = 0
        while end < len(caption) and caption[end] in _DANGLING:
            end += 1
    return start, end


def join_words(caption: str, start: int, end: int) -> str:
    """A space where a cut would glue two Latin words together, else nothing."""
    before, after = caption[:start][-1:], caption[end:][:1]
    return " " if before.isascii() and before.isalnum() and after.isascii() and after.isalnum() else ""
