"""What a page says of an image: figcaption, alt, the caption element beside it, title.

A caption element is recognised conservatively, since text beside an image is mostly something else:
by its class or id as Chinese and international sites name it (``caption``, ``pic-desc``, ``imgText``,
``tuzhu``, ``图注``, …) or by the words such a text opens with (``图注：``, ``图为``, ``▲``). It must be
the next thing after the image, or after a wrapper that holds no other image, and short. Without such
signs the text of a centred block that holds nothing but one image and that text is taken, since that is
how editors of news pages without a caption element set one; text in links is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from selectolax.lexbor import LexborNode

_CLASS = re.compile(
    r"(?:^|[\s_-])(?:"
    r"(?:fig)?caption(?:[_-]?te?xt)?|tu[_-]?zhu|tu[_-]?shuo|图注|图说"
    r"|(?:pic|pics|picture|img|image|photo|figure)[_-]?"
    r"(?:desc|describe|description|text|txt|note|notes|explain|memo|words?|intro|cap|caption|zhu|shuo)"
    r")(?:$|[\s_-])",
    re.I,
)
_OPENING = re.compile(r"\s*[（(【\[]?\s*(?:[▲△↑]|(?:图注|图说|图片说明|图片描述)\s*[：:】\]）)]|[上下左右]?图为\S)")
_FILE_NAME = re.compile(r"(?:https?://\S+|[^\s一-鿿]*\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|avif))", re.I)
_FOLD = re.compile(r"[\W_]+")
_LETTERS = re.compile(r"[^\W\d_]")
_SPACES = re.compile(r"[ \t\n\r\f]+")
_WRAPPERS = frozenset(
    ["a", "span", "p", "div", "center", "strong", "b", "em", "i", "font", "figure", "picture", "noscript", "td", "dt"]
)
_INLINE = frozenset(["a", "span", "strong", "b", "em", "i", "font", "picture"])
_NOT_INLINE = "p, div, li, table, h1, h2, h3, h4, script, style, form, video, input, select, button"
_PASSED_OVER = frozenset(["br", "-comment", "script", "style", "wbr"])
_CENTRED = re.compile(r"text-align\s*:\s*center", re.I)
LONGEST_NEARBY = 300
LONGEST_UNSIGNED = 120
_LEVELS = 4


class Caption(NamedTuple):
    """A caption and where it stood: ``figcaption``, ``alt``, ``nearby`` or ``title``."""

    text: str
    origin: str


def captions_of(image: LexborNode) -> list[Caption]:
    """The captions of an image that say different things, best first; [] where there is no text at all."""
    attributes = image.attributes
    every = (
        Caption(_figcaption(image), "figcaption"),
        Caption(_squeeze(attributes.get("alt") or ""), "alt"),
        Caption(_signed(image) or _centred(image), "nearby"),
        Caption(_squeeze(attributes.get("title") or ""), "title"),
    )
    found = [c for c in every if c.text]
    said: list[str] = []
    telling = []
    for caption in found:
        folded = _FOLD.sub("", caption.text).casefold()
        if says_something(caption.text) and not any(folded in s or s in folded for s in said):
            said.append(folded)
            telling.append(caption)
    return telling or found[:1]


def says_something(text: str) -> bool:
    """Whether a caption has two letters and is neither a file name nor a URL.

    >>> says_something("红色的汽车"), says_something("IMG_001.jpg"), says_something("图")
    (True, False, False)
    """
    return len(_LETTERS.findall(text[:100])) >= 2 and not _FILE_NAME.fullmatch(text.strip())


def within(node: LexborNode, tag: str, levels: int) -> LexborNode | None:
    """The nearest ancestor of that tag, at most ``levels`` up."""
    above = node.parent
    for _ in range(levels):
        if above is None or above.tag == tag:
            return above
        above = above.parent
    return None


def _figcaption(image: LexborNode) -> str:
    figure = within(image, "figure", 6)
    if figure is None or (caption := figure.css_first("figcaption")) is None or not _alone(figure):
        return ""
    return _text(caption)


def _alone(node: LexborNode) -> bool:
    """Whether ``node`` holds one image, copies in noscript apart."""
    images = node.css("img, amp-img")
    return len(images) == 1 or sum(within(i, "noscript", 3) is None for i in images) <= 1


def _signed(image: LexborNode) -> str:
    """The caption element beside an image, known by its class or its first words."""
    node = image
    for _ in range(_LEVELS):
        for sister in _following(node):
            if sister.tag == "-text":
                text = _squeeze(sister.text())
                if text and _OPENING.match(text) and len(text) <= LONGEST_NEARBY:
                    return text
            elif text := _caption_text(sister, by_words=True):
                return text
        parent = node.parent
        if parent is None or parent.tag not in _WRAPPERS or not _alone(parent):
            return ""
        for child in _elements(parent):
            if child.mem_id != node.mem_id and (text := _caption_text(child, by_words=False)):
                return text
        node = parent
    return ""


def _centred(image: LexborNode) -> str:
    """The text of the centred block around an image, if it holds only both."""
    block = image.parent
    while block is not None and block.tag in _INLINE:
        block = block.parent
    if block is None or block.tag not in ("p", "div", "td", "center"):
        return ""
    attributes = block.attributes
    centred = block.tag == "center" or (attributes.get("align") or "").lower() == "center"
    if not centred and not _CENTRED.search(attributes.get("style") or ""):
        return ""
    text = _text(block)
    if not text or len(text) > LONGEST_UNSIGNED or not _alone(block) or any(_text(link) for link in block.css("a")):
        return ""
    return text if all(n.mem_id == block.mem_id for n in block.css(_NOT_INLINE)) else ""


def _following(node: LexborNode) -> Iterator[LexborNode]:
    """The first thing after ``node`` that shows: an element or a text; nothing where it is an image."""
    sister = node.next
    while sister is not None:
        tag = sister.tag or ""
        if tag not in _PASSED_OVER and (tag == "noscript" or _squeeze(sister.text())):
            if tag != "noscript":
                yield sister
                return
        elif tag not in _PASSED_OVER and sister.css_first("img") is not None:
            return
        sister = sister.next


def _elements(parent: LexborNode) -> Iterator[LexborNode]:
    child = parent.child
    while child is not None:
        if not (child.tag or "-").startswith("-"):
            yield child
        child = child.next


def _caption_text(node: LexborNode, by_words: bool) -> str:
    """The text of ``node`` if it is a caption element, else an empty string."""
    attributes = node.attributes
    named = _CLASS.search(f"{attributes.get('class') or ''} {attributes.get('id') or ''}")
    if not named and not by_words:
        return ""
    text = _text(node)
    if not text or len(text) > LONGEST_NEARBY or node.tag in ("script", "style") or node.css_first("img") is not None:
        return ""
    return text if named or _OPENING.match(text) else ""


def _text(node: LexborNode) -> str:
    return _squeeze(node.text(deep=True))


def _squeeze(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
