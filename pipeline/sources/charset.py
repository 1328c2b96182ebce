"""From the bytes of a page to text, whatever its labels say.

Chinese pages are mislabelled often: a server sends one character set for all its pages, templates
keep an old ``<meta>``. Rules, in order:

1. a byte order mark decides;
2. bytes that are valid UTF-8 with something beyond ASCII are UTF-8, whatever the labels: GBK or Big5
   text of a few words is practically never valid UTF-8;
3. labels (HTTP header, then ``<meta>``) hold if the bytes decode with at most 1 % of losses and the
   text is not plainly another Chinese encoding;
4. else gb18030, Big5 and UTF-8 are tried, and the text with the most of the commonest characters wins.

gb2312 and gbk are read as gb18030, their superset (as the WHATWG Encoding Standard reads them), and
Big5 with the Hong Kong supplementary characters.
"""

from __future__ import annotations

import codecs
import re

import numpy as np

_ALIASES = {
    **dict.fromkeys(
        ["gb2312", "gb_2312", "gb_2312-80", "gbk", "x-gbk", "cp936", "ms936", "euc-cn", "gb18030", "chinese"], "gb18030"
    ),
    **dict.fromkeys(["big5", "big5-hkscs", "big5hkscs", "cn-big5", "x-x-big5", "cp950"], "big5hkscs"),
    **dict.fromkeys(["utf-8", "utf8", "unicode-1-1-utf-8", "x-unicode20utf8"], "utf-8"),
    **dict.fromkeys(["shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji"], "cp932"),
    **dict.fromkeys(["euc-kr", "ks_c_5601-1987", "ksc5601"], "cp949"),
}
# What servers send when nobody chose: no evidence about a page with bytes beyond ASCII.
_EMPTY_LABELS = frozenset(["ascii", "us-ascii", "iso-8859-1", "latin1", "iso8859-1", "windows-1252", "cp1252"])
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.+-]{2,40})""", re.I)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_:.+-]{2,40})""", re.I)
_META_WITHIN = 4096
_ASCII = bytes(range(128))
_LOSSES = 0.01
_CHINESE = ("gb18030", "big5hkscs")
# The commonest characters of simplified and traditional text and its punctuation: about a third of any page.
_COMMON = (
    "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发"
    "這來國個說們為時對後麼沒還發會學過從現實體與當開關點無長電業東車經頭動樣問間題機應圖書見兩話讓給著覺氣爾員場門聞將網頁訊，。、：；「」《》"
)

_IS_COMMON = np.zeros(2**16, bool)
_IS_COMMON[[ord(c) for c in _COMMON]] = True


def decode(data: bytes, http_charset: str | None = None) -> tuple[str, str]:
    """The text of ``data`` and the name of the codec it was read with; bytes that do not fit become U+FFFD."""
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, "replace"), codec
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    labels = [c for c in map(codec_of, (http_charset, *_declared(data))) if c]
    texts = {codec: data.decode(codec, "replace") for codec in dict.fromkeys([*labels, *_CHINESE, "utf-8"])}
    beyond = len(data.translate(None, _ASCII))
    losses = {codec: text.count("\ufffd") / beyond for codec, text in texts.items()}
    common = {codec: _commonness(text) for codec, text in texts.items()}
    fitting = [codec for codec in texts if losses[codec] <= _LOSSES]
    best = max((common[codec] for codec in fitting if codec in _CHINESE), default=0.0)
    for codec in labels:
        if codec in fitting and (codec not in _CHINESE or common[codec] * 2 >= best):
            return texts[codec], codec
    pool = fitting or list(texts)
    chosen = max(pool, key=lambda codec: (common[codec] if fitting else -losses[codec], -list(texts).index(codec)))
    return texts[chosen], chosen


def codec_of(label: str | None) -> str | None:
    """Python's codec for a label as found on the web; None where it says nothing or is unknown.

    >>> codec_of("GB2312"), codec_of("iso-8859-1")
    ('gb18030', None)
    """
    name = (label or "").strip().strip("\"'").lower()
    if not name or name in _EMPTY_LABELS:
        return None
    if name.startswith(("utf-16", "utf16", "ucs-2")):
        return "utf-8"  # a label that was itself read as ASCII cannot mean UTF-16
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return info.name if info._is_text_encoding else None


def _declared(data: bytes) -> list[str]:
    head = data[:_META_WITHIN]
    found = [*_XML.findall(head)[:1], *_META.findall(head)[:1]]
    return [label.decode("ascii") for label in found]


def _commonness(text: str) -> float:
    """Share of the commonest Chinese characters among the characters beyond ASCII, over the first 20,000."""
    codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)
    beyond = codes[codes > 127][:20000]
    return float(_IS_COMMON[beyond].mean()) if len(beyond) else 0.0
