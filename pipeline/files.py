"""Files of a run, on local disk or on any fsspec file system.

A file appears under its final name only when it is complete: on a local disk by a temporary
name and a rename, on an object store by one upload of a finished local file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
import polars as pl
import pyarrow.dataset
from fsspec.implementations.local import LocalFileSystem

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_TEMPORARY = ".tuwen-"
REQUESTS = 32
"""Requests to an object store that the driver has under way at once."""
_READ_BY_POLARS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https"}


def filesystem(path: str) -> tuple[Any, str]:
    """The file system that holds ``path`` and the path within it."""
    fs, inner = fsspec.url_to_fs(path)
    return fs, str(inner)


def join(root: str, *names: str) -> str:
    """``root`` and ``names`` with one slash between them (URLs keep their protocol)."""
    return "/".join((root.rstrip("/"), *names))


def exists(path: str) -> bool:
    """Whether a file or folder of that name is there."""
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


def names(folder: str, suffix: str = "") -> list[str]:
    """Sorted names of the complete files in ``folder`` that end in ``suffix``; [] where there is no folder."""
    fs, inner = filesystem(folder)
    if not fs.isdir(inner):
        return []
    found = (str(p).rstrip("/").rsplit("/", 1)[-1] for p in fs.ls(inner, detail=False))
    return sorted(n for n in found if n.endswith(suffix) and not n.startswith("."))


def open_read(path: str) -> IO[bytes]:
    """``path`` opened for random reads of bytes."""
    fs, inner = filesystem(path)
    handle: IO[bytes] = fs.open(inner, "rb")
    return handle


def read_bytes(path: str) -> bytes:
    """All bytes of ``path``."""
    fs, inner = filesystem(path)
    return bytes(fs.cat_file(inner))


def remove(path: str) -> None:
    """Delete a file or a whole folder, if it is there."""
    fs, inner = filesystem(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


def sweep(folder: str) -> None:
    """Delete what a killed writer left half written in ``folder`` and below (object stores keep no such thing)."""
    fs, inner = filesystem(folder)
    if isinstance(fs, LocalFileSystem):
        for left in Path(inner).rglob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)


def move(path: str, to: str) -> None:
    """Give a complete file another name, on the same file system; what bore it is replaced."""
    fs, inner = filesystem(path)
    _, target = filesystem(to)
    fs.makedirs(fs._parent(target), exist_ok=True)
    if isinstance(fs, LocalFileSystem):
        Path(inner).replace(target)
    else:
        fs.mv(inner, target)


def tree(folder: str) -> list[str]:
    """Names, relative to ``folder``, of the complete files in it and below; [] where there is no folder."""
    fs, inner = filesystem(folder)
    if not fs.isdir(inner):
        return []
    root = inner.rstrip("/") + "/"
    found = (str(p).removeprefix(root) for p in fs.find(inner))
    return sorted(n for n in found if not n.rsplit("/", 1)[-1].startswith("."))


@contextmanager
def publish(path: str) -> Iterator[Path]:
    """Give a local temporary file to write; it takes the name ``path`` when the block ends well."""
    fs, inner = filesystem(path)
    local = isinstance(fs, LocalFileSystem)
    folder = Path(inner).parent if local else Path(tempfile.gettempdir())
    fs.makedirs(fs._parent(inner), exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if local:
            temporary.chmod(0o644)
            temporary.replace(inner)
        else:
            fs.put_file(str(temporary), inner)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str, data: bytes) -> None:
    """Publish ``data`` as ``path``."""
    with publish(path) as temporary:
        temporary.write_bytes(data)


def write_parquet(path: str, frame: pl.DataFrame) -> None:
    """Publish ``frame`` as a zstd parquet file."""
    with publish(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=True)


def read_parquet(path: str, columns: list[str] | None = None) -> pl.DataFrame:
    """A parquet file (or the named columns of it) as a frame."""
    with open_read(path) as handle:
        return pl.read_parquet(handle, columns=columns)


def each(call: Callable[[_Item], _Result], items: Iterable[_Item], folder: str) -> list[_Result]:
    """``call`` of every item, in order; where ``folder`` is not on a local disk many calls wait side by side.

    The driver goes through files of every unit: at 100,000 units of an object store one after the other would
    take an hour.
    """
    if isinstance(filesystem(folder)[0], LocalFileSystem):
        return [call(item) for item in items]
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(call, items))


def scan_parquet(folder: str) -> pl.LazyFrame | None:
    """All parquet files of ``folder``, in the order of their names, as one lazy frame; None where there is none.

    polars reads local disks and the large object stores by itself; any other file system goes through Arrow.
    """
    found = [join(folder, name) for name in names(folder, ".parquet")]
    if not found:
        return None
    fs, _ = filesystem(folder)
    inner = [filesystem(path)[1] for path in found]
    if isinstance(fs, LocalFileSystem):
        return pl.scan_parquet(inner)
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & _READ_BY_POLARS:
        return pl.scan_parquet([fs.unstrip_protocol(path) for path in inner])
    return pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(inner, format="parquet", filesystem=fs))
