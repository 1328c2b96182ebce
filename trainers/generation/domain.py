"""Stage ``domain``: a new domain without losing the old one.

The default is LoRA with replay and learning without forgetting: each batch of the domain comes with old samples from
their shards, on which the network learns from the image and must also keep the output it had. Shards make replay
cheap, and the old output is a target without the noise of the image's own (docs/generation.md has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...pipeline.errors import UsageError
from .. import lora
from ..shards import Pairs
from . import objectives
from .base import DiffusionConfig, Noisy, dropped, noisy, set_text
from .loop import Objective
from .model import Context, TextToImage, copied, frozen, velocity


@dataclass(frozen=True)
class DomainConfig:
    """How the model is tuned and what holds it."""

    lora: lora.LoraConfig | None = field(default_factory=lora.LoraConfig)
    """None tunes the weights themselves (fine-tuning)."""
    old: tuple[str, ...] = ()
    """Shards of what must not be forgotten."""
    replay: float = 0.5
    """Share of each batch that is taken from the old shards, images and captions; 0: no replay."""
    keep: float = 1.0
    """Weight of learning without forgetting: old prompts must give the outputs they gave. Without replay the old
    prompts are laid over images of the domain."""
    wrong: float = 0.0
    """Weight of the hard negatives that the shards carry: a wrong caption must explain its image worse."""
    margin: float = 0.1
    """By how much, as a share of the right caption's error."""


class Domain(Objective):
    """The network and its text side learn the domain's pairs; a second stream of batches brings old ones."""

    def __init__(self, model: TextToImage, config: DomainConfig, diffusion: DiffusionConfig, seed: int = 0) -> None:
        if (config.replay or config.keep) and not config.old:
            raise UsageError(
                "replay and keep need domain.old, shards of what must not be forgotten (set both to 0 to do without)"
            )
        parts = {n: m for n, m in model.modules_named().items() if n != "vae"}
        super().__init__(parts)
        self.config, self.diffusion = config, diffusion
        if config.lora is None:
            self.held = [model, frozen(copied(model))] if config.keep else [model]
            for part in parts.values():
                part.requires_grad_(True)
            set_text(model, True)
        else:
            adapted = [p for p in parts.values() if lora.fits(p, config.lora)] or list(parts.values())
            for i, part in enumerate(parts.values()):
                part.requires_grad_(False)
                if part in adapted:
                    lora.attach(part, config.lora, seed + i)
            self.held = [model]

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """The domain's error, the old samples' error, and what is kept of the old outputs."""
        model, config = self.held[0], self.config
        new, old = batches[0], batches[1] if len(batches) > 1 else None
        at = noisy(model, model.latents(new.images, draw), draw)
        weight = objectives.min_snr_weight(at.snr, self.diffusion.gamma, self.diffusion.floor)
        captions = dropped(new.captions, self.diffusion.drop, draw)
        error = objectives.weighted_mse(velocity(model, at.z, at.steps, model.encode(captions)), at.v)
        losses = {"task": (error * weight).mean()}
        loss = losses["task"]
        if config.wrong and new.negatives is not None:
            losses["wrong"] = self._wrong(at, error, captions, new.negatives)
            loss = loss + config.wrong * losses["wrong"]
        if old is None:
            return {"loss": loss, **losses}
        before = noisy(model, model.latents(old.images if config.replay else new.images, draw), draw)
        prompts = dropped(
            (old.captions * -(-len(before.z) // len(old.captions)))[: len(before.z)], self.diffusion.drop, draw
        )
        v = velocity(model, before.z, before.steps, model.encode(prompts))
        weight = objectives.min_snr_weight(before.snr, self.diffusion.gamma, self.diffusion.floor)
        if config.replay:
            losses["replay"] = objectives.weighted_mse(v, before.v, weight).mean()
            loss = loss + losses["replay"]
        if config.keep:
            frozen_model = self.held[-1]
            with torch.no_grad(), nullcontext() if config.lora is None else lora.switched_off(*self.trained.values()):
                was = velocity(frozen_model, before.z, before.steps, frozen_model.encode(prompts))
            losses["keep"] = objectives.weighted_mse(v, was, weight).mean()
            loss = loss + config.keep * losses["keep"]
        return {"loss": loss, **losses}

    def _wrong(self, at: Noisy, right: Tensor, captions: list[str], negatives: list[list[str]]) -> Tensor:
        """The hinge over pairs that have a negative and a caption."""
        rows = [i for i, some in enumerate(negatives) if some and captions[i]]
        if not rows:
            return right.sum() * 0
        model = self.held[0]
        context: Context = model.encode([negatives[i][0] for i in rows])
        error = objectives.weighted_mse(velocity(model, at.z[rows], at.steps[rows], context), at.v[rows])
        return objectives.wrong_caption(right[rows], error, self.config.margin)

    def finish(self) -> None:
        """Put the adapters into the weights."""
        if self.config.lora is not None:
            for part in self.trained.values():
                lora.merge(part)
