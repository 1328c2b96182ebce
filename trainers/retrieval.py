"""Trains a dual-stream image-text model; with a decoder (CoCa) it learns to caption as well.

``fit`` knows nothing of where pairs come from: it takes batches of images and captions, so that the sample world,
shards and tests go through the same code. The steps are made by ``loop``.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..pipeline.errors import InputError
from . import checkpoints
from .distributed import ALONE, World, gather_objects, total
from .journal import Journal
from .loop import Loop
from .stream import Pairs

Batch = Pairs | tuple[Tensor, list[str]]
"""Images (n, 3, h, w), uint8, and one caption for each; ``Pairs`` may say more."""


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
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: str = "fp32"
    """fp32, bf16 or fp16 (with a scaled loss); losses are computed in single precision always."""
    micro_batch: int = 0
    """Pairs encoded at once, per rank; 0: the whole batch. The gradient is that of the whole batch either way."""
    checkpointing: bool = False
    """Keep no activations within the towers and compute them again: less memory, about a third more work."""
    negatives: int = 1
    """Hard negatives of each pair in the loss, where batches bring any."""
    tasks: tuple[str, ...] = ()
    """Tasks of one modality beside the contrastive one: mlm (masked words), simclr (two views of an image)."""
    mlm_weight: float = 1.0
    mlm_share: float = 0.15
    """Share of the words that are masked (BERT)."""
    simclr_weight: float = 1.0
    simclr_temperature: float = 0.1
    """Temperature between views (SLIP)."""
    momentum: bool = False
    """Momentum distillation; the next four are ALBEF's published settings."""
    momentum_decay: float = 0.995
    momentum_alpha: float = 0.4
    momentum_ramp: float = 1 / 30
    """Share of the steps over which alpha rises from 0 (the first of ALBEF's 30 epochs)."""
    queue: int = 65536
    """Pairs in the momentum queue. 0: the targets alone come from the slow copy, and rows are held against the batch's
    own, which carry gradients; with few steps that learns faster."""
    checkpoint_every: int = 1000
    """Steps between checkpoints, where they are kept at all."""


def caption_group(caption: str) -> int:
    """A 63-bit id that is equal for captions equal after NFKC, case and space folding."""
    folded = "".join(unicodedata.normalize("NFKC", caption).casefold().split())
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "big") >> 1


def normalise(images: Tensor, config: RetrievalConfig) -> Tensor:
    """uint8 (n, 3, h, w) to floats with the model's mean and deviation, on the same device."""
    mean = torch.tensor(config.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(config.std, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


def fit(
    model: nn.Module,
    tokenize: Callable[[Sequence[str]], Tensor],
    batches: Iterable[Batch],
    config: RetrievalConfig,
    log: Path | None = None,
    *,
    world: World = ALONE,
    folder: Path | None = None,
    resume: Path | None = None,
    board: Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
    described: Mapping[str, Any] | None = None,
    make: type[Loop] = Loop,
) -> list[dict[str, Any]]:
    """Train ``model`` in place until ``config.steps`` steps are done; returns one record per interval.

    AdamW with a linear warm-up and a cosine to zero; the temperature is learned and clamped at 100 as in CLIP.
    Records also go to ``log`` (JSON lines), ``board`` (TensorBoard) and ``tell``. Checkpoints go to ``folder``;
    ``resume`` is one to go on from, with ``batches`` that begin where it left off. Under torchrun every rank calls
    this with its ``world`` and its own batches. ``described`` are the settings that a checkpoint keeps, where they are
    more than ``config``; ``make`` is a loop with a loss of its own.
    """
    loop = make(model, tokenize, config, world)
    if resume is not None:
        checkpoints.load(loop, resume)
    # Of each worker of this rank, the samples that it has taken.
    positions = dict(enumerate(checkpoints.describe(resume)["positions"][world.rank])) if resume else {}
    journal = Journal(log if world.first else None, loop.done, board if world.first else None)
    stream = iter(batches)
    started = interval = time.perf_counter()
    since, passed, unusable = loop.done, 0.0, 0
    while loop.done < config.steps:
        waited = time.perf_counter()
        given = next(stream, None)
        if given is None:
            raise InputError(f"the batches ended after {loop.done} steps; {config.steps} were asked for")
        passed += time.perf_counter() - waited
        batch = Pairs(*given)
        positions[batch.position[0]] = batch.position[1]
        unusable += batch.unusable
        step = loop.done
        losses = loop.step(batch)
        last = loop.done == config.steps
        if step % config.log_every == 0 or last:
            now = time.perf_counter()
            pairs = len(batch.captions) * world.ranks * (loop.done - since)
            record: dict[str, Any] = {"step": step, "seconds": round(now - started, 1)}
            record |= {k: round(float(total(v)) / world.ranks, 5) for k, v in losses.items()}
            record["rate"] = loop.optimiser.param_groups[0]["lr"]
            record["scale"] = round(float(model.logit_scale.detach().exp()), 3)  # type: ignore[operator]
            record["pairs_per_second"] = round(pairs / max(1e-9, now - interval), 1)
            record["waiting"] = round(passed / max(1e-9, now - started), 3)
            if unusable:
                record["unusable"] = unusable
            journal.write(record)
            if tell and world.first:
                tell(record)
            interval, since = now, loop.done
        if folder is not None and (last or loop.done % config.checkpoint_every == 0):
            everyone = gather_objects([positions[i] for i in sorted(positions)])
            if world.first:
                checkpoints.save(loop, folder, everyone, dict(described or settings(config)))
    journal.close()
    return journal.records


def settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings as plain values, for the record that goes beside a checkpoint."""
    return asdict(config)
