"""Column names that tables use for captions and images, most telling first."""

from __future__ import annotations

from collections.abc import Iterable

CAPTION_COLUMNS = (
    *("caption", "captions", "text", "zh", "caption_zh", "zh_caption", "chinese_caption", "alt", "alt_text", "title"),
    *("description", "desc", "sentence", "top_caption", "hit_description", "标题", "描述", "文本", "说明"),
)
URL_COLUMNS = ("url", "image_url", "img_url", "imageurl", "picurl", "pic_url", "image_link", "src", "link")
PATH_COLUMNS = (
    "path",
    "image_path",
    "img_path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "image",
    "img",
    "image_file",
)
BYTES_COLUMNS = ("jpg", "image", "image_bytes", "img", "bytes", "png")
PAGE_COLUMNS = ("page_url", "page", "referer", "referrer", "source_url")


def pick(present: Iterable[str], known: Iterable[str]) -> str | None:
    """The first known name that is present, whatever its case."""
    folded = {name.strip().casefold(): name for name in present}
    return next((folded[name] for name in known if name in folded), None)
