"""What a network is for: its batches, its losses beside the uncompressed network's outputs, its quality.

retrieval   a tower of a dual stream; the other tower stays, and its features are what the rows are held against
classify    a field of the samples' JSON, seen in the image or read in the caption
restore     the image as it was before it was scaled down, or before noise was added
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import InputError
from ..edge.student import Targets, distillation
from ..losses import contrastive
from ..retrieval import caption_group
from ..shards import Shards, every
from ..stream import Pairs

Run = Callable[[Tensor], Tensor]
TEMPERATURE = 2.0
"""Of the distillation of classes (Hinton et al. 2015, arXiv 1503.02531)."""


class Batch(NamedTuple):
    """What a network sees, what is right, and what the uncompressed network says (None: distil from nothing)."""

    inputs: Tensor
    target: Any
    teacher: Tensor | None


class Task(Protocol):
    """One of the three."""

    metric: ClassVar[str]
    """Name of the quality, higher being better."""

    def batch(self, pairs: Pairs, teacher: Run | None) -> Batch:
        """Pairs of the shards as a batch."""
        ...

    def losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and ``task`` and ``distil`` of which it is the sum."""
        ...

    def quality(self, run: Run, batches: Sequence[Batch]) -> float:
        """The quality of a model on held-out batches."""
        ...


def stream(task: Task, pairs: Iterable[Pairs], teacher: Run | None) -> Generator[Batch, None, None]:
    """Batches for training."""
    for one in pairs:
        made = task.batch(one, teacher)
        if len(made.inputs):
            yield made


class Retrieval:
    """The image or text tower of a dual stream. Targets: unit features of the other tower, groups of captions."""

    metric: ClassVar[str] = "recall_at_1"

    def __init__(self, other: Run, prepare: Any, tower: str, scale: float) -> None:
        self.other, self.prepare, self.tower, self.scale = other, prepare, tower, torch.tensor(scale)

    def batch(self, pairs: Pairs, teacher: Run | None) -> Batch:
        pixels, ids = self.prepare(pairs.images, pairs.captions)
        own, others = (pixels, ids) if self.tower == "image" else (ids, pixels)
        groups = torch.tensor([caption_group(c) for c in pairs.captions])
        with torch.no_grad():
            rows = F.normalize(self.other(others), dim=-1)
            return Batch(own, (rows, groups), teacher(own) if teacher else None)

    def losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        rows, (others, groups) = F.normalize(outputs, dim=-1), batch.target
        own = contrastive(rows, others, self.scale, groups)
        if batch.teacher is None:
            return {"loss": own, "task": own}
        taught = F.normalize(batch.teacher, dim=-1)
        targets = Targets.of(taught, others, self.scale)
        distil = distillation(rows, others, self.scale, targets.to_text, targets.to_image)
        distil = distil + 4 * (1 - (rows * taught).sum(1).mean())
        return {"loss": own + distil, "task": own, "distil": distil}

    def quality(self, run: Run, batches: Sequence[Batch]) -> float:
        """R@1, the mean of both ways, over all held-out pairs; every row of an equal caption is right."""
        rows = F.normalize(torch.cat([run(b.inputs) for b in batches]), dim=-1)
        others, groups = (torch.cat([b.target[i] for b in batches]) for i in range(2))
        cosines, right = rows @ others.T, groups[:, None] == groups[None, :]
        both = [right.gather(1, c.argmax(1)[:, None]).double().mean() for c in (cosines, cosines.T)]
        return float(sum(both) / 2)


class Classify:
    """Classes of a field of the samples' JSON; ``read`` makes ids of captions where the network reads."""

    metric: ClassVar[str] = "accuracy"

    def __init__(
        self, labels: Sequence[str], of: dict[str, str], scale: tuple[float, float], read: Callable[..., Any] | None
    ) -> None:
        self.labels, self.of, self.read = {label: i for i, label in enumerate(labels)}, of, read
        self.mean, self.std = scale

    def batch(self, pairs: Pairs, teacher: Run | None) -> Batch:
        known = [i for i, key in enumerate(pairs.keys) if self.of.get(key) in self.labels]
        target = torch.tensor([self.labels[self.of[pairs.keys[i]]] for i in known], dtype=torch.int64)
        if self.read:
            inputs = self.read([pairs.captions[i] for i in known])
        else:
            inputs = (pairs.images[known].float() / 255 - self.mean) / self.std
        with torch.no_grad():
            return Batch(inputs, target, teacher(inputs) if teacher and known else None)

    def losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        own = F.cross_entropy(outputs, batch.target)
        if batch.teacher is None:
            return {"loss": own, "task": own}
        rows, taught = ((t / TEMPERATURE).log_softmax(1) for t in (outputs, batch.teacher))
        distil = TEMPERATURE**2 * F.kl_div(rows, taught, reduction="batchmean", log_target=True)
        return {"loss": own + distil, "task": own, "distil": distil}

    def quality(self, run: Run, batches: Sequence[Batch]) -> float:
        """The share of right classes."""
        right = torch.cat([run(b.inputs).argmax(1) == b.target for b in batches])
        return float(right.double().mean())


class Restore:
    """The image at ``factor`` times the size that is seen, or, at 1, without the noise of deviation ``noise``."""

    metric: ClassVar[str] = "psnr_db"

    def __init__(self, factor: int = 2, noise: float = 0.0, seed: int = 0) -> None:
        self.factor, self.noise = factor, noise
        self._draw = torch.Generator().manual_seed(seed)

    def batch(self, pairs: Pairs, teacher: Run | None) -> Batch:
        target = pairs.images.float() / 255
        inputs = F.avg_pool2d(target, self.factor) if self.factor > 1 else target
        if self.noise:
            inputs = inputs + self.noise * torch.randn(inputs.shape, generator=self._draw)
        with torch.no_grad():
            return Batch(inputs, target, teacher(inputs) if teacher else None)

    def losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        # In hundredths, so that a loss of this task is of the order of the others.
        own = 100 * F.l1_loss(outputs, batch.target)
        if batch.teacher is None:
            return {"loss": own, "task": own}
        distil = 100 * F.l1_loss(outputs, batch.teacher)
        return {"loss": own + distil, "task": own, "distil": distil}

    def quality(self, run: Run, batches: Sequence[Batch]) -> float:
        """Peak signal-to-noise ratio in decibels, the mean over images."""
        errors = torch.cat([(run(b.inputs).clamp(0, 1) - b.target).square().mean((1, 2, 3)) for b in batches])
        return float((-10 * errors.clamp(min=1e-10).log10()).mean())


def labels_of(shards: Shards, field: str) -> dict[str, str]:
    """The field by key; ``InputError`` where no sample has it."""
    found = {s.key: str(s.told[field]) for s in every(shards) if s.told.get(field) is not None}
    if not found:
        raise InputError(f"no sample of these shards has {field!r} in its JSON, which this network was trained to tell")
    return found
