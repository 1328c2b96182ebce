from __future__ import annotations

import pytest

from tuwen.pipeline.sources.charset import codec_of, decode

SIMPLIFIED = "红色的汽车停在路边，旁边是一棵大树。这是一个晴朗的日子，我们在公园里看到了很多人。"
TRADITIONAL = "紅色的汽車停在路邊，旁邊是一棵大樹。這是一個晴朗的日子，我們在公園裡看到了很多人。"


def page(text: str, meta: str = "") -> str:
    declared = f'<meta http-equiv="Content-Type" content="text/html; charset={meta}">' if meta else ""
    return f"<html><head>{declared}</head><body>{text}</body></html>"


@pytest.mark.parametrize(
    ("text", "written", "meta", "header", "read"),
    [
        (SIMPLIFIED, "utf-8", "utf-8", None, "utf-8"),
        (SIMPLIFIED, "utf-8", "", None, "utf-8"),
        (SIMPLIFIED, "utf-8", "gb2312", "gbk", "utf-8"),
        (SIMPLIFIED, "gb18030", "gb2312", None, "gb18030"),
        (SIMPLIFIED, "gb18030", "", "GBK", "gb18030"),
        (SIMPLIFIED, "gb18030", "", None, "gb18030"),
        (SIMPLIFIED, "gb18030", "utf-8", "utf-8", "gb18030"),
        (SIMPLIFIED, "gb18030", "gb2312", "iso-8859-1", "gb18030"),
        (SIMPLIFIED, "gb18030", "big5", None, "gb18030"),
        (TRADITIONAL, "big5hkscs", "big5", None, "big5hkscs"),
        (TRADITIONAL, "big5hkscs", "", "Big5-HKSCS", "big5hkscs"),
        (TRADITIONAL, "big5hkscs", "", None, "big5hkscs"),
        (TRADITIONAL, "big5hkscs", "utf-8", "gb2312", "big5hkscs"),
        ("日本語のページです。画像があります。", "cp932", "Shift_JIS", None, "cp932"),
        (SIMPLIFIED, "gb18030", "no-such-set", "hex", "gb18030"),
    ],
)
def test_what_the_bytes_are_goes_before_what_labels_say(
    text: str, written: str, meta: str, header: str | None, read: str
) -> None:
    whole = page(text, meta)
    assert decode(whole.encode(written), header) == (whole, read)


def test_marks_decide() -> None:
    assert decode("\ufeff红".encode(), "gbk") == ("红", "utf-8")
    assert decode("\ufeff红".encode("utf-16-le")) == ("红", "utf-16-le")
    assert decode("\ufeff红".encode("utf-16-be")) == ("红", "utf-16-be")


def test_characters_beyond_gb2312_are_read() -> None:
    rare = "𠮷野家的招牌，镕基，㑇"
    assert decode(page(rare + SIMPLIFIED, "gb2312").encode("gb18030"))[0] == page(rare + SIMPLIFIED, "gb2312")


def test_a_few_broken_bytes_do_not_change_the_reading() -> None:
    data = page(SIMPLIFIED * 20, "utf-8").encode()
    text, codec = decode(data[:300] + b"\xff" + data[300:], None)
    assert codec == "utf-8" and text.count("\ufffd") <= 4 and SIMPLIFIED in text
    data = page(SIMPLIFIED * 20, "gbk").encode("gb18030")
    assert decode(data[:-8] + b"\xff" + data[-8:])[1] == "gb18030"


def test_nothing_and_noise() -> None:
    assert decode(b"") == ("", "utf-8")
    assert decode(b"plain", "gbk")[0] == "plain"
    decode(bytes(range(256)) * 20)  # any bytes give some text


def test_labels() -> None:
    assert [codec_of(c) for c in ("GBK", "'utf8'", "x-gbk", "", None, "latin1", "utf-16", "rot13", "no")] == [
        *("gb18030", "utf-8", "gb18030", None, None, None, "utf-8", None, None)
    ]
