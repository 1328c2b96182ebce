"""Image-caption pairs from a page.

An image can have several texts that describe it; each *distinct* one makes a pair of its own (a pair
is one image with one caption), in the order figcaption, caption element beside the image, alt,
title. Which of an image's captions stay is a later stage's choice. An image without any text is
not a pair. ``data:`` images (place-holders and icons as a rule) and addresses that cannot be an image
are failed pairs, so that they are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

LAZY = (
    *("data-src", "data-original", "data-lazy-src", "data-actualsrc", "data-echo", "data-url", "data-lazyload"),
    *("data-original-src", "data-lazy", "data-img", "data-image", "data-srcset", "lazy-src", "lazysrc", "original"),
    *("real_src", "_src", "file", "zoomfile", "oldsrc"),
)
"""Attributes in which lazy-loading scripts keep the real address, most usual first."""

_PLACEHOLDER = re.compile(
    r"(?:^data:)|(?:blank|spacer|placeholder|loading|lazy|grey|transparent|1x1)[\w.-]*$", re.IGNORECASE
)
_CAPTION_CLASS = re.compile(
    r"caption|(?:pic|img|image|photo)[-_]?(?:desc|des|info|text|txt|title|note|intro|tip)|tuzhu|tushuo|图注|图说",
    re.IGNORECASE,
)
_PICTURE_CLASS = re.compile(r"cent(?:er|re)|pic|img|image|photo|figure", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_HEADLINE = 160
"""Characters up to which text beside an image is taken for its caption; longer is a paragraph."""


@dataclass(frozen=True)
class Found:
    """A caption found for an image; ``url`` as resolved, or ``failure`` and ``detail`` where that was impossible."""

    url: str
    caption: str
    caption_origin: str
    failure: str | None = None
    detail: str | None = None


def extract(html: str, page_url: str | None = None) -> tuple[list[Found], str | None]:
    """The pairs of a page, in document order, and the page's address (given, or from canonical or og:url)."""
    tree = LexborHTMLParser(html)
    page = page_url or _declared_url(tree)
    base = _base(tree, page)
    found = [f for image in _images(tree) for f in _captions(image, base)]
    return found, page


def resolve(src: str, base: str | None) -> tuple[str, str | None, str | None]:
    """``src`` against ``base``: the absolute address, or what was given with a reason and a detail.

    Without a base, protocol-relative addresses are taken as https, and relative ones are returned as they
    are with the reason ``relative_url``: the caller may know a file of that name.
    """
    src = src.strip()
    if src[:5].lower() == "data:":
        return src[:64], "data_url", "the image stands in the page itself (data: URL); such images are not pairs"
    try:
        if base:
            src = urljoin(base, src)
        elif src.startswith("//"):
            src = "https:" + src
        parts = urlsplit(src)
        host = parts.hostname
    except ValueError as error:
        return src[:500], "bad_url", f"given {src[:200]!r}: {error}"
    if parts.scheme in ("http", "https"):
        if not host:
            return src[:500], "bad_url", f"given {src[:200]!r}: an address needs a host, as in https://host/image.jpg"
        return src, None, None
    if parts.scheme == "":
        return src, "relative_url", f"given {src[:200]!r} in a page of unknown address; say it with --input base=URL"
    return src[:500], "bad_url", f"given {src[:200]!r}: only http and https addresses are fetched"


def _declared_url(tree: LexborHTMLParser) -> str | None:
    for selector, attribute in (('link[rel="canonical"]', "href"), ('meta[property="og:url"]', "content")):
        node = tree.css_first(selector)
        value = (node.attributes.get(attribute) or "").strip() if node else ""
        if value.startswith("//"):
            value = "https:" + value
        if value.startswith(("http://", "https://")):
            return value
    return None


def _base(tree: LexborHTMLParser, page: str | None) -> str | None:
    node = tree.css_first("base[href]")
    href = (node.attributes.get("href") or "").strip() if node else ""
    if href.startswith("//"):
        href = "https:" + href
    joined = urljoin(page, href) if page and href else href or page
    return joined if joined and joined.startswith(("http://", "https://")) else page


def _images(tree: LexborHTMLParser) -> Iterator[LexborNode]:
    """All images of the page; those in <noscript> are twins of lazy ones and count once, by address."""
    yield from tree.css("img")
    for node in tree.css("noscript"):
        inner = node.html or ""
        if "<img" not in inner and "&lt;img" not in inner:
            continue
        if node.css_first("img") is None:
            yield from LexborHTMLParser(node.text()).css("img")


