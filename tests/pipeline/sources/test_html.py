from __future__ import annotations

import pytest

from tuwen.pipeline.sources.html import Found, candidates, extract

PAGE = "https://news.example.cn/2024/1.html"


def pairs(body: str, page: str | None = PAGE) -> list[Found]:
    return extract(f"<html><body>{body}</body></html>".encode(), page).pairs


def one(body: str, page: str | None = PAGE) -> Found:
    (found,) = pairs(body, page)
    return found


def captions(body: str) -> list[tuple[str, str]]:
    return [(f.caption_origin, f.caption) for f in pairs(body)]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("<img src=a.jpg alt=红色的车>", "a.jpg"),
        ("<img src=loading.gif data-original=a.jpg alt=红色的车>", "a.jpg"),
        ("<img src=low.jpg data-src=a.jpg alt=红色的车>", "a.jpg"),
        ("<img data-lazy-src=/2024/a.jpg alt=红色的车>", "a.jpg"),
        ("<img src='data:image/gif;base64,R0' data-actualsrc='//news.example.cn/2024/a.jpg' alt=红色的车>", "a.jpg"),
        ("<img src=static/image/common/none.gif zoomfile=a.jpg file=b.jpg alt=红色的车>", "a.jpg"),
        ("<img src=/img/blank.gif file=a.jpg alt=红色的车>", "a.jpg"),
        ("<img src=a.jpg data-url=/article/9.html alt=红色的车>", "a.jpg"),
        ("<img src=a.jpg data-src='' data-original='{{url}}' alt=红色的车>", "a.jpg"),
        ("<img src=s.jpg srcset='s.jpg 320w, a.jpg 1024w, m.jpg 640w' alt=红色的车>", "a.jpg"),
        ("<img src=s.jpg srcset='s.jpg, a.jpg 2x' alt=红色的车>", "a.jpg"),
        ("<img src=a.jpg srcset='b.jpg 1x' alt=红色的车>", "a.jpg"),
        ("<img data-srcset='s.jpg 1x,a.jpg 3x' alt=红色的车>", "a.jpg"),
        ("<picture><source srcset=b.webp type=image/webp><img src=a.jpg alt=红色的车></picture>", "a.jpg"),
        ("<picture><source srcset='a.jpg 900w'><source srcset='b.jpg 300w'><img alt=红色的车></picture>", "a.jpg"),
        ("<picture><source srcset=a.jpg><img alt=红色的车></picture>", "a.jpg"),
        ("<amp-img src=a.jpg alt=红色的车></amp-img>", "a.jpg"),
    ],
)
def test_the_image_is_where_the_page_keeps_it(image: str, name: str) -> None:
    assert one(image).url == f"https://news.example.cn/2024/{name}"


def test_commas_in_srcset_urls() -> None:
    assert candidates("https://c.example/w_1,h_2/a.jpg 1x, https://c.example/w_2,h_4/a.jpg 2x") == [
        ("https://c.example/w_1,h_2/a.jpg", 1.0, "x"),
        ("https://c.example/w_2,h_4/a.jpg", 2.0, "x"),
    ]
    assert candidates("a.jpg") == [("a.jpg", 1.0, "x")]
    assert candidates("") == []


@pytest.mark.parametrize(
    ("body", "origin"),
    [
        ("<figure><img src=a.jpg><figcaption> 红色的车\n停在路边 </figcaption></figure>", "figcaption"),
        ("<figure><div><a><img src=a.jpg></a></div><figcaption>红色的车 停在路边</figcaption></figure>", "figcaption"),
        ("<img src=a.jpg alt=' 红色的车 停在路边 '>", "alt"),
        ("<img src=a.jpg title='红色的车 停在路边'>", "title"),
        ("<div class=pgc-img><img src=a.jpg><p class=pgc-img-caption>红色的车 停在路边</p></div>", "nearby"),
        ("<p align=center><img src=a.jpg></p>\n<p class=pictext>红色的车 停在路边</p>", "nearby"),
        ("<div><a href=b.html><img src=a.jpg></a><br><span class='pic-desc'>红色的车 停在路边</span></div>", "nearby"),
        ("<div class=wp-caption><p class=wp-caption-text>红色的车 停在路边</p><img src=a.jpg></div>", "nearby"),
        ("<div><img src=a.jpg><div id=tuzhu>红色的车 停在路边</div></div>", "nearby"),
        ("<p style='text-align: center'><img src=a.jpg><br>红色的车 停在路边</p>", "nearby"),
        ("<center><img src=a.jpg><font>红色的车 停在路边</font></center>", "nearby"),
    ],
)
def test_where_a_caption_stands(body: str, origin: str) -> None:
    assert captions(body) == [(origin, "红色的车 停在路边")]


