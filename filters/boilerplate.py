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
from .spans import Span, mark, without_overlap

_HAN = "一-鿿㐀-䶿"
_SITE = r"(?:网|网站|新闻|频道|在线|百科|官网|论坛|社区|日报|晚报|图库|图片|客户端)"
_DANGLING = "，、,;；:：-_—|｜ ·"
_BRACKETS = re.compile(r"[（(\[【「“\"]\s*$"), re.compile(r"^\s*[）)\]】」”\"]")
_NAME = r"[\p{Han}A-Za-z0-9·/]{1,16}(?: [A-Za-z0-9]{1,16}){0,3}"
_AGENCY = r"(?:视觉中国|新华社|中新社|东方IC|IC ?[Pp]hoto|网络|资料|受访者|\p{Han}{1,8}供图)"
_DATE = r"\d{4}\s*[-/.年]\s*\d{1,2}\s*[-/.月]\s*\d{1,2}\s*日?(?:\s*\d{1,2}:\d{2}(?::\d{2})?)?"
_MAKER = (
    r"(?:Canon|CANON|Nikon|NIKON|Sony|SONY|Fujifilm|FUJIFILM|Olympus|OLYMPUS|Pentax|PENTAX|Panasonic|Leica|LEICA"
    r"|Hasselblad|RICOH|Ricoh|SIGMA|KODAK|CASIO|SAMSUNG)(?: (?:CORPORATION|IMAGING CORP\.?|Camera AG))?"
)
_MODEL = r"(?:(?:EOS|PowerShot|IXUS|COOLPIX|Coolpix) ?[A-Za-z0-9-]+|[A-Z]{1,4}[ -]?[0-9][A-Za-z0-9-]*)(?: (?:[Mm]ark|MARK) [IV]+| [IVX]+| Pro| Plus)*"
_GEAR = r"(?:佳能|尼康|索尼|富士|徕卡|哈苏|松下|奥林巴斯|大疆|适马|腾龙|宾得|理光|华为|小米|苹果|三星)?\s*[A-Za-z0-9][A-Za-z0-9/.+-]*(?: [A-Za-z0-9/.+-]+){0,5}"
_NOT_INSIDE = r"(?<![A-Za-z0-9])"

