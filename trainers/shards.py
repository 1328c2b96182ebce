"""Streams WebDataset shards: counted, resumable batches to train on, and every sample once to evaluate on.

Shards are read from front to back, as object stores like it; what ``order`` plans decides which samples leave when. A
sample is an image (jpg, jpeg, png, webp), a caption (txt, or ``caption`` in json) and, in json, what tuwen's own
shards carry besides: a synthetic caption and hard negatives.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..pipeline import files
from ..pipeline.errors import InputError, UsageError
from .order import Order, Slot, entries

IMAGES = ("jpg", "jpeg", "png", "webp")
MOST_UNUSABLE = 1000
"""So many unusable samples on end mean that the shards are not what they were taken for."""


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


class Pairs(NamedTuple):
    """One batch; the first two fields are all that a loop needs."""

    images: Tensor
    """(n, 3, side, side) uint8."""
    captions: list[str]
    negatives: list[list[str]] | None = None
    """Hard negatives of each pair, as many as were asked for or fewer."""
    keys: tuple[str, ...] = ()
    position: tuple[int, int] = (0, 0)
    """Which of this rank's workers made the batch, and how many samples it had taken by then."""
    unusable: int = 0
    """Samples without an image or a caption that were passed over while this batch was made."""
    parallel: list[str] | None = None
    """The same captions in another language, where they were asked for; "" where a sample has none."""


@dataclass(frozen=True)
class DataConfig:
    """What is read from the shards and how."""

    batch: int = 256
    """Pairs per step over all ranks, so that the same command gives the same training on one GPU and on several."""
    workers: int = 0
    """Reading processes per rank; 0 reads in the training process. Another number gives another order."""
    shuffle: int = 2000
    """Samples in the shuffle buffer of each reader."""
    seed: int = 0
    synthetic: float = 0.0
    """Probability that a pair's synthetic caption, where it has one, stands in for the original."""
    negatives: int = 0
    """Hard negatives taken from each pair at most."""
    crop: float = 0.9
    """Least share of the image's area that a random crop keeps (open_clip's default); 1 takes the whole image."""
    caption: str = ""
    """Field of the JSON that holds the caption to train on, as caption_en; empty: the caption itself."""
    parallel: str = ""
    """Field of the JSON with the same caption in another language, for training on pairs of captions."""


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


class Reader:
    """One reader's samples in its order, from the ``position``-th on; an endless iterator.

    To begin at a position nothing is read but the shards that samples in the buffer lie in.
    """

    def __init__(
        self, shards: Shards, seed: int, shuffle: int, reader: int = 0, readers: int = 1, position: int = 0
    ) -> None:
        self._paths = shards.paths
        self._order = Order(shards.counts, seed, reader, readers, min(shuffle, shards.samples))
        for _ in range(position):
            next(self._order)
        self.position = position
        wanted = set(self._order.waiting)
        first = min((slot.turn for slot in wanted), default=None)
        self._coming = entries(shards.counts, seed, reader, readers, first)
        self._held: dict[Slot, Sample] = {}
        self._open: tuple[int, int, Iterator[Sample]] = (-1, 0, iter(()))
        last = max(wanted, default=None)
        for slot in self._coming if wanted else ():
            if slot in wanted:
                self._held[slot] = self._read(slot)
            if slot == last:
                break

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        slot = next(self._order)
        self.position += 1
        while slot not in self._held:
            coming = next(self._coming)
            self._held[coming] = self._read(coming)
        return self._held.pop(slot)

    def _read(self, slot: Slot) -> Sample:
        """The sample of a slot; slots are asked for in rising order."""
        turn, at, stream = self._open
        if turn != slot.turn:
            at, stream = 0, samples(self._paths[slot.shard])
        sample = None
        while at <= slot.sample:
            sample = next(stream, None)
            if sample is None:
                raise InputError(
                    f"{self._paths[slot.shard]} ends after {at} samples; more were there when training began"
                )
            at += 1
        self._open = (slot.turn, at, stream)
        assert sample is not None
        return sample