@pytest.mark.parametrize(
    "text", ["图注：红色的车", "▲红色的车", "（图片说明：红色的车）", "图为红色的车", "上图为红色的车"]
)
def test_words_that_open_a_caption(text: str) -> None:
    assert captions(f"<p><img src=a.jpg></p><p>{text}</p>") == [("nearby", text)]
    assert captions(f"<p><img src=a.jpg><br>{text}<br></p>") == [("nearby", text)]


@pytest.mark.parametrize(
    "body",
    [
        "<p><img src=a.jpg></p><p>昨天下午记者来到现场。</p>",
        "<p><img src=a.jpg></p><p>图书馆里有很多人。</p>",
        "<ul><li><img src=a.jpg></li><li class=pic-desc>另一项</li></ul>",
        "<p align=center><img src=a.jpg><a href=b.html>相关新闻：红色的车</a></p>",
        "<td align=center><img src=a.jpg><p>红色的车</p></td>",
        f"<div><img src=a.jpg><p class=caption>{'很长的正文' * 100}</p></div>",
        "<figure><img src=a.jpg><img src=b.jpg><figcaption>一组图</figcaption></figure>",
    ],
)
def test_other_text_beside_an_image_is_no_caption(body: str) -> None:
    found = extract(body.encode(), PAGE)
    assert found.pairs == []
    assert found.bare == found.images > 0


def test_captions_between_images_go_to_the_image_before() -> None:
    body = "<div><img src=a.jpg><p class=caption>红色的车</p><img src=b.jpg><p class=caption>蓝色的湖</p></div>"
    assert [(f.reference, f.caption) for f in pairs(body)] == [("a.jpg", "红色的车"), ("b.jpg", "蓝色的湖")]


def test_captions_that_say_different_things_make_pairs_each() -> None:
    body = "<figure><img src=a.jpg alt='红色的车' title='老街一角'><figcaption>路边的红色的车</figcaption></figure>"
    assert captions(body) == [("figcaption", "路边的红色的车"), ("title", "老街一角")]
    assert captions("<img src=a.jpg alt='IMG_001.jpg' title='老街一角'>") == [("title", "老街一角")]
    assert captions("<img src=a.jpg alt='IMG_001.jpg' title='图'>") == [("alt", "IMG_001.jpg")]


def test_noscript_twins_count_once() -> None:
    lazy = "<img src=blank.gif data-src=a.jpg alt=红色的车><noscript><img src=a.jpg alt=红色的车></noscript>"
    assert one(lazy).reference == "a.jpg"
    assert one("<noscript><img src=a.jpg alt=红色的车></noscript>").reference == "a.jpg"


def test_base_and_own_url() -> None:
    link = '<link rel="canonical" href="https://own.example.cn/d/2.html">'
    assert one(f"{link}<img src=a.jpg alt=红色的车>", None).url == "https://own.example.cn/d/a.jpg"
    graph = '<meta property="og:url" content="https://own.example.cn/d/2.html">'
    assert one(f"{graph}<img src=a.jpg alt=红色的车>", None).url == "https://own.example.cn/d/a.jpg"
    base = "<base href='//cdn.example.cn/x/'>"
    found = one(f"{base}<img src=a.jpg alt=红色的车>")
    assert (found.url, found.local) == ("https://cdn.example.cn/x/a.jpg", False)
    assert one("<base href='../y/'><img src=a.jpg alt=红色的车>").url == "https://news.example.cn/y/a.jpg"
    found = one("<img src=a.jpg alt=红色的车>", None)
    assert (found.url, found.reason, found.local) == (None, "relative_url", True)


def test_images_that_cannot_be_fetched_are_rows_with_a_reason() -> None:
    body = "<img src='data:image/gif;base64,R0' alt=红色的车><img alt=蓝色的湖><img src=javascript:; alt=白色的猫>"
    assert [f.reason for f in pairs(body)] == ["data_url", "bad_url", "bad_url"]


def test_entities_nuls_and_damage() -> None:
    assert one("<img src=a.jpg?x=1&amp;y=2 alt='A&amp;B &#x7ea2;'>").caption == "A&B 红"
    assert one("<img src=a.jpg alt='红\0车'>").caption == "红\ufffd车"
    assert pairs("<img src=a.jpg alt='没有结束") == []
    extract(b"\xff\xfe<\0i\0m\0g\0", None)
    assert len(pairs("<div>" * 5000 + "<img src=a.jpg alt=红色的车>")) == 1
