"""Stage ``align``: Chinese prompts for a network that knows English, which stays as it is to the bit.

After PEA-Diffusion (OPPO, arXiv 2311.17086): network and English tower are frozen; a Chinese tower and a small adapter
learn, on parallel captions, to make the frozen network do what it does for English. The loss is the error in v, the
distance to the network's output for the English caption, and the distance of the features of its blocks. Pairs without
a parallel caption keep the first term alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from ..shards import Pairs
from . import objectives
from . import text as text_side
from .base import DiffusionConfig, dropped, noisy, set_text
from .loop import Objective
from .model import Context, TextToImage, frozen, velocity


@dataclass(frozen=True)
class AlignConfig:
    """The Chinese side and the weights of the losses (PEA-Diffusion: 1, 1, 0.1 per block)."""

    tower: str = ""
    """Folder of a model of the retrieval trainer whose text tower is taken; empty: a new one, of ``text``."""
    train_tower: bool = True
    """Whether the tower learns too, beside the adapter."""
    text: dict[str, Any] = field(default_factory=dict)
    """Changes to the new tower's description (open_clip's text_cfg)."""
    hidden: int = 0
    """Width of the adapter's hidden layers; 0: twice the network's."""
    task: float = 1.0
    output: float = 1.0
    features: float = 0.1
    """Weight of the features' distance; output and features at 0 leave image-text pairs alone (the control)."""
    embedding: float = 0.1
    """Weight of the distance between the mean states of both captions: helps early, where the network's own is flat."""


def chinese(model: TextToImage, config: AlignConfig, captions: Iterable[str], seed: int = 0) -> TextToImage:
    """``model`` with the same network, a Chinese tower and an adapter."""
    torch.manual_seed(seed)
    if config.tower:
        from transformers import AutoTokenizer

        tower = text_side.TextTower.of_retrieval(Path(config.tower))
        words = AutoTokenizer.from_pretrained(config.tower, local_files_only=True)
        words.model_max_length = tower.length
    else:
        told = {**text_side.SMALL_TEXT, **config.text}
        words = text_side.tokenizer(captions, int(told["context_length"]))
        tower = text_side.TextTower({**told, "vocab_size": len(words)}, int(told["width"]))
    width = int(model.unet.config.cross_attention_dim)
    adapter = text_side.Adapter(tower.width, width, config.hidden)
    return TextToImage(model.unet, model.scheduler, tower, words, adapter, model.vae)


class Align(Objective):
    """Adapter and Chinese tower learn; the network passes gradients and keeps its weights."""

    def __init__(
        self, model: TextToImage, foundation: TextToImage, config: AlignConfig, diffusion: DiffusionConfig
    ) -> None:
        frozen(foundation)
        trained: dict[str, nn.Module] = {"adapter": model.adapter}
        if config.train_tower:
            trained["text_encoder"] = model.text_encoder
        super().__init__(trained)
        self.held, self.config, self.diffusion = [model, foundation], config, diffusion
        model.adapter.requires_grad_(True)
        set_text(model, config.train_tower)

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """The three terms of the module's docstring."""
        (batch,), (model, foundation), config = batches, self.held, self.config
        model.unet.eval()
        distil = bool(config.output or config.features or config.embedding)
        if distil and batch.parallel is None:
            raise UsageError(
                "alignment needs parallel captions: set data.parallel to the field that holds them, as caption_en"
            )
        at = noisy(model, model.latents(batch.images, draw), draw)
        kept = dropped(batch.captions, self.diffusion.drop, draw)
        context = model.encode(kept)
        with features(model.unet) as seen:
            v = velocity(model, at.z, at.steps, context)
        weight = objectives.min_snr_weight(at.snr, self.diffusion.gamma, self.diffusion.floor)
        losses = {"task": objectives.weighted_mse(v, at.v, weight).mean()}
        loss = config.task * losses["task"]
        english = ["" if not k else p for k, p in zip(kept, batch.parallel or [""] * len(kept), strict=True)]
        known = torch.tensor([bool(p) or not k for k, p in zip(kept, english, strict=True)], device=at.z.device)
        if distil and bool(known.any()):
            with torch.no_grad():
                told = foundation.encode(english)
                with features(foundation.unet) as wanted:
                    v_english = velocity(foundation, at.z, at.steps, told)
            losses["output"] = (objectives.weighted_mse(v, v_english) * known).sum() / known.sum()
            losses["features"] = objectives.features_apart([f[known] for f in seen], [f[known] for f in wanted])
            losses["embedding"] = objectives.features_apart([_mean(context)[known]], [_mean(told)[known]])
            for name in ("output", "features", "embedding"):
                loss = loss + getattr(config, name) * losses[name]
        return {"loss": loss, **losses}


def _mean(context: Context) -> Tensor:
    mask = context.mask[..., None].to(context.states.dtype)
    return (context.states * mask).sum(1) / mask.sum(1).clamp(min=1)


@contextmanager
def features(unet: nn.Module) -> Iterator[list[Tensor]]:
    """What the network's blocks put out within it, in order: down, mid, up."""
    network: Any = unet
    blocks = [*network.down_blocks, *([network.mid_block] if network.mid_block is not None else []), *network.up_blocks]
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    hooks = [b.register_forward_hook(keep) for b in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
