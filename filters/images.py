"""What all image stages share: load any image, view it at the measuring size, work in threads."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import TypeVar

import polars as pl

from . import isolated, pixels
from .image_header import BadImage, Header
from .pixels import Pixels

VIEW_SHORT, VIEW_LONG = 256, 1024
"""The size at which images are measured: shorter side at most 256 pixels, longer at most 1024."""

MAX_PIXELS = 64_000_000
"""Most pixels that are decoded unless a stage is told otherwise: what a 64-megapixel camera makes."""

T = TypeVar("T")
R = TypeVar("R")


def load(
    data: bytes, short: int, long: int, max_pixels: int = MAX_PIXELS, *, ships: bool = False
) -> tuple[Header, Pixels]:
    """Header and upright pixels (fitting ``short`` and ``long``) of any supported image.

    Pixels that ship are brought to sRGB and averaged with care; measures do not need either.
    Raises BadImage with the reason: ``unsupported``, ``bomb`` or ``corrupt``.
    """
    kind = pixels.kind_of(data)
    if kind in pixels.ISOLATED:
        return isolated.shared().decode(data, kind, short, long, max_pixels)
    header = pixels.read_header(data, kind, max_pixels)
    if header.problem:
        raise BadImage("corrupt", header.problem, header.upright() if header.width and header.height else None)
    elsewhere = header.colour == "cmyk" or (ships and _foreign(header.icc))
    if not elsewhere and pixels.working_bytes(header, short, long) <= pixels.IN_PROCESS_BYTES:
        found = pixels.decode(data, header, short, long, ships=ships)
        if found is not None:
            return (replace(header, transparency=found[1]) if found[1] else header), found[0]
    told, seen = isolated.shared().decode(data, kind, short, long, max_pixels)
    return replace(header, transparency=told.transparency), seen


def _foreign(icc: bytes) -> bool:
    """Whether a colour profile is there and is not sRGB by its own description."""
    return bool(icc) and b"sRGB" not in icc and "sRGB".encode("utf-16-be") not in icc


class _Recent:
    """The views of the last images, so that the stages of one batch decode each image once."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._views: OrderedDict[tuple[str, int], tuple[Header, Pixels]] = OrderedDict()

    def get(self, sha256: str, data: bytes, max_pixels: int) -> tuple[Header, Pixels]:
        key = (sha256, max_pixels)
        with self._lock:
            if found := self._views.get(key):
                return found
        found = load(data, VIEW_SHORT, VIEW_LONG, max_pixels)
        with self._lock:
            self._views[key] = found
            while len(self._views) > self._size:
                self._views.popitem(last=False)
        return found

    def header(self, sha256: str | None, max_pixels: int) -> Header | None:
        with self._lock:
            found = self._views.get((sha256 or "", max_pixels))
        return found[0] if found else None

    def clear(self) -> None:
        with self._lock:
            self._views.clear()


# Image stages are handed at most 64 rows at a time: at most 64 x 256 x 1024 x 3 bytes = 50 MB.
_recent = _Recent(64)


def view(sha256: str, data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Header, Pixels]:
    """``load`` at the measuring size; the pixels are shared, so do not write to them."""
    return _recent.get(sha256, data, max_pixels)


def seen(sha256: str | None, max_pixels: int = MAX_PIXELS) -> Header | None:
    """The header of an image that an earlier stage of this batch has just viewed, if it is still at hand."""
    return _recent.header(sha256, max_pixels)


def details(batch: pl.DataFrame, found: Sequence[str | None]) -> list[str | None]:
    """What a stage has to tell of each row; of a row that was dropped before, that stays which dropped it."""
    if "detail" not in batch.columns:
        return list(found)
    return [told or new for told, new in zip(batch["detail"], found, strict=True)]


@lru_cache(maxsize=1)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="tuwen-image")


def map_images(work: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """``work`` on each item, in order, on the process's pool of ``threads``.

    Codecs release the interpreter lock, so threads scale where copies of images between processes would not.
    """
    if threads == 1 or len(items) < 2:
        return [work(item) for item in items]
    return list(_pool(os.getpid(), threads).map(work, items))
