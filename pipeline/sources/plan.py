"""From an input as the user gave it to units: what each file is, and how it is cut."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from ..errors import InputError, UsageError, nearest
from ..units import Unit
from . import where
from .img2dataset import is_table_of
from .recognise import HEAD, IMAGE_SUFFIXES, SIDECAR_SUFFIXES, Kind, is_companion, recognise, suffix
from .rows import Reason
from .sidecars import stem
from .tableplan import plan_table
from .tars import sample_cuts
from .warc import next_record

log = logging.getLogger(__name__)

PAGES_PER_UNIT = 100
IMAGES_PER_UNIT = 1000
WARC_STEP = 256 * 2**20
TAR_STEP = 1024 * 2**20
OPTIONS = ("caption", "image", "url", "page", "base", "images", "kind", "encoding")
T = TypeVar("T")
_HTML_SUFFIXES = frozenset(["html", "htm", "shtml", "xhtml"])
_TABLES = frozenset(["jsonl", "csv", "tsv", "urls", "json", "parquet"])
KINDS = (
    "a WARC or ARC file, an HTML file, an image, a WebDataset tar, jsonl, csv, tsv or parquet with an image and a "
    "caption column, a list of URLs, or a folder of these"
)


@dataclass
class _Sorted:
    """The files of a folder by what they are; ``problems`` are (file, reason, detail).

    ``failures`` are tables beside img2dataset's tars.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    pages: list[str] = field(default_factory=list)
    others: list[tuple[str, Kind]] = field(default_factory=list)
    problems: list[tuple[str, Reason, str]] = field(default_factory=list)
    companions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def plan_input(given_path: str, index: int, given: Mapping[str, str]) -> list[Unit]:
    """The units of an input; ``InputError`` where it cannot be read or holds nothing known."""
    _check_options(given)
    if not given_path.strip():
        raise InputError(f"the input's name is empty; expected {KINDS}")
    root = where.normal(given_path)
    where.check_exists(root)
    try:
        units = _plan_folder(root, index, given) if where.is_folder(root) else _plan_file(root, index, given)
    except OSError as error:
        raise InputError(f"{given_path}: {where.explain(error)}") from error
    if not units:
        raise InputError(f"{given_path}: holds no pairs (no rows, no images); expected {KINDS}")
    return units


def _check_options(given: Mapping[str, str]) -> None:
    for name in given:
        if name not in OPTIONS:
            raise UsageError(f"--input {name}=…: no such option; {nearest(name, OPTIONS)}")


def _plan_file(root: str, index: int, given: Mapping[str, str]) -> list[Unit]:
    name = where.last(root)
    kind = _kind(root, name, given)
    if not kind.head and not kind.packed:
        raise InputError(f"{root}: the file is empty; expected {KINDS}")
    if not kind.word:
        raise InputError(
            f"{root}: cannot tell what this file is (it begins {kind.head[:40]!r}); expected {KINDS}. If it is one of "
            "these, say so with --input kind=jsonl (csv, tsv, urls, html, warc, arc, tar, parquet)"
        )
    if kind.word == "html":
        return [_unit("html", root, index, ("",), given, ("base",))]
    if kind.word == "image":
        folder = where.folder(root)
        beside = [f for f in where.listing(folder) if "/" not in f and _is_sidecar_of(f, name)]
        return [_unit("images", folder, index, (name, *beside), given, ("caption",))]
    found = _plan_other(root, "", kind, index, given)
    if isinstance(found, str):
        raise InputError(f"{root}: {found}")
    table = f"{stem(name)}.parquet"
    if kind.word == "tar" and is_table_of(where.join(where.folder(root), table)):
        return [*found[0], Unit("failures", where.folder(root), (table,), index=index)]
    return found[0]


def _plan_folder(root: str, index: int, given: Mapping[str, str]) -> list[Unit]:
    files = where.listing(root)
    if not files:
        raise InputError(f"{root}: the folder holds no files; expected {KINDS}")
    held = _sort(root, files, given)
    units: list[Unit] = []
    local_tables = False
    for file, kind in held.others:
        found = _plan_other(root, file, kind, index, given)
        if isinstance(found, str):
            held.problems.append((file, "unsupported_file", found))
        else:
            units += found[0]
            local_tables = local_tables or found[1]
    for some in _chunks(held.pages, PAGES_PER_UNIT):
        units.append(_unit("html", root, index, tuple(some), given, ("base",)))
    # Images without a caption of their own belong to the pages or tables that name them.
    owned = bool(held.pages) or local_tables
    images = [i for i in sorted(held.images) if held.images[i] or not owned]
    if len(images) < len(held.images):
        log.info(
            "%s: %d images without a sidecar are taken as those of its pages and tables",
            root,
            len(held.images) - len(images),
        )
    for some in _chunks(images, IMAGES_PER_UNIT):
        names = tuple(dict.fromkeys(n for i in some for n in (i, *held.images[i])))
        units.append(_unit("images", root, index, names, given, ("caption",)))
    units += [Unit("failures", root, (file,), index=index) for file in held.failures]
    if held.companions:
        log.info("%s: %d files only accompany the data (%s, …)", root, len(held.companions), held.companions[0])
    if not units:
        raise InputError(
            f"{root}: none of its {len(files)} files is of a known kind (the first is {files[0]!r}); expected {KINDS}"
        )
    for problems in _chunks(sorted(held.problems), IMAGES_PER_UNIT):
        options = (("problems", json.dumps(problems)),)
        units.append(Unit("problems", root, (), options=options, index=index))
    return units


