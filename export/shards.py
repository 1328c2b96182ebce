"""WebDataset shards: plain tars whose bytes depend on the samples alone.

A sample is KEY.jpg, KEY.txt (the caption, UTF-8) and KEY.json (the other columns). Members come in the
order of their keys with fixed times, modes and owners, so that equal samples make equal files.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ..pipeline import files
from .ustar import UstarWriter

OMITTED = frozenset(
    (
        *("image", "caption", "shard", "unit", "ordinal", "part", "offset", "length"),
        *("status", "stage", "reason", "detail", "blocked"),
    )
)
"""Columns that a sample's JSON does without: they stand beside it, or are about the run and not the pair."""


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard: file name, samples, size and SHA-256."""

    name: str
    samples: int
    bytes: int
    sha256: str


def sample_jsons(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """What each KEY.json holds: the row's columns that have a value, without bytes and without the run's own.

    Bytes are signatures for the relate phase; they stand in the ledger. Hashes of 64 bits are written as 16 hex digits:
    few readers of JSON hold numbers of that size (JavaScript rounds them, Arrow refuses them).
    """
    told = [c for c in rows.get_columns() if c.name not in OMITTED and c.dtype != pl.Binary and c.count()]
    names = [c.name for c in told]
    for values in zip(*(_plain(c) for c in told), strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _plain(column: pl.Series) -> list[Any]:
    values = column.to_list()
    return [None if v is None else f"{v:016x}" for v in values] if column.dtype == pl.UInt64 else values


def write_shard(path: str, samples: Iterable[tuple[str, bytes, str, dict[str, Any]]]) -> ShardInfo:
    """Write (key, JPEG, caption, JSON) samples, given in the order of their keys, and publish the tar."""
    made = ((k, {"jpg": image, "json": _encode(told).encode(), "txt": c.encode()}) for k, image, c, told in samples)
    return write_files(path, made)


def write_clips(path: str, samples: Iterable[tuple[str, Sequence[bytes], str, dict[str, Any]]]) -> ShardInfo:
    """The same with several JPEGs in each sample: KEY.00.jpg, KEY.01.jpg, … in their order in time."""
    made = (
        (
            key,
            {f"{i:02d}.jpg": frame for i, frame in enumerate(frames)}
            | {"json": _encode(told).encode(), "txt": caption.encode()},
        )
        for key, frames, caption, told in samples
    )
    return write_files(path, made)


def write_files(path: str, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardInfo:
    """Write (key, files by extension) in the order of keys, and publish the tar."""
    count, last = 0, ""
    with files.publish(path) as temporary, UstarWriter(temporary, "tuwen", digest=True) as tar:
        for key, members in samples:
            if key <= last:
                raise ValueError(f"samples must come in the order of their keys, once each: {key} after {last}")
            for kind, content in members.items():
                tar.add(f"{key}.{kind}", content)
            count, last = count + 1, key
    return ShardInfo(path.rsplit("/", 1)[-1], count, tar.size, tar.sha256)


def write_index(folder: str, shards: Sequence[ShardInfo]) -> None:
    """Write ``index.json``: name, samples, bytes and sha256 of each shard."""
    told = [asdict(s) for s in sorted(shards, key=lambda s: s.name)]
    files.write_bytes(files.join(folder, "index.json"), (json.dumps(told, indent=1) + "\n").encode())


def without(path: str, keys: set[str], to: str) -> ShardInfo:
    """Publish as ``to`` the shard at ``path`` without the samples of ``keys``; the others byte for byte."""
    held: dict[str, dict[str, bytes]] = {}
    with files.open_read(path) as handle, tarfile.open(fileobj=handle) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            content = tar.extractfile(member)
            if key not in keys and content is not None:
                held.setdefault(key, {})[kind] = content.read()
    kept = ((k, v["jpg"], v["txt"].decode(), json.loads(v["json"])) for k, v in sorted(held.items()))
    return write_shard(to, kept)


def read_index(folder: str) -> list[ShardInfo]:
    """The shards that ``index.json`` of ``folder`` names; none where there is no index."""
    path = files.join(folder, "index.json")
    return [ShardInfo(**told) for told in json.loads(files.read_bytes(path))] if files.exists(path) else []
