"""Which character set a page is in: byte order mark, then header, then <meta>, then the bytes themselves.

A declared set that does not fit the bytes is passed over. gb2312 and gbk are read as gb18030, which
contains both, as the WHATWG Encoding Standard asks; big5 is read with the Hong Kong extensions.
"""

from __future__ import annotations

import codecs
import re

_META = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "hz": "hz", "big5": "big5hkscs", "iso8859-1": "cp1252"}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_HEAD = 4096
WRONG = 0.002
"""Share of undecodable characters up to which a declared set is believed: pages mix in broken bytes."""


def decode(data: bytes, content_type: str = "") -> tuple[str, str]:
    """The page's text and the character set it was read in; never raises, bad bytes become U+FFFD."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace"), name
    declared = [m.group(1) for m in (_HEADER.search(content_type),) if m]
    found = _META.search(data[:_HEAD])
    if found:
        declared.append(found.group(1).decode("ascii", "replace"))
    names = [n for n in map(_known, declared) if n]
    best: tuple[float, str, str] | None = None
    for name in dict.fromkeys([*names, "utf-8", "gb18030", "big5hkscs"]):
        text = data.decode(name, "replace")
        wrong = text.count("\ufffd") / max(1, len(text))
        # ASCII-only bytes fit everywhere and tell nothing, so a declared set wins there.
        if wrong <= (WRONG if name in names else 0):
            return text, name
        if best is None or wrong < best[0]:
            best = (wrong, text, name)
    assert best is not None
    return best[1], best[2]


def _known(name: str) -> str | None:
    try:
        usual = codecs.lookup(name).name
    except LookupError:
        return None
    return _WIDER.get(usual, usual)
