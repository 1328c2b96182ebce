"""Stage ``prune``: layers of the network that cost much and do little are taken out, then it learns from the whole one.

What can go is what diffusers' configuration can leave out, so the small network opens there: the last layer of a level
(in the way down and up alike), and the middle block. Each is judged by what it saves (measured milliseconds) and what
it spoils (squared error in v against the whole network). Weights come from the teacher; then the error in v, the
teacher's output and its blocks' features teach the rest (BK-SDM, arXiv 2305.15798: weights 1, 1, 1).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import UsageError
from ..stream import Pairs
from . import objectives
from .align import features
from .base import DiffusionConfig, dropped, noisy
from .guidance import GuidanceConfig, drawn
from .loop import Objective
from .model import Context, TextToImage, copied, frozen, rebuilt, velocity

MIDDLE = "middle"
ROUNDS = 15
"""Interleaved timings of each candidate; the median counts."""


@dataclass(frozen=True)
class PruneConfig:
    """How much faster, and what the small network learns from."""

    speed: float = 1.5
    """Least ratio of the times of one pass, whole network to small one."""
    remove: tuple[str, ...] = ()
    """Units to take out, as level-0 or middle; empty: chosen by measurement until ``speed`` is reached."""
    task: float = 1.0
    output: float = 1.0
    features: float = 1.0


@dataclass(frozen=True)
class Unit:
    """What may be taken out, and what that was measured to do."""

    name: str
    saved: float
    """Milliseconds of one pass."""
    error: float
    """Mean squared difference of v from the whole network's, as a share of its mean square."""
    parameters: int
    """How many go with it."""


def units(unet: Any) -> list[str]:
    """What can still be taken out."""
    found = [f"level-{i}" for i, n in enumerate(_layers(unet)) if n > 1]
    return found + ([MIDDLE] if unet.mid_block is not None else [])


def without(unet: Any, names: Sequence[str]) -> Any:
    """A copy without the units ``names``.

    A level of n layers has n on the way down and n + 1 on the way up, each of which takes one skip connection. The
    last layer down goes, and the layer up whose skip it made: the second but last of the way up, so that
    those at either end, which meet other widths, stay.
    """
    if unknown := set(names) - set(units(unet)):
        raise UsageError(f"{', '.join(sorted(unknown))} cannot be taken out; expected some of {', '.join(units(unet))}")
    layers, levels = _layers(unet), len(unet.config.block_out_channels)
    fewer = [n - (f"level-{i}" in names) for i, n in enumerate(layers)]
    middle = None if MIDDLE in names else unet.config.mid_block_type
    small = rebuilt(unet, layers_per_block=fewer, mid_block_type=middle)
    weights: dict[str, Tensor] = {}
    for name, value in unet.state_dict().items():
        match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name)
        if name.startswith("mid_block.") and MIDDLE in names:
            continue
        if match:
            way, block, kind, at, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
            level = block if way == "down" else levels - 1 - block
            cut = layers[level] - fewer[level]
            last = layers[level] - 1 if way == "down" else layers[level]  # number of the last layer
            gone = range(last, last - cut, -1) if way == "down" else range(last - 1, last - 1 - cut, -1)
            if at in gone:
                continue
            at -= sum(g < at for g in gone)
            name = f"{way}_blocks.{block}.{kind}.{at}.{rest}"
        weights[name] = value
    small.load_state_dict(weights)
    return small


def _layers(unet: Any) -> list[int]:
    told = unet.config.layers_per_block
    return [told] * len(unet.config.block_out_channels) if isinstance(told, int) else list(told)


