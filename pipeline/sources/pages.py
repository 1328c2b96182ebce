"""HTML files on disk. An image that the page names by a relative path is read from beside the page."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote, urljoin

from .. import files
from ..units import Unit
from .images import MAX_IMAGE, read_image
from .rows import Pair, failure
from .warc import MAX_PAGE, page_pairs


def read(unit: Unit) -> Iterator[Pair]:
    """The pairs of the unit's pages. The option ``base`` says at which address the folder stood."""
    base = dict(unit.options).get("base")
    for name in unit.files:
        shown = name or unit.root.rstrip("/").rsplit("/", 1)[-1]
        path = files.join(unit.root, name) if name else unit.root
        try:
            with files.open_read(path) as handle:
                body = handle.read(MAX_PAGE)
        except OSError as error:
            yield failure(f"{shown}#0#0", "file_unreadable", f"{type(error).__name__}: {error}")
            continue
        url = urljoin(base, shown) if base else None
        for pair in page_pairs(body, f"{shown}#0", url):
            yield _beside(pair, path) if pair.failure == "relative_url" else pair


def _beside(pair: Pair, page: str) -> Pair:
    """The pair with the bytes of the file beside the page, where there is one."""
    name = posixpath.normpath(unquote((pair.image_url or "").split("?")[0].split("#")[0]))
    if not name or name.startswith(("/", "..")):
        return pair
    image, reason, detail = read_image(files.join(page.rsplit("/", 1)[0], name), MAX_IMAGE)
    if reason == "image_missing":
        return pair
    return pair._replace(image=image, image_url=None, failure=reason, detail=detail)
