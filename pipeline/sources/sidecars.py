"""Images with their captions in files beside them: folders, and the members of a WebDataset sample."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import where
from .charset import decode
from .recognise import SIDECAR_SUFFIXES, suffix
from .rows import MAX_FILE, Pair, Reason
from .tablecols import CAPTIONS, IMAGES, PAGES
from .urls import resolve

FILENAME = "filename"


class Told(NamedTuple):
    """What sidecars say of an image: its captions (or the reason why there are none), its URL and its page."""

    captions: list[str]
    reason: Reason = "caption_missing"
    why: str = ""
    image_url: str | None = None
    page_url: str | None = None


def stem(name: str) -> str:
    """A path without its last suffix.

    >>> stem("a.b/c.jpg")
    'a.b/c'
    """
    return posixpath.splitext(name)[0]


def from_name(name: str) -> str:
    """The caption that a file name makes: without folders and suffix, underscores as spaces.

    >>> from_name("海边/红色_的船.jpg")
    '红色 的船'
    """
    return stem(name.rsplit("/", 1)[-1]).replace("_", " ").strip()


def told(sidecars: Mapping[str, bytes], given: Mapping[str, str], a_line_each: bool = False) -> Told:
    """The captions in the bytes of sidecars, by suffix: ``txt`` and ``caption`` hold text, ``json`` an object.

    A text goes before the object's caption, and is one caption unless there is ``a_line_each``; the
    object's URL and page are taken in any case.
    """
    values: dict[str, Any] = {}
    reason: Reason = "caption_missing"
    why = "no caption lies beside the image"
    if "json" in sidecars:
        try:
            parsed = json.loads(sidecars["json"])
            values = parsed if isinstance(parsed, dict) else {"caption": parsed}
            why = f"its json sidecar has no caption; it holds {', '.join(map(repr, list(values)[:12])) or 'no fields'}"
        except (ValueError, RecursionError) as error:
            reason, why = "bad_sidecar", f"its json sidecar does not parse: {error}"
    page = next((values[k] for k in PAGES if isinstance(values.get(k), str)), None)
    urls = (resolve(values[k]).url for k in IMAGES if isinstance(values.get(k), str))
    url = next((u for u in urls if u), None)
    for kind in ("txt", "caption"):
        if kind in sidecars:
            text = decode(sidecars[kind])[0].strip()
            lines = [t for line in text.splitlines() if (t := line.strip())] if a_line_each else []
            return Told(lines or [text], image_url=url, page_url=page)
    named = given.get("caption", "")
    for name in (named,) if named and named != FILENAME else CAPTIONS:
        value = values.get(name)
        texts = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
        if texts:
            return Told(texts, image_url=url, page_url=page)
    return Told([], reason, why, url, page)


def image_pairs(root: str, files: Sequence[str], given: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of image files and the sidecars among ``files`` (``NAME.txt`` or ``NAME.jpg.txt``).

    Several lines of a text are several captions of the image. Where ``given`` says ``caption=filename`` an
    image without a sidecar takes its caption from its name.
    """
    beside: dict[str, list[str]] = {}
    for file in files:
        if suffix(file) in SIDECAR_SUFFIXES:
            beside.setdefault(stem(file), []).append(file)
    for image in files:
        if suffix(image) in SIDECAR_SUFFIXES:
            continue
        names = list(dict.fromkeys((*beside.get(stem(image), ()), *beside.get(image, ()))))
        pair = Pair(f"{image}#0#0", caption_origin="sidecar")
        try:
            sidecars = {suffix(n): where.read_at_most(where.join(root, n), MAX_FILE) or b"" for n in names}
            data = where.read_at_most(where.join(root, image), MAX_FILE)
        except OSError as error:
            yield pair._replace(reason="file_unreadable", detail=where.explain(error))
            continue
        found = told(sidecars, given, a_line_each=True)
        if not names and given.get("caption") == FILENAME:
            found, pair = Told([from_name(image)]), pair._replace(caption_origin="filename")
        pair = pair._replace(image=data, image_url=found.image_url, page_url=found.page_url)
        if data is None:
            pair = pair._replace(reason="image_too_large", detail=f"the image has more than {MAX_FILE} bytes")
        elif not data:
            pair = pair._replace(reason="image_empty", detail="the image file has no bytes; fetch it again")
        if not found.captions:
            detail = (
                f"{found.why}. Put the caption into {stem(image.rsplit('/', 1)[-1])}.txt, give a table with image and "
                "caption columns, or take it from the file's name with --input caption=filename"
            )
            yield pair if pair.reason else pair._replace(reason=found.reason, detail=detail)
        for n, caption in enumerate(found.captions):
            yield pair._replace(origin=f"{image}#0#{n}", caption=caption)
