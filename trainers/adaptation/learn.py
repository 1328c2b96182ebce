"""Training in the cloud: the light model first, then, with it frozen, what generates the dynamic layers' parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import contrastive
from .anchors import Selector
from .cloud import Cloud, CloudConfig, Encoder, surprise
from .devices import PLAIN, Device
from .light import Light, Statistics
from .task import Batch, Task

Tell = Callable[[dict[str, Any]], None]
CANDIDATES = 48
"""Frames of a device that anchors are picked from in a step of training."""


@dataclass(frozen=True)
class BaseConfig:
    """How the light model is trained in the cloud, on all samples as they are."""

    steps: int = 500
    learning_rate: float = 3e-3
    batch: int = 128
    seed: int = 0


class Texts(NamedTuple):
    """Captions (n, embed) and questions (m, embed) of a whole task, encoded: nothing that adapts changes them."""

    captions: Tensor
    questions: Tensor | None


@torch.no_grad()
def encoded(light: Light, task: Task) -> Texts:
    """All captions and questions of ``task``; equal questions are encoded once."""
    captions = torch.cat([light.text(part) for part in task.tokens.split(512)])
    if light.answer is None:
        return Texts(captions, None)
    distinct, place = torch.unique(task.question_tokens, dim=0, return_inverse=True)
    return Texts(captions, torch.cat([light.questions(part) for part in distinct.split(512)])[place])


def batches_loss(light: Light, batches: Sequence[Batch], parameters: Tensor, texts: Texts) -> Tensor:
    """Mean loss of several devices; ``parameters`` (devices or 1, p). Each is held against its own photos alone."""
    sizes = [len(batch.pixels) for batch in batches]
    many = parameters.shape[0] > 1
    each = parameters.repeat_interleave(torch.tensor(sizes), 0) if many else parameters
    clips = light.clip(torch.cat([batch.pixels for batch in batches]), each)
    scale = light.logit_scale.exp().clamp(max=100)
    images, captions = F.normalize(clips, dim=1), texts.captions[torch.cat([b.rows for b in batches])]
    groups = torch.cat([b.groups for b in batches])
    # One device's captions are no wrong answers for another's photos: each is a problem of its own.
    loss = torch.stack(
        [
            contrastive(image, text, scale, own)
            for image, text, own in zip(images.split(sizes), captions.split(sizes), groups.split(sizes), strict=True)
        ]
    ).mean()
    if texts.questions is not None:
        seen = torch.cat([c[b.asked.place] for c, b in zip(clips.split(sizes), batches, strict=True)])
        asked = texts.questions[torch.cat([b.asked.number for b in batches])]
        right = torch.cat([b.asked.answer for b in batches])
        loss = loss + F.cross_entropy(light.answers(seen, asked), right, ignore_index=-1)
    return loss


def own_texts(light: Light, task: Task, batches: Sequence[Batch]) -> tuple[list[Batch], Texts]:
    """The texts of some batches encoded with gradients, and the batches with rows and numbers that point into them."""
    captions = light.text(task.tokens[torch.cat([b.rows for b in batches])])
    numbers = torch.cat([b.asked.number for b in batches])
    questions = light.questions(task.question_tokens[numbers]) if light.answer is not None else None
    moved, row, number = [], 0, 0
    for b in batches:
        asked = b.asked._replace(number=torch.arange(number, number + len(b.asked.number)))
        moved.append(b._replace(rows=torch.arange(row, row + len(b.rows)), asked=asked))
        row, number = row + len(b.rows), number + len(b.asked.number)
    return moved, Texts(captions, questions)


def minimise(
    parameters: Sequence[Tensor],
    losses: Iterable[Tensor],
    steps: int,
    learning_rate: float,
    tell: Tell | None,
    name: str,
) -> None:
    """AdamW with a warm-up and a cosine to zero; each loss of the iterable is made after the step before it."""
    optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=0.02)
    started, stream = time.perf_counter(), iter(losses)
    warm = max(1, min(50, steps // 10))
    for step in range(steps):
        rate = min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate
        loss = next(stream)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if tell and (step % 50 == 0 or step == steps - 1):
            seconds = round(time.perf_counter() - started, 1)
            tell({"step": step, "seconds": seconds, name: round(float(loss.detach()), 5)})


def train_base(light: Light, task: Task, config: BaseConfig, tell: Tell | None = None) -> None:
    """The light model on all samples, through no camera, in place."""
    rng = np.random.default_rng([config.seed, 1])
    light.train()

    def losses() -> Iterable[Tensor]:
        while True:
            rows = rng.integers(len(task), size=config.batch)
            batch = task.batch(rows, PLAIN(task.clips.frames[torch.from_numpy(rows)]), rng)
            moved, texts = own_texts(light, task, [batch])
            yield batches_loss(light, moved, light.static(), texts)

    minimise(list(light.parameters()), losses(), config.steps, config.learning_rate, tell, "base_loss")
    light.eval()


@torch.no_grad()
def features_of(light: Light, frames: Tensor) -> Tensor:
    """(n, embed) of samples through no camera: what their clusters are made of."""
    return torch.cat([light.image(PLAIN(part), light.static()) for part in frames.split(256)])


@torch.no_grad()
def statistics_of(statistics: Statistics, task: Task, device: Device) -> Tensor:
    """(frames, s) of all frames of a device's photos, in their order."""
    pixels = device.camera(task.clips.frames[torch.from_numpy(device.photos)]).flatten(0, 1)
    return torch.cat([statistics(part) for part in pixels.split(256)])


