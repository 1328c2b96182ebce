"""What an input is, by what it holds rather than by its name, and how it is cut into units."""

from __future__ import annotations

import difflib
import json

from .. import files
from ..errors import InputError
from ..units import Unit
from .images import SIDECARS
from .tars import IMAGE_SUFFIXES
from .warc import SPLIT_BYTES

PAGES_PER_UNIT = 100
IMAGES_PER_UNIT = 1000
LINE_BYTES = 2 * 2**20
"""Bytes of a jsonl or URL list per unit: about 10,000 lines of usual length."""
PARQUET_ROWS = 10000

MAGIC = (
    (b"\xff\xd8\xff", "image"), (b"\x89PNG", "image"), (b"GIF8", "image"), (b"BM", "image"), (b"II*\0", "image"),
    (b"MM\0*", "image"), (b"\0\0\0\x0cjP", "image"), (b"PAR1", "parquet"), (b"WARC/", "warc"), (b"filedesc:", "warc"),
)  # fmt: skip
_BY_NAME = {
    "warc": "warc", "arc": "warc", "html": "html", "htm": "html", "xhtml": "html", "mhtml": "html", "jsonl": "jsonl",
    "ndjson": "jsonl", "csv": "csv", "tsv": "csv", "parquet": "parquet", "tar": "tar",
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
}  # fmt: skip
_IMAGE_LIKE = frozenset((*IMAGE_SUFFIXES, "ico", "icns", "psd", "tga", "pcx", "ppm", "pgm", "pbm", "pnm", "xbm", "xpm",
    "dds", "eps", "j2k", "jpf", "jpx", "jpe", "jfif", "apng", "heif", "hif", "jxl", "svg", "cur", "sgi", "rgb", "ras",
    "im", "msp", "dcx", "fli", "flc", "blp", "bufr", "grib", "hdf", "h5", "mpo", "wmf", "emf", "qoi", "fits", "dib",
    "mpg", "mpeg", "pcd", "pxr", "spider", "wal", "gbr", "iim", "cel", "pfm", "j2c", "jpc", "xv", "ftc", "ftu",
    "bw", "rgba", "iptc", "palm", "pdf"))  # fmt: skip


def open_input(path: str, index: int = 0, options: dict[str, str] | None = None) -> list[Unit]:
    """The units of one input, in a fixed order. ``index`` tells inputs of the same name apart.

    Raises ``InputError`` where nothing is there, the folder is empty, or nothing in it is known.
    """
    path = path.rstrip("/") or path
    fs, inner = files.filesystem(path)
    if not fs.exists(inner):
        raise InputError(_missing(path))
    held = tuple(sorted((options or {}).items())) + ((("input", str(index)),) if index else ())
    if fs.isdir(inner):
        return _folder(path, held)
    size = int(fs.info(inner).get("size") or 0)
    if not size:
        raise InputError(f"{path} is empty (0 bytes); expected a WARC, page, image, table, URL list or tar")
    kind = kind_of(path)
    if kind == "unknown":
        raise InputError(
            f"{path} is none of: WARC or ARC, HTML, image, jsonl, csv, tsv, parquet, URL list, tar. "
            f"It begins with {_head(path)[:16]!r}; is it what you meant?"
        )
    return _file(path, "", kind, size, held)