@torch.no_grad()
def measured(model: TextToImage, origin: TextToImage, batch: Pairs, seed: int = 0) -> tuple[float, float, list[Unit]]:
    """Milliseconds of a pass of ``origin`` and of ``model``, for one image, and the record of each unit of ``model``.

    Timings are interleaved; errors are against ``origin``.
    """
    draw = torch.Generator().manual_seed(seed)
    at = noisy(model, model.latents(batch.images, draw), draw)
    context = model.encode(batch.captions)
    candidates = {n: copied(model, unet=without(model.unet, [n]).to(model.place)) for n in units(model.unet)}
    timed = {"origin": origin, "now": model, **candidates}
    for one in timed.values():
        one.unet.eval()
    whole = velocity(origin, at.z, at.steps, context)
    few = slice(0, 4)
    some = Context(context.states[few], context.mask[few])
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, one in timed.items():
            times[name].append(_seconds(one, at.z[few], at.steps[few], some))
    each = {name: 1000 * float(np.median(taken)) / len(at.z[few]) for name, taken in times.items()}
    told = []
    size = sum(p.numel() for p in model.unet.parameters())
    for name, one in candidates.items():
        error = float((velocity(one, at.z, at.steps, context) - whole).pow(2).mean() / whole.pow(2).mean())
        fewer = size - sum(p.numel() for p in one.unet.parameters())
        told.append(Unit(name, each["now"] - each[name], error, fewer))
    return each["origin"], each["now"], told


def _seconds(model: TextToImage, z: Tensor, steps: Tensor, context: Context) -> float:
    _wait(z.device)
    started = time.perf_counter()
    velocity(model, z, steps, context)
    _wait(z.device)
    return time.perf_counter() - started


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def chosen(model: TextToImage, batch: Pairs, config: PruneConfig) -> tuple[list[str], list[dict[str, Any]]]:
    """Units to take out, cheapest error per saved millisecond first, measured anew after each; and the whole table."""
    removed: list[str] = []
    table: list[dict[str, Any]] = []
    now = model
    while True:
        whole, current, found = measured(now, model, batch)
        table += [{"after": "+".join(removed) or "nothing", "whole_ms": current, **asdict(u)} for u in found]
        reached = whole / current if removed else 1.0
        if reached >= config.speed:
            return removed, table
        if not found:
            raise UsageError(
                f"without {', '.join(removed)} a pass is {reached:.2f} times as fast and nothing is left to take out; "
                f"prune.speed asks for {config.speed}. Ask for less"
            )
        # What saves nothing that can be measured counts as saving a hundredth.
        best = min(found, key=lambda u: u.error / max(u.saved, current / 100))
        removed.append(best.name)
        now = copied(now, unet=without(now.unet, [best.name]).to(model.place))


def smaller(model: TextToImage, names: Sequence[str]) -> TextToImage:
    """The model without the units, taken out one after the other."""
    unet = model.unet
    for name in names:
        unet = without(unet, [name])
    return copied(model, unet=unet.to(model.place))


class Prune(Objective):
    """The small network learns from images, from the whole network's output and from the features of its blocks."""

    def __init__(
        self,
        model: TextToImage,
        teacher: TextToImage,
        config: PruneConfig,
        diffusion: DiffusionConfig,
        weights: GuidanceConfig,
    ) -> None:
        frozen(teacher)
        frozen(model)
        model.unet.requires_grad_(True)
        super().__init__({"unet": model.unet})
        self.held, self.config, self.diffusion, self.weights = [model, teacher], config, diffusion, weights

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """BK-SDM's three terms; a network that takes the guidance weight learns from its teacher alone."""
        (batch,), (model, teacher), config = batches, self.held, self.config
        at = noisy(model, model.latents(batch.images, draw), draw)
        given = drawn(len(at.z), self.weights, draw).to(at.z.device) if model.takes_weight else None
        with torch.no_grad(), features(teacher.unet) as wanted:
            context = model.encode(dropped(batch.captions, self.diffusion.drop, draw))
            output = velocity(teacher, at.z, at.steps, context, given)
        with features(model.unet) as seen:
            v = velocity(model, at.z, at.steps, context, given)
        if len(seen) < len(wanted):  # no middle block
            wanted.pop(len(teacher.unet.down_blocks))
        weight = objectives.min_snr_weight(at.snr, self.diffusion.gamma, self.diffusion.floor)
        losses = {
            "output": objectives.weighted_mse(v, output).mean(),
            "features": objectives.features_apart(seen, wanted),
        }
        loss = config.output * losses["output"] + config.features * losses["features"]
        if config.task and not model.takes_weight:
            losses["task"] = objectives.weighted_mse(v, at.v, weight).mean()
            loss = loss + config.task * losses["task"]
        return {"loss": loss, **losses}