# ruff: noqa: E501  (a pattern broken over lines is harder to read than a long one)
PATTERNS: dict[str, str] = {
    # attribution
    "source": rf"(?:图片|圖片|图文|照片|视频|图|文|信息|资料|素材)?\s*(?:来源|來源|源自|出处|出處|图源|圖源)\s*[:：|]\s*{_NAME}",
    "from_web": (
        r"(?:以上|本文|部分)?(?:图片?|圖片|照片|素材|图文|资料)均?(?:来源于|来自于?|來自|源于|取自|摘自)"
        r"(?:网络|網路|互联网|网友|新浪微博|微博|百度百科|百度|微信公众号)"
    ),
    "rights": (
        r"(?:图片|照片|作品|本图)?版权(?:归|属于?)[\p{Han}A-Za-z0-9]{1,12}所有|版权所有(?:[，,\s]*(?:翻印|侵权|盗版|翻版)必究)?"
        r"|(?:未经\p{Han}{0,8}(?:授权|许可|允许|同意)[，,]?)(?:严禁|禁止|请勿|不得)\p{Han}{0,6}(?:转载|复制|使用|盗用|商用)"
        r"|(?:严禁|禁止|请勿)(?:转载|盗图|商用)|转载(?:请|须|需)?注明(?:出处|来源)"
        r"|如有?侵权[，,]?(?:请?(?:联系|告知)\p{Han}{0,6}(?:删除|删)?)?|侵权?(?:必|立|即|请?联系)?(?:删除|删)"
    ),
    "credit": (
        r"(?:责任编辑|責任編輯|责编|責編|编辑|編輯|编审|校对|供图|供圖|制图|配图|图/文|文/图|摄影|攝影)\s*[:：/|]\s*"
        rf"{_NAME}|(?:图|圖)\s*(?:/\s*{_NAME}|[:：]\s*{_AGENCY})"
    ),
    "photographer": (
        r"[（(]\s*(?:新华社|中新社|人民网|央视|本报|本网|资料)?(?:记者|通讯员|发)?\s*[\p{Han}]{2,4}\s*(?:摄|攝|发)\s*[）)]"
        r"|(?:新华社|中新社|人民网|本报|本网)记者\s*\p{Han}{2,4}\s*(?:摄|攝)\s*$"
    ),
    "file_photo": r"[（(\[【]\s*(?:资料图片?|网络图片?|视觉中国|东方IC|截图|示意图|配图|图文无关|来自网络|图片来自网络)\s*[）)\]】]",
    "mention": r"@[\p{Han}A-Za-z0-9_-]{2,20}\s*$",
    # calls
    "call": (
        r"请?(?:点击|點擊|点选|单击|长按|轻触)(?:上方|下方|左侧|右侧|此处|这里|图片|圖片|二维码|链接|按钮|即可|可){0,2}"
        r"(?:查看|放大|进入|下载|关注|识别|阅读|浏览|观看|购买|打开|领取|下載|進入|觀看|瀏覽)"
        r"(?:更多|看?大图|大圖|原图|原圖|高清|详情|詳情|全文|视频|二维码|图片|圖片|公众号|文章|链接)*[>»›]*"
        r"|(?:点击|點擊|点|點)(?:大图|大圖|原图|原圖)|(?:点击|點擊)(?:这里|此处|這裡|此處)\s*$"
        r"|(?:扫码|扫描(?:上方|下方)?二维码|扫一扫|長按|长按(?:识别)?二维码)(?:关注|添加|进群|入群|下载|查看|加入|领取|观看|了解|咨询|识别)\p{Han}{0,8}"
    ),
    "more": (
        r"(?:查看|阅读|浏览)(?:更多|大图|原图|全文|详情)(?:内容|图片|信息)?[>»›]*|[\[【](?:详细|详情|更多|全文|图集?|组图|高清|视频)[\]】]"
        r"|更多(?:图片|内容|精彩内容?|详情|资讯|新闻)?\s*[>»›]+|更多(?:图片|精彩内容?|精彩图片)\s*$"
    ),
    "preview": r"(?:[-_ ]?(?:预览图|預覽圖|缩略图|縮圖|效果图预览|高清大图|大图预览|原图下载|免费下载|素材下载|壁纸下载))",
    "app": r"(?:^|[\s，,。|])(?:请|立即|免费)?下载[\p{Han}A-Za-z]{0,8}(?:客户端|APP|App|app)(?:[，,]?(?:查看|阅读|了解|观看|领取|获取)\p{Han}{0,12})?\s*$",
    # at an end
    "site": rf"(?:\s*[-_—|｜]+\s*[\p{{Han}}A-Za-z0-9]{{1,12}}{_SITE})+[-_—|｜\s]*$",
    "number": (
        r"(?:^\s*(?:图|组图|图片|图解)\s*[一二三四五六七八九十\d]{1,3}\s*[:：、.．])|(?:[（(]\s*\d{1,3}\s*/\s*\d{1,3}\s*[）)]\s*$)"
        r"|(?:[（(](?:图|组图|图集|\d{1,2})[）)]\s*$)|(?:[-_—|\s]\s*第\s*\d{1,3}\s*[张張页頁]\s*$)"
    ),
    "time": (
        rf"(?:发布|更新|拍摄|上传|發布|拍攝)?(?:时间|日期|時間|于)\s*[:：]\s*{_DATE}|(?:^|[\s_]){_DATE}(?:$|\s)"
        r"|(?:^|[\s_])20\d{2}[01]\d[0-3]\d(?:[_-]?\d{6})?(?:$|\s)"
    ),
    # anywhere
    "url": (
        r"(?:https?://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"
        rf"|{_NOT_INSIDE}[A-Za-z0-9-]{{2,}}(?:\.[A-Za-z0-9-]+)*\.(?:com|net|org|cn|com\.cn|gov\.cn)(?![A-Za-z0-9])(?:/[A-Za-z0-9\-._~/?=&%]*)?"
    ),
    "mail": r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+\.[A-Za-z]{2,}",
    "phone": r"(?:(?:联系|咨询|订购|客服|服务)?(?:电话|热线|手机|Tel|TEL)\s*[:：]?\s*)?(?:1[3-9]\d{9}|400[- ]?\d{3}[- ]?\d{4}|0\d{2,3}-\d{7,8})",
    "contact": r"(?:微信|QQ|qq|VX|vx|薇信|加微)(?:号|群)?\s*[:：]\s*[A-Za-z0-9_\-]{4,20}|公众号\s*[:：]\s*[A-Za-z0-9_\-\p{Han}]{2,20}",
    "price": (
        r"(?:售价|价格|现价|原价|特价|仅售|仅需|只需|到手价|券后价?|折后价?)\s*[:：]?\s*[¥￥]?\s*\d+(?:[.,]\d+)?\s*元?(?:起|包邮)?"
        r"|[¥￥]\s*\d+(?:[.,]\d+)?(?:元|起)?|\d+(?:\.\d+)?元(?:包邮|起|/\p{Han})|包邮|限时抢购|满减|折扣价"
    ),
    "camera": (
        rf"(?:拍摄|摄影|拍攝)?(?:器材|设备|机型|相机|机身|镜头|相機|鏡頭)\s*[:：]\s*{_GEAR}"
        r"|(?:光圈|快门|曝光(?:时间|补偿)?|焦距|感光度|ISO)(?:值|速度)?\s*[:：]\s*[fF]?/?\d+(?:[./]\d+)?\s*(?:mm|毫米|秒|s|EV)?"
        r"|(?:OLYMPUS|KODAK|CASIO|MINOLTA) DIGITAL (?:STILL )?CAMERA|SONY DSC|SAMSUNG CAMERA PICTURES|Exif_JPEG_PICTURE"
        r"|(?:Shot|SHOT) (?:on|ON) [A-Za-z0-9]+(?: [A-Za-z0-9]+){0,3}"
        rf"|(?:^|[\s,，|_]){_MAKER}[ -]{_MODEL}\s*$|^{_MAKER}[ -]{_MODEL}\s"
        r"|(?:[\s,，|（(])(?:华为|荣耀|小米|苹果|三星|OPPO|vivo|iPhone|HUAWEI|Xiaomi)\s?[A-Za-z0-9+ ]{0,16}(?:手机)?(?:拍摄|实拍)\s*$"
    ),
    "file": (
        rf"{_NOT_INSIDE}(?:IMG|DSC|DSCN|DSCF|MVIMG|PXL|GOPR|P)[-_]?\d{{3,}}(?:[-_]\d+)*(?:\.[A-Za-z]{{3,4}})?|(?:微信|QQ)(?:图片|截图)[-_]?\d*"
        r"|[A-Za-z0-9_\-()]+\.(?:jpe?g|png|gif|webp|bmp|JPE?G|PNG)|\.(?:jpe?g|png|gif|webp|bmp|JPE?G|PNG|GIF)\s*$"
        r"|(?:截图|屏幕快照|Screenshot)[-_ ]?\d[\d\-_. ]*"
    ),
}  # fmt: skip

