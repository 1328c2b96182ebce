"""Pairs of WebDataset tars, img2dataset's layout included (``KEY.jpg``, ``KEY.txt``, ``KEY.json``).

Members with the same path up to the first dot of their file name, one after another, are a sample.
Nothing is unpacked to disk; yet a member whose path climbs out, a link or a device makes its sample
a failed row, since no honest writer makes such a tar.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO

from . import where
from .lines import decompressed
from .recognise import IMAGE_SUFFIXES, SIDECAR_SUFFIXES, suffix
from .rows import MAX_FILE, Pair
from .sidecars import told

_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def key_of(name: str) -> tuple[str, str]:
    """Key and extension of a member, cut at the first dot of its file name.

    >>> key_of("a.b/0001.input.jpg")
    ('a.b/0001', 'input.jpg')
    """
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension.lower()


def tar_pairs(root: str, file: str, start: int, end: int, options: Mapping[str, str]) -> Iterator[Pair]:
    """The pairs of the samples that begin in bytes ``start`` to ``end`` (-1: to the end) of a tar."""
    path, name = where.join(root, file), file or where.last(root)
    sample: dict[str, bytes] = {}
    key, bad = "", ""
    last = start
    with where.open_binary(path) as handle:
        try:
            for member, data in _members(handle, start, end, options.get("packed", "")):
                last = member.offset
                found, extension = key_of(member.name)
                if (sample or bad) and found != key:
                    yield from _sample_pairs(sample, bad, f"{name}#{key}", options)
                    sample, bad = {}, ""
                key = found
                bad = bad or _fault(member, data)
                sample[extension] = data or b""
        except _ERRORS as error:
            if sample or bad:
                # The broken member may belong to this sample: what is whole of it is used.
                yield from _sample_pairs(sample, bad, f"{name}#{key}", options)
                sample, bad = {}, ""
            detail = f"cannot be read on after the member at byte {last}: {error}. Fetch the file again if it was cut"
            yield Pair(f"{name}#{last}#broken", reason="broken_archive", detail=detail)
        if sample or bad:
            yield from _sample_pairs(sample, bad, f"{name}#{key}", options)


def sample_cuts(handle: IO[bytes], step: int) -> list[int]:
    """Offsets at which samples begin, about ``step`` bytes apart, by one walk over the headers.

    An empty list where the tar breaks before its end: it is then read as one.
    """
    cuts: list[int] = []
    key, due = "", step
    try:
        with tarfile.open(fileobj=handle, mode="r:") as tar:
            while (member := _next(tar)) is not None:
                found = key_of(member.name)[0]
                if member.offset >= due and found != key:
                    cuts.append(member.offset)
                    due = member.offset + step
                key = found
    except _ERRORS:
        return []
    return cuts


def _members(handle: IO[bytes], start: int, end: int, packed: str) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Members and their bytes; None where a member is no plain file or larger than 64 MiB."""
    handle.seek(start)
    stream = decompressed(handle, packed)
    with tarfile.open(fileobj=stream, mode="r|" if packed else "r:") as tar:
        while (member := _next(tar)) is not None:
            if end >= 0 and member.offset >= end:
                return
            if not member.isdir() and not _passed_over(member.name.rsplit("/", 1)[-1]):
                content = tar.extractfile(member) if member.isreg() and member.size <= MAX_FILE else None
                yield member, content.read() if content is not None else None


def _passed_over(base: str) -> bool:
    """Whether a member is not part of a sample: webdataset's ``__…__`` and hidden files."""
    return base.startswith(("__", ".")) and not base.startswith("..")


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member; tarfile would keep every header it has seen."""
    member = tar.next()
    tar.members = []  # type: ignore[attr-defined]
    return member


def _fault(member: tarfile.TarInfo, data: bytes | None) -> str:
    if member.name.startswith(("/", "\\")) or ".." in member.name.replace("\\", "/").split("/"):
        return f"member {member.name!r} climbs out of the archive"
    if not member.isreg():
        return f"member {member.name!r} is a link or a device, expected a plain file"
    return "" if data is not None else f"member {member.name!r} has {member.size} bytes, at most {MAX_FILE} are read"


def _sample_pairs(sample: Mapping[str, bytes], bad: str, origin: str, options: Mapping[str, str]) -> Iterator[Pair]:
    pair = Pair(f"{origin}#0", caption_origin="sidecar")
    if bad:
        yield pair._replace(reason="bad_member", detail=f"{bad}; the sample is not used")
        return
    images = [data for extension, data in sample.items() if suffix("." + extension) in IMAGE_SUFFIXES]
    sidecars = {e.rsplit(".", 1)[-1]: data for e, data in sample.items() if e.rsplit(".", 1)[-1] in SIDECAR_SUFFIXES}
    found = told(sidecars, options)
    pair = pair._replace(image_url=found.image_url, page_url=found.page_url)
    held = ", ".join(sample)
    if not images and not sidecars:
        detail = f"the sample holds {held}; expected an image and a txt or json"
        yield pair._replace(reason="unsupported_file", detail=detail)
        return
    if not images:
        captions: list[str | None] = [*found.captions] or [None]
        detail = f"the sample holds {held} and no image ({', '.join(sorted(IMAGE_SUFFIXES)[:6])}, …)"
        for n, caption in enumerate(captions):
            yield pair._replace(origin=f"{origin}#{n}", caption=caption, reason="image_missing", detail=detail)
        return
    n = 0
    for data in images:
        if not found.captions:
            detail = f"{found.why}; the sample holds {held}, expected a txt or a json with a caption"
            yield pair._replace(origin=f"{origin}#{n}", image=data, reason=found.reason, detail=detail)
            n += 1
        for caption in found.captions:
            whole = pair._replace(origin=f"{origin}#{n}", caption=caption, image=data or None)
            yield whole if data else whole._replace(reason="image_empty", detail="the image has no bytes")
            n += 1