def kind_of(path: str) -> str:
    """warc, html, jsonl, csv, tsv, parquet, urls, tar, image or unknown."""
    suffix = path.lower().removesuffix(".gz").rpartition(".")[2]
    head = _head(path)
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[8:12] in (b"WEBP", b"avif", b"heic", b"mif1") or head[4:12] == b"ftypavif":
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\x1f\x8b"):
        return {"tar": "tar", "tgz": "tar"}.get(suffix, "warc" if _by_name(suffix) == "warc" else "unknown")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{") and (suffix in ("jsonl", "ndjson") or _first_line_is_json(text)):
        return "jsonl"
    if text[:1] == b"<" and b"<svg" not in text[:300].lower() and b"<?xml" not in text[:5]:
        return "html"
    if _by_name(suffix) != "unknown":
        return _by_name(suffix)
    first = text.split(b"\n")[0].strip()
    if first.startswith((b"http://", b"https://", b"//")) and (len(first.split()) == 1 or b"," not in first):
        return "urls"
    if suffix == "txt" and b"\0" not in head:
        return "urls"
    return "unknown"


def _first_line_is_json(head: bytes) -> bool:
    """Whether the first line is an object of its own (one that is longer than the head is believed)."""
    line, newline, _ = head.partition(b"\n")
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return not newline


def _by_name(suffix: str) -> str:
    return _BY_NAME.get(suffix, "unknown")


def _head(path: str) -> bytes:
    with files.open_read(path) as handle:
        return handle.read(2048)


def _file(root: str, name: str, kind: str, size: int, options: tuple[tuple[str, str], ...]) -> list[Unit]:
    """Units of one file."""
    path = files.join(root, name) if name else root
    if kind == "html":
        return [Unit("pages", root, (name,), options=options)]
    if kind == "image":
        return [Unit("images", root, (name,), options=options)]
    if kind == "tar":
        return [Unit("tars", root, (name,), options=options)]
    if kind == "csv":
        separator = "\t" if _tabs(path) else ","
        return [Unit("csv", root, (name,), options=(*options, ("separator", separator)))]
    if kind == "parquet":
        rows = _parquet_rows(path)
        return [
            Unit("parquet", root, (name,), start, min(start + PARQUET_ROWS, rows), options)
            for start in range(0, rows, PARQUET_ROWS)
        ]
    step = SPLIT_BYTES if kind == "warc" else LINE_BYTES
    reader = {"warc": "warc", "jsonl": "jsonl", "urls": "urls"}[kind]
    if size <= step or (kind != "warc" and path.endswith(".gz")):
        return [Unit(reader, root, (name,), options=options)]
    return [
        Unit(reader, root, (name,), start, start + step if start + step < size else -1, options)
        for start in range(0, size, step)
    ]


def _folder(root: str, options: tuple[tuple[str, str], ...]) -> list[Unit]:
    """Units of a folder: pages and images in groups, every other file by its own kind."""
    fs, inner = files.filesystem(root)
    found = fs.find(inner, detail=True)
    start = len(inner.rstrip("/")) + 1
    names = {str(p)[start:]: int(info.get("size") or 0) for p, info in sorted(found.items())}
    names = {n: size for n, size in names.items() if not any(part.startswith(".") for part in n.split("/"))}
    if not names:
        raise InputError(f"{root} is an empty folder; expected pages, images with sidecars, WARCs, tables or tars")
    groups: dict[str, list[str]] = {"html": [], "image": []}
    units: list[Unit] = []
    others: list[str] = []
    for name, size in names.items():
        kind = _kind_in_folder(root, name, names, size)
        if kind in groups:
            groups[kind].append(name)
        elif kind == "other":
            others.append(name)
        elif kind != "beside":
            units += _file(root, name, kind, size, options)
    if not units and not any(groups.values()):
        raise InputError(
            f"nothing in {root} was recognised ({len(others)} files, first {', '.join(others[:3])}); expected WARC, "
            "HTML, images, jsonl, csv, tsv, parquet, URL lists or tars"
        )
    # In a folder of images a file of unknown kind is an image that cannot be read, and must be counted.
    if groups["image"] and not groups["html"] and not units:
        groups["image"] = sorted([*groups["image"], *others])
    for kind, reader, step in (("html", "pages", PAGES_PER_UNIT), ("image", "images", IMAGES_PER_UNIT)):
        chosen = groups[kind]
        units += [Unit(reader, root, tuple(chosen[i : i + step]), options=options) for i in range(0, len(chosen), step)]
    return units


def _kind_in_folder(root: str, name: str, names: dict[str, int], size: int) -> str:
    stem, _, suffix = name.rpartition(".")
    suffix = suffix.lower()
    if f".{suffix}" in SIDECARS and any(
        f"{stem}.{s}" in names for s in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
    ):
        return "beside"
    if suffix in _IMAGE_LIKE:
        return "image"
    if suffix == "json" or name.rsplit("/", 1)[-1].lower() in ("readme.md", "license", "index.json"):
        return "beside"
    if suffix in ("css", "js", "md", "yaml", "yml", "py", "log", "sha256", "md5"):
        return "beside"
    if not size:
        return "other"
    kind = kind_of(files.join(root, name))
    return "other" if kind == "unknown" or (kind == "urls" and suffix != "txt") else kind


def _missing(path: str) -> str:
    parent, _, name = path.rpartition("/")
    beside = files.names(parent or ".") if "://" not in path or parent else []
    close = difflib.get_close_matches(name, beside, n=1)
    hint = f" Did you mean {files.join(parent, close[0]) if parent else close[0]!r}?" if close else ""
    return f"no file or folder at {path!r}.{hint}"


def _tabs(path: str) -> bool:
    first = _head(path).split(b"\n")[0]
    return first.count(b"\t") > 0 and (path.lower().endswith(".tsv") or first.count(b"\t") >= first.count(b","))


def _parquet_rows(path: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_read(path) as handle:
        try:
            return int(pq.ParquetFile(handle).metadata.num_rows)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path} begins like parquet but cannot be read: {error}") from None
