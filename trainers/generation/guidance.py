"""Stage ``guidance``: one pass of the network instead of two.

After On Distillation of Guided Diffusion Models (Meng et al. 2023, arXiv 2210.03142, stage one): the student takes the
guidance weight as an input and learns the guided output of its teacher for weights drawn evenly from a range. The
input is that of diffusers' latent consistency models (``time_cond_proj_dim``), so the network opens there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...pipeline.errors import UsageError
from ..stream import Pairs
from . import objectives
from .base import noisy
from .loop import Objective
from .model import TextToImage, copied, frozen, rebuilt, velocity
from .sampling import guided_velocity


@dataclass(frozen=True)
class GuidanceConfig:
    """Which weights the student will take."""

    least: float = 0.0
    most: float = 2.0
    """In Ho and Salimans' count: 0 is no guidance; diffusers' guidance_scale is one more."""
    width: int = 64
    """Of the weight's embedding; even."""


def student(teacher: TextToImage, config: GuidanceConfig) -> TextToImage:
    """A copy whose network takes the weight; its outputs are the teacher's unguided ones until it is trained."""
    if teacher.takes_weight:
        raise UsageError("this model takes the guidance weight already; guidance is distilled once")
    unet = rebuilt(teacher.unet, time_cond_proj_dim=config.width)
    missing = unet.load_state_dict(teacher.unet.state_dict(), strict=False).missing_keys
    assert missing == ["time_embedding.cond_proj.weight"], missing
    torch.nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    return copied(teacher, unet=unet)


class Guidance(Objective):
    """The student's network learns; text side and teacher are frozen."""

    def __init__(self, model: TextToImage, teacher: TextToImage, config: GuidanceConfig) -> None:
        frozen(teacher)
        frozen(model)
        model.unet.requires_grad_(True)
        super().__init__({"unet": model.unet})
        self.held, self.config = [model, teacher], config

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """The squared distance to the guided v."""
        (batch,), (model, teacher) = batches, self.held
        at = noisy(model, model.latents(batch.images, draw), draw)
        weight = drawn(len(at.z), self.config, draw).to(at.z.device)
        with torch.no_grad():
            context, empty = model.encode(batch.captions), model.encode([""] * len(batch.captions))
            wanted = guided_velocity(teacher, at.z, at.steps, context, empty, weight)
        return {"loss": objectives.weighted_mse(velocity(model, at.z, at.steps, context, weight), wanted).mean()}


def drawn(n: int, config: GuidanceConfig, draw: torch.Generator) -> Tensor:
    """(n,) weights."""
    return config.least + (config.most - config.least) * torch.rand(n, generator=draw)