def _sort(root: str, files: Sequence[str], given: Mapping[str, str]) -> _Sorted:
    held = _Sorted()
    there = frozenset(files)
    images = [f for f in files if suffix(f) in IMAGE_SUFFIXES]
    by_stem: dict[str, list[str]] = {}
    for image in images:
        held.images[image] = []
        by_stem.setdefault(stem(image), []).append(image)
    for file in files:
        if file in held.images:
            continue
        ending = suffix(file)
        of = [*by_stem.get(stem(file), ()), *([stem(file)] if stem(file) in held.images else [])]
        if ending in SIDECAR_SUFFIXES and of:
            for image in of:
                held.images[image].append(file)
        elif ending in _HTML_SUFFIXES and not given.get("kind"):
            held.pages.append(file)
        elif _describes_tar(file, there) and ending == "parquet" and is_table_of(where.join(root, file)):
            held.failures.append(file)
        elif is_companion(file) or _describes_tar(file, there):
            held.companions.append(file)
        else:
            _sort_by_content(root, file, held, given)
    return held


def _sort_by_content(root: str, file: str, held: _Sorted, given: Mapping[str, str]) -> None:
    try:
        kind = _kind(where.join(root, file), file, given)
    except OSError as error:
        held.problems.append((file, "file_unreadable", where.explain(error)))
        return
    if kind.word == "html":
        held.pages.append(file)
    elif kind.word == "image":
        held.images[file] = []
    elif kind.word:
        held.others.append((file, kind))
    else:
        what = "it is empty" if not kind.head else f"it begins {kind.head[:24]!r}"
        held.problems.append((file, "unsupported_file", f"{what}; expected {KINDS}"))


def _kind(path: str, name: str, given: Mapping[str, str]) -> Kind:
    kind = recognise(path, name)
    return kind._replace(word=given["kind"]) if given.get("kind") else kind


def _describes_tar(file: str, there: frozenset[str]) -> bool:
    """img2dataset writes 00000.parquet and 00000_stats.json beside 00000.tar."""
    return suffix(file) in ("parquet", "json", "idx") and f"{stem(file)}.tar" in there


def _is_sidecar_of(file: str, image: str) -> bool:
    return suffix(file) in SIDECAR_SUFFIXES and stem(file) in (image, stem(image))


def _plan_other(
    root: str, file: str, kind: Kind, index: int, given: Mapping[str, str]
) -> tuple[list[Unit], bool] | str:
    """Units of an archive or a table, and whether it is a table of local image files; or why it is none."""
    path = where.join(root, file)
    packed = {"packed": kind.packed} if kind.packed else {}
    if kind.word in ("warc", "arc"):
        cuts = _warc_cuts(path, kind) if kind.word == "warc" else []
        return _ranges(kind.word, root, file, cuts, index, {}), False
    if kind.word == "tar":
        cuts = _tar_cuts(path, kind)
        keep = {"caption": given["caption"]} if given.get("caption") else {}
        return _ranges("tar", root, file, cuts, index, packed | keep), False
    if kind.word not in _TABLES:
        return f"{kind.word!r} is no kind of input; expected {KINDS}"
    found = plan_table(path, kind, given)
    if isinstance(found, str):
        return found
    reader = kind.word if kind.word in ("json", "parquet") else "lines"
    units = []
    for start, end, line in found.ranges:
        options = found.options | ({"line": str(line)} if reader == "lines" else {})
        units.append(Unit(reader, root, (file,), start, end, tuple(sorted(options.items())), index))
    return units, found.paths


def _ranges(reader: str, root: str, file: str, cuts: list[int], index: int, options: dict[str, str]) -> list[Unit]:
    edges = [0, *cuts, -1]
    held = tuple(sorted(options.items()))
    return [Unit(reader, root, (file,), a, b, held, index) for a, b in pairwise(edges)]


def _warc_cuts(path: str, kind: Kind) -> list[int]:
    """Where a WARC of more than 256 MiB is cut: only plain ones and such as are compressed per record."""
    size = where.size(path)
    if size <= WARC_STEP or kind.packed not in ("", "gzip"):
        return []
    with where.open_binary(path) as handle:
        if next_record(handle, 1, HEAD * 256) is None:
            return []
    return list(range(WARC_STEP, size, WARC_STEP))


def _tar_cuts(path: str, kind: Kind) -> list[int]:
    """Where a local, uncompressed tar of more than 1 GiB is cut: elsewhere walking its headers is dear."""
    if kind.packed or where.is_remote(path) or where.size(path) <= TAR_STEP:
        return []
    with where.open_binary(path) as handle:
        return sample_cuts(handle, TAR_STEP)


def _unit(
    reader: str, root: str, index: int, files: tuple[str, ...], given: Mapping[str, str], kept: tuple[str, ...]
) -> Unit:
    options = tuple(sorted((k, given[k]) for k in kept if given.get(k)))
    return Unit(reader, root, files, options=options, index=index)


def _chunks(items: Sequence[T], n: int) -> Iterator[list[T]]:
    for i in range(0, len(items), n):
        yield list(items[i : i + n])
