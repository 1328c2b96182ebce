"""From prompts to images: DDIM steps, guided by two passes or, in a distilled network, by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from . import objectives
from .model import Context, TextToImage, velocity
from .onnx_model import track


def guided_velocity(
    model: TextToImage, z: Tensor, steps: Tensor, context: Context, empty: Context | None, weight: Tensor
) -> Tensor:
    """v under guidance of ``weight`` (n,): one pass where the network takes the weight, else both in one batch."""
    if model.takes_weight or empty is None:
        return velocity(model, z, steps, context, weight)
    both = Context(torch.cat([context.states, empty.states]), torch.cat([context.mask, empty.mask]))
    v, v_empty = velocity(model, torch.cat([z, z]), torch.cat([steps, steps]), both).chunk(2)
    return objectives.guided(v, v_empty, weight.view(-1, 1, 1, 1))


def evaluations(model: TextToImage, steps: int, weight: float) -> int:
    """Passes of the network that one image takes."""
    return steps * (1 if model.takes_weight or not weight else 2)


@torch.no_grad()
def sample(
    model: TextToImage, prompts: Sequence[str], steps: int = 32, weight: float = 1.0, seed: int = 0, batch: int = 64
) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] of prompts; noise is drawn image by image, so a batch's size changes nothing."""
    made = []
    for part in model.modules_named().values():
        part.eval()
    config = model.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    clip = 1.0 if model.vae is None else 0.0
    for at in range(0, len(prompts), batch):
        some = prompts[at : at + batch]
        draws = [torch.Generator().manual_seed(seed * 1_000_003 + at + i) for i in range(len(some))]
        z = torch.stack([torch.randn(shape, generator=g) for g in draws]).to(model.place)
        context = model.encode(some)
        empty = None if model.takes_weight or not weight else model.encode([""] * len(some))
        weights = torch.full((len(some),), float(weight), device=model.place)
        way = track(model.steps, steps)
        for here, there in pairwise(way):
            now = torch.full((len(some),), here, device=model.place)
            v = guided_velocity(model, z, now, context, empty, weights)
            z = objectives.ddim(z, v, model.levels(now), model.levels(torch.full_like(now, there)), clip)
        made.append(model.decoded(z).cpu())
    return torch.cat(made)
