"""Stage ``steps``: progressive distillation (Salimans and Ho 2022, arXiv 2202.00512), halving the steps each time.

One step of the student must arrive where two of its teacher do; then the student is the next teacher. Networks that
take the guidance weight keep taking it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...pipeline.errors import UsageError
from ..stream import Pairs
from . import objectives
from .guidance import GuidanceConfig, drawn
from .loop import Objective
from .model import Context, TextToImage, frozen, velocity
from .onnx_model import track


@dataclass(frozen=True)
class StepsConfig:
    """Down to how many steps."""

    targets: tuple[int, ...] = (8, 4, 2)
    """Each is trained for ``train.steps`` steps from the one before; the first from the model given."""
    most: float = 20.0
    """Largest weight of the error in the image."""
    own: bool = True
    """Learn where the teacher's own way from noise leads, which is where the student will be; else from the shards'
    images, noised (as published)."""


class _Part(NamedTuple):
    """Where steps begin and end: z, z after two steps of the teacher, levels (n,), what the network is told."""

    z: Tensor
    after: Tensor
    start: Tensor
    end: Tensor
    context: Context
    weight: Tensor | None

    @classmethod
    def joined(cls, parts: Sequence[_Part]) -> _Part:
        z, after, start, end = (torch.cat([p[i] for p in parts]) for i in range(4))  # type: ignore[misc]
        states, mask = torch.cat([p.context.states for p in parts]), torch.cat([p.context.mask for p in parts])
        weights = [p.weight for p in parts if p.weight is not None]
        return cls(z, after, start, end, Context(states, mask), torch.cat(weights) if weights else None)


class Steps(Objective):
    """The network learns to take ``steps`` steps where its teacher takes twice as many."""

    def __init__(
        self, model: TextToImage, teacher: TextToImage, steps: int, config: StepsConfig, weights: GuidanceConfig
    ) -> None:
        if steps < 1 or 2 * steps > model.steps:
            raise UsageError(f"{steps} steps cannot be distilled; give 1 to {model.steps // 2}")
        frozen(teacher)
        frozen(model)
        model.unet.requires_grad_(True)
        super().__init__({"unet": model.unet})
        self.held, self.config, self.weights = [model, teacher], config, weights
        self.clip = 1.0 if model.vae is None else 0.0
        whole = track(model.steps, steps)
        self.track = torch.tensor([(a, (a + b + 1) // 2, b) for a, b in pairwise(whole)])

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """The weighted distance to the image that would arrive where the teacher's two steps arrive."""
        (batch,), model = batches, self.held[0]
        with torch.no_grad():
            part = self._own(batch, draw) if self.config.own else self._noised(batch, draw)
        here, there = model.levels(part.start), model.levels(part.end)
        wanted = objectives.two_step_target(part.z, part.after, here, there)
        v = velocity(model, part.z, part.start, part.context, part.weight)
        image = objectives.image_of(part.z.float(), v.float(), *here)
        ratio = objectives.snr(*here).flatten()
        error = objectives.weighted_mse(image, wanted)
        return {"loss": (error * objectives.progressive_weight(ratio, self.config.most)).mean(), "error": error.mean()}

    def _noised(self, batch: Pairs, draw: torch.Generator) -> _Part:
        """Images of the shards, noised to where a step begins, and two steps of the teacher from there."""
        model = self.held[0]
        x = model.latents(batch.images, draw)
        chosen = self.track[torch.randint(len(self.track), (len(x),), generator=draw)].to(x.device)
        start, middle, end = chosen.unbind(1)
        z = objectives.noised(x, torch.randn(x.shape, generator=draw).to(x.device), *model.levels(start))
        context, weight = model.encode(batch.captions), self._weight(len(x), draw)
        return _Part(z, self._two(z, start, middle, end, context, weight), start, end, context, weight)

    def _own(self, batch: Pairs, draw: torch.Generator) -> _Part:
        """All steps of the teacher's own way from noise, for as many captions as make the batch's number of steps."""
        model = self.held[0]
        captions = batch.captions[: max(1, len(batch.captions) // len(self.track))]
        config = model.unet.config
        shape = (len(captions), config.in_channels, config.sample_size, config.sample_size)
        z = torch.randn(shape, generator=draw).to(model.place)
        context, weight = model.encode(captions), self._weight(len(z), draw)
        parts = []
        for told in self.track:
            start, middle, end = (t.to(z.device).expand(len(z)) for t in told)
            after = self._two(z, start, middle, end, context, weight)
            parts.append(_Part(z, after, start, end, context, weight))
            z = after
        return _Part.joined(parts)

    def _two(
        self, z: Tensor, start: Tensor, middle: Tensor, end: Tensor, context: Context, weight: Tensor | None
    ) -> Tensor:
        """Where two steps of the teacher lead."""
        model, teacher = self.held
        here, half, there = model.levels(start), model.levels(middle), model.levels(end)
        first = objectives.ddim(z, velocity(teacher, z, start, context, weight), here, half, self.clip)
        return objectives.ddim(first, velocity(teacher, first, middle, context, weight), half, there, self.clip)

    def _weight(self, n: int, draw: torch.Generator) -> Tensor | None:
        model = self.held[0]
        return drawn(n, self.weights, draw).to(model.place) if model.takes_weight else None