def _captions(image: LexborNode, base: str | None) -> list[Found]:
    texts = [(_clean(text), origin) for text, origin in _texts(image)]
    distinct: dict[str, str] = {}
    for text, origin in texts:
        if text:
            distinct.setdefault(text, origin)
    if not distinct:
        return []
    src = _address(image)
    if not src:
        return [
            Found("", text, origin, "image_missing", "the <img> has no address in src, srcset or a lazy attribute")
            for text, origin in distinct.items()
        ]
    url, reason, detail = resolve(src, base)
    return [Found(url, text, origin, reason, detail) for text, origin in distinct.items()]


def _texts(image: LexborNode) -> Iterator[tuple[str, str]]:
    figure = _ancestor(image, "figure", 4)
    if figure is not None:
        for node in figure.css("figcaption"):
            yield node.text(), "figcaption"
    for text in _nearby(image):
        yield text, "nearby"
    yield image.attributes.get("alt") or "", "alt"
    yield image.attributes.get("title") or "", "title"


def _nearby(image: LexborNode) -> Iterator[str]:
    """The caption element beside an image: by its class, or the only short text of a picture's own block."""
    node: LexborNode | None = image
    for _ in range(3):
        if node is None or node.tag in ("body", "html"):
            return
        for beside in (_sibling(node, forward=True), _sibling(node, forward=False)):
            marked = beside is not None and _CAPTION_CLASS.search(_class(beside))
            if beside is not None and marked and beside.css_first("img") is None:
                yield beside.text()[: _HEADLINE + 1]
                return
        node = node.parent
    block = image.parent
    while block is not None and block.tag in ("a", "span", "picture", "b", "strong", "center"):
        block = block.parent
    if block is None or block.tag not in ("p", "div", "td", "li"):
        return
    pictured = block.attributes.get("align") == "center" or _PICTURE_CLASS.search(_class(block))
    if pictured and len(block.css("img")) == 1 and not block.css_first("p, div, li, table, figcaption"):
        text = _clean(block.text())
        if len(text) <= _HEADLINE:
            yield text


def _class(node: LexborNode) -> str:
    return f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"


def _sibling(node: LexborNode, forward: bool) -> LexborNode | None:
    """The next (or previous) element beside ``node``, over white space only."""
    beside = node.next if forward else node.prev
    while beside is not None and (beside.tag == "br" or ((beside.tag or "") == "-text" and not beside.text().strip())):
        beside = beside.next if forward else beside.prev
    return beside if beside is not None and not (beside.tag or "-").startswith("-") else None


def _ancestor(node: LexborNode, tag: str, levels: int) -> LexborNode | None:
    parent = node.parent
    for _ in range(levels):
        if parent is None or parent.tag == tag:
            return parent
        parent = parent.parent
    return None


def _address(image: LexborNode) -> str:
    """The image's best address: lazy attribute, largest of srcset, <picture>'s source, then src."""
    held = {k: (v or "").strip() for k, v in image.attributes.items()}
    for name in LAZY:
        value = held.get(name, "")
        if value and (name.endswith("srcset") or not value.startswith(("{", "[", "function"))):
            return _largest(value) if name.endswith("srcset") else value
    candidates = [_largest(held["srcset"])] if held.get("srcset") else []
    parent = image.parent
    if parent is not None and parent.tag == "picture":
        candidates += [
            _largest(s.attributes.get("srcset") or s.attributes.get("data-srcset") or "") for s in parent.css("source")
        ]
    src = held.get("src", "")
    real = src if src and not _PLACEHOLDER.search(src.split("?")[0]) else ""
    return next((c for c in candidates if c), real or src)


def _largest(srcset: str) -> str:
    """The candidate with the greatest width or density descriptor (HTML Standard, srcset)."""
    best, size = "", -1.0
    for part in re.split(r",\s+|,(?=https?://|//)", srcset.strip()):
        words = part.split()
        if not words:
            continue
        scale = words[1][:-1] if len(words) > 1 else "1"
        try:
            value = float(scale)
        except ValueError:
            value = 0.0
        if value > size:
            best, size = words[0].rstrip(","), value
    return best


def _clean(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