class PairStream(IterableDataset[Pairs]):
    """Endless batches of one rank, made by its workers in turn.

    ``positions`` are the samples that each worker of this rank has taken already, and ``start`` the batches: both
    from a checkpoint, so that the batches after it come out as they would have without the interruption.
    """

    def __init__(
        self,
        shards: Shards,
        config: DataConfig,
        side: int,
        rank: int = 0,
        ranks: int = 1,
        positions: Sequence[int] = (),
        start: int = 0,
    ) -> None:
        if config.batch < 1 or config.shuffle < 1 or config.workers < 0:
            told = f"data.batch {config.batch}, data.shuffle {config.shuffle}, data.workers {config.workers}"
            raise UsageError(f"{told}: batch and shuffle must be 1 or more, workers 0 or more")
        if config.batch % ranks:
            raise UsageError(f"data.batch {config.batch} cannot be shared by {ranks} ranks; give a multiple of {ranks}")
        self.shards, self.config, self.side = shards, config, side
        self.rank, self.ranks, self.start = rank, ranks, start
        self.size = config.batch // ranks
        workers = max(1, config.workers)
        if len(positions) > workers:
            raise UsageError(f"{len(positions)} workers read before; data.workers {workers} would read another order")
        self.positions = [*positions, *[0] * (workers - len(positions))]

    def __iter__(self) -> Iterator[Pairs]:
        info = get_worker_info()
        if info is not None:
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
        workers = info.num_workers if info else 1
        worker = ((info.id if info else 0) + self.start) % workers
        number = self.rank * workers + worker
        reader = Reader(
            self.shards,
            self.config.seed,
            self.config.shuffle,
            number,
            self.ranks * workers,
            self.positions[worker],
        )
        while True:
            yield self._batch(reader, number, worker)

    def _batch(self, reader: Reader, number: int, worker: int) -> Pairs:
        images = np.empty((self.size, 3, self.side, self.side), np.uint8)
        captions: list[str] = []
        parallel: list[str] = []
        negatives: list[list[str]] = []
        keys: list[str] = []
        unusable = on_end = 0
        while len(captions) < self.size:
            sample = next(reader)
            rng = np.random.default_rng([self.config.seed, number, reader.position])
            wanted = sample.usable and (not self.config.caption or sample.told.get(self.config.caption))
            picture = crop(sample.image, self.side, self.config.crop, rng) if wanted else None
            if picture is None:
                unusable, on_end = unusable + 1, on_end + 1
                if on_end == MOST_UNUSABLE:
                    raise InputError(
                        f"{on_end} samples on end have no caption (txt, or caption in json) or no image that opens "
                        f"({', '.join(IMAGES)}); the last was {sample.key}"
                    )
                continue
            on_end = 0
            images[len(captions)] = picture.transpose(2, 0, 1)
            captions.append(self._caption(sample, rng))
            parallel.append(str(sample.told.get(self.config.parallel) or ""))
            negatives.append(self._negatives(sample, rng))
            keys.append(sample.key)
        return Pairs(
            torch.from_numpy(images),
            captions,
            negatives if self.config.negatives else None,
            tuple(keys),
            (worker, reader.position),
            unusable,
            parallel if self.config.parallel else None,
        )

    def _caption(self, sample: Sample, rng: np.random.Generator) -> str:
        if self.config.caption:
            return str(sample.told[self.config.caption])
        made = sample.told.get("caption_synthetic")
        return str(made) if made and rng.random() < self.config.synthetic else sample.caption

    def _negatives(self, sample: Sample, rng: np.random.Generator) -> list[str]:
        made = [caption for _, caption in sample.negatives()] if self.config.negatives else []
        return [made[i] for i in rng.permutation(len(made))[: self.config.negatives]]


def loader(stream: PairStream) -> Iterable[Pairs]:
    """The stream through as many processes as its configuration names."""
    workers = stream.config.workers
    if not workers:
        return stream
    return DataLoader(
        stream, batch_size=None, num_workers=workers, prefetch_factor=2, pin_memory=torch.cuda.is_available()
    )


def crop(data: bytes, side: int, least: float, rng: np.random.Generator) -> NDArray[np.uint8] | None:
    """A random crop of the image, (side, side, 3) RGB; None where it does not open.

    At least ``least`` of the area, aspect between 3/4 and 4/3 (as open_clip trains). Never mirrored: captions say
    左 and 右. Decoded at a half, quarter or eighth where that is still larger than needed.
    """
    stored = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(stored, _reduced(data, side))
    if image is None:
        return None
    height, width = image.shape[:2]
    if least < 1:
        area = rng.uniform(least, 1) * height * width
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w = min(width, max(1, round((area * aspect) ** 0.5)))
        h = min(height, max(1, round((area / aspect) ** 0.5)))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        image = image[top : top + h, left : left + w]
    smaller = min(image.shape[:2]) >= side
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized[:, :, ::-1]).astype(np.uint8, copy=False)


def _reduced(data: bytes, side: int) -> int:
    """How far the decoder may scale down so that no side falls under ``side``."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            smallest = min(image.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return int(cv2.IMREAD_COLOR)
    kinds = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
    return int(next((kind for factor, kind in kinds if smallest >= factor * side), cv2.IMREAD_COLOR))
