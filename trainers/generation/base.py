"""Stage ``base``: text-conditional diffusion from pairs (v-prediction, min-SNR weights, dropped conditions)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..shards import Pairs
from . import objectives
from .loop import Objective
from .model import TextToImage, velocity


@dataclass(frozen=True)
class DiffusionConfig:
    """What every stage that learns from images shares."""

    drop: float = 0.1
    """Share of captions that are taken away, so that guidance has something to move away from."""
    gamma: float = 5.0
    """Largest weight of the error in the image (min-SNR)."""
    floor: float = 1.0
    """Least weight of it; 0 is min-SNR as published, 1 keeps the noisiest steps, where the prompt decides most."""


class Noisy(NamedTuple):
    """A batch of noised images and what there is to predict."""

    z: Tensor
    v: Tensor
    steps: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def snr(self) -> Tensor:
        """(n,)"""
        return objectives.snr(self.alpha, self.sigma).flatten()


def noisy(model: TextToImage, x: Tensor, draw: torch.Generator) -> Noisy:
    """``x`` at noise levels that are drawn evenly."""
    steps = torch.randint(model.steps, (len(x),), generator=draw).to(x.device)
    noise = torch.randn(x.shape, generator=draw).to(x.device)
    alpha, sigma = model.levels(steps)
    z = objectives.noised(x, noise, alpha, sigma)
    return Noisy(z, objectives.velocity(x, noise, alpha, sigma), steps, alpha, sigma)


def dropped(captions: Sequence[str], share: float, draw: torch.Generator) -> list[str]:
    """Some captions made empty."""
    gone = torch.rand(len(captions), generator=draw) < share
    return ["" if g else c for g, c in zip(gone.tolist(), captions, strict=True)]


def set_text(model: TextToImage, trained: bool) -> None:
    """Whether the text tower learns; never its projection of the pooled embedding, which nobody asks for."""
    model.text_encoder.requires_grad_(trained)
    unused = getattr(getattr(model.text_encoder, "tower", None), "text_projection", None)
    if isinstance(unused, torch.nn.Parameter):
        unused.requires_grad_(False)


class Base(Objective):
    """The network, its text tower and its adapter learn from images and captions."""

    def __init__(self, model: TextToImage, config: DiffusionConfig, train_text: bool = True) -> None:
        names = ("unet", "text_encoder", "adapter") if train_text else ("unet", "adapter")
        parts = model.modules_named()
        super().__init__({n: parts[n] for n in names if n in parts})
        self.held, self.config = [model], config
        for part in self.trained.values():
            part.requires_grad_(True)
        set_text(model, train_text)

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """The weighted error in v."""
        (batch,), model = batches, self.held[0]
        at = noisy(model, model.latents(batch.images, draw), draw)
        context = model.encode(dropped(batch.captions, self.config.drop, draw))
        v = velocity(model, at.z, at.steps, context)
        weight = objectives.min_snr_weight(at.snr, self.config.gamma, self.config.floor)
        error = objectives.weighted_mse(v, at.v)
        return {"loss": (error * weight).mean(), "error": error.mean()}