_CAMERAS = re.compile("相机|单反|微单|镜头|机身|套机|卡片机|摄像机|相機|單眼|鏡頭|旗舰店")
"""A caption that speaks of cameras may name one: it is its subject."""

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

    max_share: float = threshold(
        0.8,
        "share of a caption that may be boilerplate; more drops it (what is left is for length to judge)",
        gt=0,
        le=1,
    )

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
    return {name: re.compile(python_regex(pattern)) for name, pattern in PATTERNS.items()}


def python_regex(pattern: str) -> str:
    """Python's re knows no \\p{Han}; the basic block and extension A are what captions use."""
    pattern = re.sub(r"(\[(?:[^\]\\]|\\.)*\])", lambda m: m[0].replace(r"\p{Han}", _HAN), pattern)
    return pattern.replace(r"\p{Han}", f"[{_HAN}]")


@cache
def _any() -> str:
    """Rust's regular expressions look neither back nor ahead: without that they find a little more."""
    return "|".join(f"(?:{re.sub(r'[(][?]<?![^)]*[)]', '', p)})" for p in PATTERNS.values())


def _find(caption: str) -> list[Span]:
    if caption in WHOLE:
        return [Span(0, len(caption), caption, "phrase", "drop", "")]
    found = []
    for name, pattern in _compiled().items():
        for match in pattern.finditer(caption):
            if name == "camera" and _CAMERAS.search(caption[: match.start()] + caption[match.end() :]):
                continue
            if word := match.group().strip():
                start, end = with_brackets(caption, match.start(), match.end())
                found.append(Span(start, end, word[:60], name, "cut", ""))
    return _joined(caption, without_overlap(found))


def _joined(caption: str, cuts: list[Span]) -> list[Span]:
    """Cuts with the separators that would be left dangling: between two of them, and at an end of the caption."""
    runs: list[list[Span]] = []
    for cut in cuts:
        if runs and not caption[runs[-1][-1].end : cut.start].strip(_DANGLING):
            runs[-1].append(cut._replace(start=runs[-1][-1].end))
        else:
            runs.append([cut])
    for run in runs:
        start, end = with_separators(caption, run[0].start, run[-1].end)
        run[0] = run[0]._replace(start=start)
        run[-1] = run[-1]._replace(end=end, replacement=join_words(caption, start, end))
    return [cut for run in runs for cut in run]


def with_brackets(caption: str, start: int, end: int) -> tuple[int, int]:
    """The cut with brackets that hold nothing else."""
    opened, closed = _BRACKETS[0].search(caption[:start]), _BRACKETS[1].search(caption[end:])
    return (opened.start(), end + closed.end()) if opened and closed else (start, end)


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
