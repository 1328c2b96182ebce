"""Pairs of pages: HTML files of an input, and the page of an archive's record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urljoin

from . import where
from .html import Found, extract
from .rows import MAX_FILE, Pair


def page_pairs(body: bytes, url: str | None, charset: str | None, origin: str, counts: Counter[str]) -> Iterator[Pair]:
    """The pairs of one page; ``counts`` gains pages, images, and images without any caption text."""
    page = extract(body, url, charset)
    _count(counts, page.images, page.bare)
    for n, found in enumerate(page.pairs):
        yield _pair(found, f"{origin}#{n}", page.url)


def html_pairs(root: str, files: tuple[str, ...], base: str | None, counts: Counter[str]) -> Iterator[Pair]:
    """The pairs of saved pages. An image that lies beside its page is read from there.

    ``base`` is the URL at which ``root`` stood, if that is known.
    """
    for file in files:
        path, name = where.join(root, file), file or where.last(root)
        try:
            data = where.read_at_most(path, MAX_FILE)
        except OSError as error:
            yield Pair(f"{name}#0#0", reason="file_unreadable", detail=where.explain(error))
            continue
        if data is None:
            detail = f"the page has more than {MAX_FILE} bytes"
            yield Pair(f"{name}#0#0", reason="file_too_large", detail=detail)
            continue
        page = extract(data, urljoin(base, name) if base else None)
        _count(counts, page.images, page.bare)
        fence = root if file else where.folder(root)
        for n, found in enumerate(page.pairs):
            yield _local(found, f"{name}#0#{n}", page.url, path, fence)


def _local(found: Found, origin: str, page_url: str | None, path: str, fence: str) -> Pair:
    """The pair with its bytes if its image lies beside the page, within ``fence``; else by its URL."""
    pair = _pair(found, origin, page_url)
    if not found.local:
        return pair
    beside = _beside(path, found.reference, fence)
    if beside is None:
        if found.reason != "relative_url":
            return pair
        detail = f"{found.detail}. Give --input base=URL, or keep the image beside the page ({where.last(path)})"
        return pair._replace(detail=detail)
    try:
        data = where.read_at_most(beside, MAX_FILE)
    except OSError as error:
        return pair._replace(
            image_url=None, reason="file_unreadable", detail=f"{found.reference}: {where.explain(error)}"
        )
    if data is None:
        detail = f"{found.reference} has more than {MAX_FILE} bytes"
        return pair._replace(image_url=None, reason="image_too_large", detail=detail)
    return pair._replace(image_url=None, image=data, reason=None, detail=None)


def _beside(path: str, reference: str, fence: str) -> str | None:
    """The local file that a page's relative reference names; None if there is none within the input."""
    if where.is_remote(path):
        return None
    plain = unquote(reference.split("#")[0].split("?")[0]).replace("\\", "/")
    if not plain or "\0" in plain:
        return None
    target = os.path.normpath(f"{where.folder(path)}/{plain}")
    inside = os.path.realpath(target).startswith(os.path.realpath(fence).rstrip("/") + "/")
    try:
        return target if inside and Path(target).is_file() else None
    except OSError:
        return None


def _pair(found: Found, origin: str, page_url: str | None) -> Pair:
    return Pair(origin, found.caption, found.caption_origin, found.url, None, page_url, found.reason, found.detail)


def _count(counts: Counter[str], images: int, bare: int) -> None:
    counts["pages"] += 1
    counts["images"] += images
    counts["images_without_caption"] += bare