def draws(task: Task, devices: Sequence[Device], config: CloudConfig, rng: np.random.Generator) -> Any:
    """One step's (numbers of devices, batches of their labelled photos)."""
    numbers = rng.choice(len(devices), min(config.devices, len(devices)), replace=False)
    batches = []
    for number in numbers:
        device = devices[number]
        rows = rng.choice(device.photos, min(config.batch, len(device.photos)), replace=False)
        batches.append(task.batch(rows, device.camera(task.clips.frames[torch.from_numpy(rows)]), rng))
    return numbers, batches


class Trained:
    """What the cloud has learned: the encoder that goes to devices, selector, reasoner and adaptor."""

    def __init__(self, light: Light, config: CloudConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.statistics = Statistics(light)
        self.encoder = Encoder(self.statistics.size, config.features)
        self.selector = Selector(config.features)
        self.cloud = Cloud(config, light.dynamic)

        for module in self.modules().values():
            module.eval()

    def modules(self) -> dict[str, nn.Module]:
        """Trained parts by name."""
        return {"encoder": self.encoder, "selector": self.selector, "cloud": self.cloud}


def train_cloud(
    made: Trained, light: Light, task: Task, devices: Sequence[Device], seed: int, tell: Tell | None = None
) -> None:
    """Train ``made`` over simulated devices, ``light`` frozen. Half of the steps take anchors at random, half as
    learned, so that the cloud has seen whatever way a device picks them."""
    config = made.config
    light.requires_grad_(False)
    statistics = torch.stack([statistics_of(made.statistics, task, device) for device in devices])  # (d, N, s)
    made.encoder.scale_to(statistics.flatten(0, 1))
    texts = encoded(light, task)
    rng = np.random.default_rng([seed, 2])
    shuffle = torch.Generator().manual_seed(seed)

    def losses() -> Iterable[Tensor]:
        while True:
            numbers, batches = draws(task, devices, config, rng)
            features = made.encoder(statistics[torch.from_numpy(numbers)])
            k = int(rng.integers(1, min(config.anchors, features.shape[1]) + 1))
            # Enough frames to choose from, and no more than a step has time for.
            some = features[:, torch.randperm(features.shape[1], generator=shuffle)[:CANDIDATES]]
            anchors = made.selector(some, k) if rng.random() < 0.5 else some[:, :k]
            reasoned = made.cloud.reasoner(anchors)
            loss = batches_loss(light, batches, made.cloud.adaptor(reasoned), texts)
            yield loss + config.reasoning * surprise(features.detach(), reasoned)

    trained = [p for module in made.modules().values() for p in module.parameters()]
    minimise(trained, losses(), config.steps, config.learning_rate, tell, "cloud_loss")
    light.requires_grad_(True)
