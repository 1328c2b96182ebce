"""Pairs of a page: which images it shows, from where, and what the page says of them.

**One pair per image**, with the first of these captions that says something:

1. ``figcaption``: the caption of the ``<figure>`` that holds this image and no other;
2. ``alt``;
3. ``nearby``: the caption element beside it (see ``captions.py``);
4. ``title``.

Where an image has several captions that say different things (none contains another), each makes a
pair of its own: a pair is one image with one caption. A caption says something if it has two letters
or more and is no file name; where none does, the first one found still makes a pair, so that the text
rules drop and count it. An image without any caption text is not a pair; it is counted.

The image's URL is the largest candidate of ``srcset`` (its own or of ``<picture>``), else a
lazy-loading attribute, else ``src``. An image in ``<noscript>`` counts unless it stands outside too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from .captions import Caption, captions_of, within
from .charset import decode
from .rows import Reason
from .urls import is_absolute, resolve, tidy

LAZY = (
    *("data-original", "data-src", "data-lazy-src", "data-actualsrc", "data-echo", "data-lazyload", "data-lazy"),
    *(
        "data-original-src",
        "data-lazy-original",
        "data-real-src",
        "data-ks-lazyload",
        "data-croporisrc",
        "data-hi-res-src",
    ),
    *("data-full-src", "data-src-pc", "data-imgsrc", "data-img", "data-image", "zoomfile", "file", "real_src"),
    *("original", "_src", "lazy-src", "lazysrc", "lazyload", "src2", "osrc", "data-url", "data-file"),
)
"""Attributes that hold an image's real URL until a script moves it to ``src``.

Most come from jQuery lazyload and its kin; ``data-actualsrc`` is Zhihu's, ``file`` and ``zoomfile``
Discuz!'s, ``real_src`` Sina blog's, ``data-ks-lazyload`` Taobao's.
"""

_UNSURE = frozenset(["data-url", "file", "data-file", "original", "data-img", "data-image", "lazyload", "data-lazy"])
"""Of these the ones that hold other things too: taken only where ``src`` is a placeholder."""

_SRCSETS = ("srcset", "data-srcset", "data-lazy-srcset", "data-original-set")
_PLACEHOLDER = re.compile(
    r"^(?:data:|about:|javascript:|#|$)"
    r"|(?:^|[/_.-])(?:blank|loading|lazy|lazyload|placeholder|spacer|grey|gray|transparent|pixel|1x1|default_?img)"
    r"(?:[_-]?\w{0,12})?\.(?:gif|png|jpe?g|svg|webp)(?:[?#]|$)",
    re.I,
)
_LIKE_URL = re.compile(r"(?:https?:)?//\S+|\S*\.(?:jpe?g|png|gif|webp|bmp|avif)(?:[?!@#]\S*)?|[./][^\s]*/\S+", re.I)
_CANDIDATE = re.compile(r"\s*,*\s*(\S*[^\s,])(?:\s+(\d+(?:\.\d+)?)([wx])(?:\s+\d+h)?)?\s*(?:,|$)")


class Found(NamedTuple):
    """An image of a page with one caption.

    ``reference`` is the URL as written; ``url`` is absolute, or None with ``reason`` and ``detail``.
    ``local`` says that the reference is relative to the page, so that a saved page may have it beside it.
    """

    reference: str
    url: str | None
    local: bool
    caption: str
    caption_origin: str
    reason: Reason | None
    detail: str | None


@dataclass(frozen=True)
class Page:
    """What a page holds: its own URL (as given, else as it says), images, and images without caption."""

    pairs: list[Found]
    url: str | None
    encoding: str
    images: int
    bare: int


def extract(data: bytes, page_url: str | None = None, charset: str | None = None) -> Page:
    """The pairs of a page from its bytes, its URL and the character set of its HTTP header, if known."""
    text, encoding = decode(data, charset)
    tree = LexborHTMLParser(text.replace("\0", "\ufffd"))
    own = page_url or _own_url(tree)
    base, based = own, False
    if (node := tree.css_first("base[href]")) is not None:
        written = tidy(node.attributes.get("href") or "")
        if (found := resolve(written, own)).url:
            base, based = found.url, is_absolute(written)
    images = tree.css("img, amp-img")
    hidden = {i.mem_id for i in images if within(i, "noscript", 4)} if tree.css_first("noscript img") else set()
    shown = [i for i in images if i.mem_id not in hidden]
    pairs: list[Found] = []
    sources: set[str] = set()
    bare = count = 0
    for image in [*shown, *(i for i in images if i.mem_id in hidden)]:
        reference = source_of(image)
        if image.mem_id in hidden and reference in sources:
            continue
        sources.add(reference)
        count += 1
        captions = captions_of(image)
        bare += not captions
        if captions:
            pairs += _pairs(reference, captions, base, based)
    return Page(pairs, own, encoding, count, bare)


def source_of(image: LexborNode) -> str:
    """The reference of an image as written, tidied; empty where it has none."""
    attributes = image.attributes
    src = tidy(attributes.get("src") or "")
    placeholder = bool(_PLACEHOLDER.search(src))
    if (largest := _largest(image, attributes)) is not None:
        return largest
    for name in LAZY:
        if name in attributes and (placeholder or name not in _UNSURE):
            value = tidy(attributes[name] or "")
            if value and _LIKE_URL.fullmatch(value) and not _PLACEHOLDER.search(value):
                return value
    return src


def candidates(srcset: str) -> list[tuple[str, float, str]]:
    """The (URL, number, unit) of a ``srcset``; a bare URL counts as 1x.

    >>> candidates("a.jpg 320w, b,c.jpg 640w")
    [('a.jpg', 320.0, 'w'), ('b,c.jpg', 640.0, 'w')]
    """
    found = [m.groups() for m in _CANDIDATE.finditer(srcset)]
    return [(url, float(number or 1), unit or "x") for url, number, unit in found]


def _largest(image: LexborNode, attributes: dict[str, str | None]) -> str | None:
    """The largest candidate of the image's srcset or its picture's sources; None where ``src`` is as good.

    Widths go before densities. Without either a ``<source>`` is the same picture in another format, and is
    taken only where the image itself has no URL.
    """
    sets = [attributes[name] for name in _SRCSETS if attributes.get(name)]
    picture = image.parent if image.parent is not None and image.parent.tag == "picture" else None
    if picture is not None:
        for source in picture.css("source"):
            sets += [source.attributes[name] for name in _SRCSETS if source.attributes.get(name)]
    if not sets:
        return None
    every = [c for one in sets for c in candidates(one or "") if not _PLACEHOLDER.search(c[0])]
    if not every:
        return None
    url, number, unit = max(every, key=lambda c: (c[2] == "w", c[1]))
    has_src = not _PLACEHOLDER.search(tidy(attributes.get("src") or ""))
    return None if has_src and unit == "x" and number <= 1 else url


def _own_url(tree: LexborHTMLParser) -> str | None:
    """What a page says its URL is: the canonical link, else og:url."""
    for selector, name in (("link[rel=canonical i]", "href"), ('meta[property="og:url"]', "content")):
        node = tree.css_first(selector)
        if node is not None and (url := resolve(node.attributes.get(name) or "").url):
            return url
    return None


def _pairs(reference: str, captions: list[Caption], base: str | None, based: bool) -> list[Found]:
    url, reason, detail = resolve(reference, base)
    local = bool(reference) and not based and not is_absolute(reference) and not reference.startswith(("/", "\\"))
    return [Found(reference, url, local, c.text, c.origin, reason, detail) for c in captions]
