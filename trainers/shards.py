"""WebDataset shards: found, counted, and every sample read once; ``stream`` makes batches of them.

A sample is an image (jpg, jpeg, png, webp), a caption (txt, or ``caption`` in json) and, in json, what tuwen's own
shards carry besides: a synthetic caption and hard negatives.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..pipeline import files
from ..pipeline.errors import InputError, UsageError

IMAGES = ("jpg", "jpeg", "png", "webp")


class Sample(NamedTuple):
    """One pair: its key, the image as stored, the caption, and what the JSON says besides."""

    key: str
    image: bytes
    caption: str
    told: dict[str, Any]

    @property
    def usable(self) -> bool:
        """Whether it has an image and words."""
        return bool(self.image and self.caption)

    def negatives(self) -> list[tuple[str, str]]:
        """(kind, caption) of its hard negatives."""
        made = self.told.get("negatives") or ()
        return [(str(n["kind"]), str(n["caption"])) for n in made if n.get("caption")]


@dataclass(frozen=True)
class Shards:
    """Shards and how many samples each holds."""

    paths: tuple[str, ...]
    counts: tuple[int, ...] = field(repr=False)

    @property
    def samples(self) -> int:
        """All of them."""
        return sum(self.counts)


def find(given: Sequence[str], split: str = "train") -> Shards:
    """The shards that ``given`` name: tars, patterns (``*``, ``{000..009}``), folders of tars, finished runs.

    Of a folder with tars named SPLIT-*.tar those of ``split`` are taken. Raises ``InputError`` where there are none.
    """
    paths: list[str] = []
    for one in given:
        found = [path for pattern in _braces(one) for path in _matching(pattern, split)]
        if not found:
            raise InputError(f"{one}: no shards there; expected .tar files, a folder of them, or a run's folder")
        paths += found
    if not paths:
        raise UsageError("no shards were named; give .tar files, a folder of them, or a run's folder")
    with ThreadPoolExecutor(16) as pool:
        counts = tuple(pool.map(_Counter(), paths))
    if not sum(counts):
        raise InputError(f"the {len(paths)} shards given hold no samples, {paths[0]} among them")
    return Shards(tuple(paths), counts)


def _braces(pattern: str) -> Iterator[str]:
    """``a-{00..02}.tar`` to three names; ``{a,b}`` to two."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    inner = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    words = (
        [str(i).zfill(len(inner[1])) for i in range(int(inner[1]), int(inner[2]) + 1)] if inner else match[1].split(",")
    )
    for word in words:
        yield from _braces(pattern[: match.start()] + word + pattern[match.end() :])


def _matching(path: str, split: str) -> list[str]:
    if re.search(r"[*?\[]", path):
        fs, inner = files.filesystem(path)
        return sorted(fs.unstrip_protocol(p) if "://" in path else str(p) for p in fs.glob(inner))
    if path.endswith((".tar", ".tar.gz", ".tgz")):
        if not files.exists(path):
            raise InputError(f"{path} does not exist")
        return [path]
    for folder in (files.join(path, "shards"), path):
        tars = files.names(folder, ".tar")
        chosen = [n for n in tars if n.startswith(f"{split}-")] or (
            [] if any(re.match("(train|val|test)-", n) for n in tars) else tars
        )
        if tars and not chosen:
            kinds = sorted({n.split("-")[0] for n in tars})
            raise InputError(f"{folder} has no {split}-*.tar; it holds {', '.join(kinds)}. Name the tars themselves")
        if chosen:
            return [files.join(folder, n) for n in chosen]
    return []


class _Counter:
    """Samples in a shard: as ``index.json`` beside it says, where the size is the same, else counted in its headers."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Any]] = {}

    def __call__(self, path: str) -> int:
        folder, _, name = path.rpartition("/")
        index = files.join(folder or ".", "index.json")
        if index not in self._told:
            self._told[index] = self._read(index)
        told = self._told[index].get(name)
        fs, inner = files.filesystem(path)
        if told and int(told["bytes"]) == fs.size(inner):
            return int(told["samples"])
        return sum(1 for _ in members(path, names_only=True))

    @staticmethod
    def _read(index: str) -> dict[str, Any]:
        if not files.exists(index):
            return {}
        try:
            return {str(one["name"]): one for one in json.loads(files.read_bytes(index))}
        except (ValueError, TypeError, KeyError):
            return {}


def members(path: str, names_only: bool = False) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, files by extension) of each sample of a shard, in order; neighbours of one key are one sample."""
    key, held = None, dict[str, bytes]()
    try:
        with files.open_read(path) as handle, tarfile.open(fileobj=handle, mode="r:*") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                stem = f"{folder}/{stem}" if folder else stem
                if stem != key:
                    if key is not None:
                        yield key, held
                    key, held = stem, {}
                content = None if names_only else tar.extractfile(member)
                held[kind.lower()] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{path} cannot be read to its end ({type(error).__name__}: {error}); copy it again, or leave it out"
        ) from None
    if key is not None:
        yield key, held


def samples(path: str) -> Iterator[Sample]:
    """All samples of one shard, in order, usable or not."""
    for key, held in members(path):
        caption, told = told_of(held)
        yield Sample(key, next((held[kind] for kind in IMAGES if held.get(kind)), b""), caption, told)


def told_of(held: Mapping[str, bytes]) -> tuple[str, dict[str, Any]]:
    """The caption of a sample's files (txt, else ``caption`` in json), and what its JSON says; both may be empty."""
    try:
        told = json.loads(held["json"]) if held.get("json") else {}
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    caption = held["txt"].decode("utf-8", "replace").strip() if "txt" in held else str(told.get("caption") or "")
    return caption, told


def every(shards: Shards, rank: int = 0, ranks: int = 1) -> Iterator[Sample]:
    """Each usable sample once, for evaluation; ranks share the shards and may get unequal numbers."""
    for path in shards.paths[rank::ranks]:
        yield from (s for s in samples(path) if s.usable)
