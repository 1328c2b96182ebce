"""Images with their captions in files beside them: folders, and the members of a WebDataset sample."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import where
from .charset import decode
from .recognise import SIDECAR_SUFFIXES, suffix
from .rows import MAX_FILE, Pair
from .tablecols import CAPTIONS, PAGES


class Told(NamedTuple):
    """What sidecars say of an image: its captions (or why there are none) and its page."""

    captions: list[str]
    why: str = ""
    page_url: str | None = None


def stem(name: str) -> str:
    """A path without its last suffix.

    >>> stem("a.b/c.jpg")
    'a.b/c'
    """
    return posixpath.splitext(name)[0]


def told(sidecars: Mapping[str, bytes], given: Mapping[str, str]) -> Told:
    """The captions in the bytes of sidecars, by suffix: ``txt`` and ``caption`` hold one text, ``json`` an object.

    A text goes before the object's caption; its page is taken in any case.
    """
    values: dict[str, Any] = {}
    why = "no caption lies beside the image"
    if "json" in sidecars:
        try:
            parsed = json.loads(sidecars["json"])
            values = parsed if isinstance(parsed, dict) else {}
            why = f"its json sidecar has no caption; it holds {', '.join(map(repr, list(values)[:12])) or 'no fields'}"
        except (ValueError, RecursionError) as error:
            why = f"its json sidecar does not parse: {error}"
    page = next((values[k] for k in PAGES if isinstance(values.get(k), str)), None)
    for kind in ("txt", "caption"):
        if kind in sidecars:
            return Told([decode(sidecars[kind])[0].strip()], page_url=page)
    names = [given["caption"]] if given.get("caption") else CAPTIONS
    for name in names:
        value = values.get(name)
        texts = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
        if texts:
            return Told(texts, page_url=page)
    return Told([], why, page)


def image_pairs(root: str, files: Sequence[str], given: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of image files and the sidecars among ``files`` (``NAME.txt`` or ``NAME.jpg.txt``).

    An image of a folder without any sidecar takes its caption from its name where ``given`` says
    ``caption=filename``.
    """
    beside: dict[str, list[str]] = {}
    for file in files:
        if suffix(file) in SIDECAR_SUFFIXES:
            beside.setdefault(stem(file), []).append(file)
    from_name = given.get("caption") == "filename"
    for image in files:
        if suffix(image) in SIDECAR_SUFFIXES:
            continue
        sidecars = {}
        pair = Pair(f"{image}#0#0", caption_origin="filename" if from_name else "sidecar")
        try:
            for file in (*beside.get(stem(image), ()), *beside.get(image, ())):
                sidecars[suffix(file)] = where.read_at_most(where.join(root, file), MAX_FILE) or b""
            data = where.read_at_most(where.join(root, image), MAX_FILE)
        except OSError as error:
            yield pair._replace(reason="unreadable_file", detail=where.explain(error))
            continue
        found = Told([stem(image.rsplit("/", 1)[-1])]) if from_name else told(sidecars, given)
        if data is None:
            pair = pair._replace(reason="file_too_large", detail=f"the image has more than {MAX_FILE} bytes")
        elif not data:
            pair = pair._replace(reason="image_missing", detail="the image file is empty")
        if not found.captions:
            detail = (
                f"{found.why}. Put the caption into {stem(image.rsplit('/', 1)[-1])}.txt, give a table with image and "
                "caption columns, or take it from the file's name with --input caption=filename"
            )
            blank = pair if pair.reason else pair._replace(reason="caption_missing", detail=detail)
            yield blank._replace(image=data, page_url=found.page_url)
        for n, caption in enumerate(found.captions):
            yield pair._replace(origin=f"{image}#0#{n}", caption=caption, image=data, page_url=found.page_url)
