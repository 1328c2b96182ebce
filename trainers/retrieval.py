"""Trains a dual-stream image-text model; with a decoder (CoCa) it learns to caption as well.

The loop knows nothing of where pairs come from: it takes batches of images and captions, so that
the sample world, shards and tests go through the same code.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .losses import captioning, contrastive, threshold_loss

Batch = tuple[Tensor, list[str]]
"""Images (n, 3, h, w), uint8, and one caption for each."""


@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of one training run."""

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    seed: int = 0
    threshold: float = 0.3
    """The cosine at which the score should separate (the article's threshold)."""
    threshold_weight: float = 1.0
    threshold_sharpness: float = 10.0
    caption_weight: float = 1.0
    """Weight of the captioning loss; only models with a decoder have one."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    log_every: int = 50


def caption_group(caption: str) -> int:
    """A 63-bit id that is equal for captions equal after NFKC, case and space folding."""
    folded = "".join(unicodedata.normalize("NFKC", caption).casefold().split())
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "big") >> 1


def normalise(images: Tensor, config: RetrievalConfig) -> Tensor:
    """uint8 (n, 3, h, w) to floats with the model's mean and deviation."""
    mean = torch.tensor(config.mean).view(1, 3, 1, 1)
    std = torch.tensor(config.std).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


def step_losses(
    model: nn.Module, images: Tensor, tokens: Tensor, groups: Tensor, config: RetrievalConfig
) -> dict[str, Tensor]:
    """All losses of one batch by name; their weighted sum is ``loss``."""
    out = model(images, tokens)
    image, text, scale = out["image_features"], out["text_features"], out["logit_scale"]
    losses = {"contrastive": contrastive(image, text, scale, groups)}
    total = losses["contrastive"]
    if config.threshold_weight:
        losses["threshold"] = threshold_loss(image, text, groups, config.threshold, config.threshold_sharpness)
        total = total + config.threshold_weight * losses["threshold"]
    if config.caption_weight and "logits" in out:
        losses["caption"] = captioning(out["logits"], out["labels"], pad=0)
        total = total + config.caption_weight * losses["caption"]
    return {"loss": total, **losses}


def fit(
    model: nn.Module,
    tokenize: Callable[[Sequence[str]], Tensor],
    batches: Iterator[Batch],
    config: RetrievalConfig,
    log: Path | None = None,
) -> list[dict[str, Any]]:
    """Train ``model`` in place for ``config.steps`` batches; returns (and writes to ``log``) one record per interval.

    AdamW with a linear warm-up and a cosine to zero; the temperature is learned and clamped at 100 as in CLIP.
    """
    torch.manual_seed(config.seed)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: _rate(s, config))
    model.train()
    records: list[dict[str, Any]] = []
    handle = log.open("w", encoding="utf-8") if log else None
    started = time.perf_counter()
    for step, (images, captions) in enumerate(batches):
        if step == config.steps:
            break
        ids = torch.tensor([caption_group(c) for c in captions])
        losses = step_losses(model, normalise(images, config), tokenize(captions), ids, config)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        if step % config.log_every == 0 or step == config.steps - 1:
            record = {"step": step, "seconds": round(time.perf_counter() - started, 1)}
            record |= {k: round(float(v.detach()), 5) for k, v in losses.items()}
            records.append(record)
            if handle:
                handle.write(json.dumps(record) + "\n")
                handle.flush()
    if handle:
        handle.close()
    return records


def _rate(step: int, config: RetrievalConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings as plain values, for the record that goes beside a checkpoint."""
    return asdict(config)
