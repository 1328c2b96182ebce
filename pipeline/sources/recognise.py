"""What a file is, by its content; its name decides only between kinds that look alike."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import NamedTuple

from . import where
from .charset import decode
from .http_body import looks_like_html
from .lines import UNPACKING, compression, decompressed
from .tablecols import Columns, choose, guess

HEAD = 256 * 2**10
IMAGE_SUFFIXES = frozenset(
    [
        *("jpg", "jpeg", "jpe", "jfif", "pjpeg", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff", "avif"),
        *("heic", "heif", "jp2", "j2k", "jpx", "jxl", "ico", "psd", "mpo", "pcx", "ppm", "pgm", "pbm", "pnm", "tga"),
        "svg",
    ]
)
SIDECAR_SUFFIXES = ("txt", "caption", "json")
_PACKED = ("gz", "bz2", "xz", "zst")
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*"
    rb"|\0\0\0.ftyp(?:avif|avis|heic|heix|mif1|msf1)|\0\0\0\x0cjP  |\xff\x0a|\0\0\x01\0[^\0]|8BPS",
    re.S,
)
_LINK = re.compile(r"(?:https?:)?//\S+(?:[ \t]+\S.*)?", re.I)
# Files that tools write beside data and that hold no pairs of their own.
_COMPANION = re.compile(
    r"(?:readme|licen[cs]e|notice|copying|changelog|citation|manifest|dataset_infos?|metadata_schema|_success"
    r"|thumbs\.db|desktop\.ini|index|.*_stats|sample|checksums?|md5sums?|sha256sums?)"
    r"(?:\.(?:md|rst|txt|json|ya?ml|cff))?|.*\.(?:md|rst|ya?ml|idx|tbi|cdx|cdxj|log|lock|css|js|map|woff2?|py|sh)",
    re.I,
)


class Kind(NamedTuple):
    """What a file is: ``word`` is warc, arc, html, jsonl, json, csv, tsv, urls, parquet, tar, image or empty."""

    word: str
    packed: str = ""
    head: bytes = b""


def suffix(name: str) -> str:
    """The last suffix of a file name, in lower case, without its dot.

    >>> suffix("a/b.tar/C.JPG"), suffix("a.b/c")
    ('jpg', '')
    """
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[-1].lower() if "." in base else ""


def is_companion(name: str) -> bool:
    """Whether a file of a folder only accompanies the data (README, manifest, statistics, a page's scripts)."""
    return bool(_COMPANION.fullmatch(name.rsplit("/", 1)[-1]))


def recognise(path: str, name: str) -> Kind:
    """The kind of a file; OSError where it cannot be read."""
    with where.open_binary(path) as handle:
        head = handle.read(HEAD)
        packed = compression(head)
        if packed:
            handle.seek(0)
            stream = decompressed(handle, packed)
            head = b""
            try:
                while len(head) < HEAD and (piece := stream.read1(16384) if hasattr(stream, "read1") else b""):
                    head += piece
            except UNPACKING:
                pass  # what could be read decides; the reader tells where the file breaks
    plain = name.removesuffix("." + suffix(name)) if suffix(name) in _PACKED else name
    return Kind(_word(head, suffix(plain)), packed, head)


def _word(head: bytes, ending: str) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"WARC/") or ending == "warc":
        return "warc"
    if head.startswith(b"filedesc:"):
        return "arc"
    if head[257:262] == b"ustar" or (ending == "tar" and head):
        return "tar"
    if _MAGIC.match(head):
        return "image"
    if looks_like_html(head) and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return "html"
    if ending in ("html", "htm", "shtml", "xhtml", "mht") and b"<" in head:
        return "html"
    return _text_word(head, ending)


def _text_word(head: bytes, ending: str) -> str:
    if b"\0" in head[:4096] and head[:2] not in (b"\xff\xfe", b"\xfe\xff") and ending not in ("jsonl", "csv", "tsv"):
        return ""
    text = head_text(head)[0]
    rows = [r for r in text.splitlines() if r.strip()][:20]
    if not rows:
        return ""
    opening = text.lstrip()[:1]
    if ending in ("jsonl", "ndjson") or (opening == "{" and any(map(_is_object, rows)) and len(rows) > 1):
        return "jsonl"
    if opening == "{":
        return "jsonl" if ending != "json" and _is_object(rows[0]) else ""
    if opening == "[" and re.match(r"\[\s*\{", text.lstrip()):
        return "json"
    if ending in ("csv", "tsv"):
        return ending
    links = [bool(_LINK.fullmatch(r.strip())) for r in rows if not r.startswith("#")]
    if links and sum(links) * 2 > len(links) and links[0]:
        return "tsv" if all(r.count("\t") > 1 for r in rows[:-1] or rows) else "urls"
    return next((w for w, mark in (("tsv", "\t"), ("csv", ",")) if _is_table(rows, mark)), "")


def _is_object(row: str) -> bool:
    try:
        return isinstance(json.loads(row), dict)
    except (ValueError, RecursionError):
        return False


def _is_table(rows: list[str], mark: str) -> bool:
    cells = list(csv.reader(io.StringIO("\n".join(rows)), delimiter=mark))
    return isinstance(choose(cells[0], {}), Columns) or guess(cells[:-1] or cells) is not None


def head_text(head: bytes) -> tuple[str, str]:
    """The whole lines of a file's first bytes as text, and the codec they were read with."""
    cut = head.rfind(b"\n") + 1 if len(head) >= HEAD else len(head)
    return decode(head[:cut] or head)
