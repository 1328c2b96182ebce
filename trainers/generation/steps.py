"""Stage ``steps``: progressive distillation (Salimans and Ho 2022, arXiv 2202.00512), halving the steps each time.

One step of the student must arrive where two of its teacher do; then the student is the next teacher. Networks that
take the guidance weight keep taking it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...pipeline.errors import UsageError
from ..shards import Pairs
from . import objectives
from .guidance import GuidanceConfig, drawn
from .loop import Objective
from .model import TextToImage, frozen, velocity
from .onnx_model import track


@dataclass(frozen=True)
class StepsConfig:
    """Down to how many steps."""

    targets: tuple[int, ...] = (8, 4, 2)
    """Each is trained for ``train.steps`` steps from the one before; the first from the model given."""
    most: float = 20.0
    """Largest weight of the error in the image."""


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
        (batch,), (model, teacher) = batches, self.held
        x = model.latents(batch.images, draw)
        chosen = self.track[torch.randint(len(self.track), (len(x),), generator=draw)].to(x.device)
        start, middle, end = chosen.unbind(1)
        here, half, there = model.levels(start), model.levels(middle), model.levels(end)
        z = objectives.noised(x, torch.randn(x.shape, generator=draw).to(x.device), *here)
        weight = drawn(len(x), self.weights, draw).to(x.device) if model.takes_weight else None
        with torch.no_grad():
            context = model.encode(batch.captions)
            first = objectives.ddim(z, velocity(teacher, z, start, context, weight), here, half, self.clip)
            second = objectives.ddim(first, velocity(teacher, first, middle, context, weight), half, there, self.clip)
            wanted = objectives.two_step_target(z, second, here, there)
        v = velocity(model, z, start, context, weight)
        image = objectives.image_of(z.float(), v.float(), *here)
        ratio = objectives.snr(*here).flatten()
        error = objectives.weighted_mse(image, wanted)
        return {"loss": (error * objectives.progressive_weight(ratio, self.config.most)).mean(), "error": error.mean()}
