"""Counted, resumable batches from WebDataset shards to train on.

Shards are read from front to back, as object stores like it; what ``order`` plans decides which samples leave when.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..pipeline.errors import InputError, UsageError
from .order import Order, Slot, entries
from .shards import IMAGES, Sample, Shards, samples

MOST_UNUSABLE = 1000
"""So many unusable samples on end mean that the shards are not what they were taken for."""


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
