from __future__ import annotations

import pytest

from tuwen.pipeline.sources.urls import is_absolute, resolve

PAGE = "http://news.example.cn/2024/1.html?x=1"


@pytest.mark.parametrize(
    ("reference", "base", "url"),
    [
        ("https://img.example.cn/a.jpg", None, "https://img.example.cn/a.jpg"),
        ("  https://img.example.cn/a\n.jpg ", None, "https://img.example.cn/a.jpg"),
        ("HTTPS://IMG.example.cn/A.jpg#top", None, "https://img.example.cn/A.jpg"),
        ("https://img.example.cn/红色 的.jpg", None, "https://img.example.cn/%E7%BA%A2%E8%89%B2%20%E7%9A%84.jpg"),
        ("https://img.example.cn/a%20b.jpg?w=1&h=[2]", None, "https://img.example.cn/a%20b.jpg?w=1&h=[2]"),
        ("https://图片.example.cn/a.jpg", None, "https://xn--wcsw84d.example.cn/a.jpg"),
        ("https://img.example.cn", None, "https://img.example.cn/"),
        ("http://img.example.cn:8080/a.jpg", None, "http://img.example.cn:8080/a.jpg"),
        ("http://[2001:db8::1]/a.jpg", None, "http://[2001:db8::1]/a.jpg"),
        ("//img.example.cn/a.jpg", None, "https://img.example.cn/a.jpg"),
        ("//img.example.cn/a.jpg", PAGE, "http://img.example.cn/a.jpg"),
        ("a.jpg", PAGE, "http://news.example.cn/2024/a.jpg"),
        ("/a.jpg", PAGE, "http://news.example.cn/a.jpg"),
        ("../../../a.jpg", PAGE, "http://news.example.cn/a.jpg"),
        ("?id=3", PAGE, "http://news.example.cn/2024/1.html?id=3"),
        ("img\\a.jpg", PAGE, "http://news.example.cn/2024/img/a.jpg"),
    ],
)
def test_references_become_absolute(reference: str, base: str | None, url: str) -> None:
    assert resolve(reference, base).url == url
    assert resolve(url).url == url  # what is absolute stays as it is


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("", "bad_url"),
        ("http://", "bad_url"),
        ("http:///a.jpg", "bad_url"),
        ("https://./a.jpg", "bad_url"),
        ("http://:80/a.jpg", "bad_url"),
        ("http://a b/c.jpg", "bad_url"),
        ("http://example.cn:99999/a.jpg", "bad_url"),
        ("http://[::1/a.jpg", "bad_url"),
        ("http://" + "图" * 80 + "/a.jpg", "bad_url"),
        ("javascript:void(0)", "bad_url"),
        ("about:blank", "bad_url"),
        ("blob:https://example.cn/1", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("data:image/gif;base64,R0lGOD", "data_url"),
        ("DATA:image/gif,x", "data_url"),
        ("a.jpg", "relative_url"),
        ("/a.jpg", "relative_url"),
    ],
)
def test_what_cannot_be_fetched_says_why(reference: str, reason: str) -> None:
    found = resolve(reference)
    assert (found.url, found.reason) == (None, reason)
    assert found.detail


def test_absolute_or_not() -> None:
    assert all(map(is_absolute, ("http://a/", "//a/", "data:x", "\\\\a\\b")))
    assert not any(map(is_absolute, ("a.jpg", "/a.jpg", "../a", "?a", "a/b:c")))
