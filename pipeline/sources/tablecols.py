"""Which column of a table holds the caption and which the image: by name, by what was given, or by content."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CAPTIONS = (
    *("caption_raw", "caption", "captions", "caption_zh", "zh_caption", "caption_cn", "zh", "chinese", "text_zh"),
    *("text", "texts", "txt", "alt", "alt_text", "image_caption", "sentence", "sentences", "description", "desc"),
    *("title", "label", "标题", "描述", "说明", "文本", "图片描述", "文字"),
)
IMAGES = (
    *("image_url", "img_url", "imgurl", "photo_url", "picture_url", "pic_url", "image_link", "url", "urls", "link"),
    *("image", "images", "img", "image_path", "img_path", "path", "filepath", "file_path", "file_name", "filename"),
    *("file", "image_file", "image_name", "src", "photo", "picture", "图片", "图片链接", "图片地址"),
)
PAGES = ("page_url", "source_url", "page", "referrer", "landing_page_url", "origin_url")
_URL = re.compile(r"https?://\S+", re.I)
_FILE = re.compile(r"\S.*\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|heic)", re.I)


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold a pair; ``page`` may be absent (empty string)."""

    caption: str
    image: str
    page: str = ""


def choose(present: Sequence[str], given: Mapping[str, str]) -> Columns | str:
    """The columns of a table with these names, or a sentence that says what is missing and what to do.

    ``given`` may name them under ``caption``, ``image`` (or ``url``) and ``page``; else the first name
    known (``CAPTIONS``, ``IMAGES``) is taken, whatever its case.
    """
    chosen: dict[str, str] = {}
    wanted = (("caption", ("caption",), CAPTIONS), ("image", ("image", "url"), IMAGES), ("page", ("page",), PAGES))
    for role, keys, known in wanted:
        name = next((given[k] for k in keys if given.get(k)), "")
        if name and name not in present:
            close = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            return f"no column {name!r} for the {role}; the columns are {_list(present)}.{hint}"
        by_name = {p.strip().lower(): p for p in reversed(present)}
        taken = chosen.values()
        found = name or next((by_name[k] for k in known if k in by_name and by_name[k] not in taken), "")
        if not found and role != "page":
            return (
                f"no {role} column; the columns are {_list(present)}. Known names are {', '.join(known[:12])}, …; "
                f"say which one with --input {role}=COLUMN"
            )
        chosen[role] = found
    return Columns(**chosen)


def guess(rows: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """The (caption, image) columns of rows without a header: URLs or image files, and the other text.

    None where no column holds URLs or file names throughout, or no other column is there.
    """
    width = min((len(row) for row in rows), default=0)
    held = {i: [row[i].strip() for row in rows] for i in range(width)}
    image = next((i for i, v in held.items() if all(_URL.fullmatch(x) for x in v)), None)
    if image is None:
        image = next((i for i, v in held.items() if all(_FILE.fullmatch(x) for x in v)), None)
    if image is None or width < 2:
        return None
    rest = [i for i in held if i != image]
    return max(rest, key=lambda i: (_han(held[i]), sum(map(len, held[i])), -i)), image


def _han(values: Sequence[str]) -> int:
    return sum("一" <= c <= "鿿" for v in values for c in v)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20])) or "none"
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
