"""The training loop of every stage: an objective, batches, AdamW, a slow copy (EMA), checkpoints, a journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import InputError, UsageError
from .. import checkpoints
from ..distributed import ALONE, World, gather_objects, total
from ..dual_stream import generator
from ..journal import Journal
from ..loop import DTYPES, rate
from ..stream import Pairs

Batches = Sequence[Iterable[Pairs]]
"""One stream, or several that are read side by side: the new domain, and what is replayed."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one stage's training."""

    steps: int = 2000
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    seed: int = 0
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.995
    """Decay of the slow copy that is kept as the result; it follows faster at first. 0 keeps the weights themselves."""
    micro_batch: int = 0
    """Pairs taken at once, per rank; 0: the whole batch. Gradients are added up, so the step is the same."""
    precision: str = "fp32"
    """fp32, bf16 or fp16 (with a scaled loss); losses are computed in single precision always."""
    checkpointing: bool = False
    """Compute the network's activations again instead of keeping them."""
    log_every: int = 50
    checkpoint_every: int = 1000


class Objective(nn.Module):
    """What a stage trains (``trained``, by name) and the losses of a batch; other networks are held, not registered."""

    def __init__(self, trained: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(dict(trained))

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        """Losses by name; ``loss`` is what is minimised, a mean over pairs."""
        raise NotImplementedError


class Loop:
    """An objective in training; has what ``checkpoints`` keeps of any loop."""

    def __init__(self, objective: Objective, config: TrainConfig, world: World = ALONE) -> None:
        if config.precision not in DTYPES:
            raise UsageError(f"precision {config.precision!r} is not known; expected one of {', '.join(DTYPES)}")
        self.config, self.world, self.done = config, world, 0
        self.stream: nn.Module = objective.trained.to(world.device)
        trained = [(n, p) for n, p in self.stream.named_parameters() if p.requires_grad]
        if not trained:
            raise UsageError("nothing is left to train: all parameters are frozen")
        self.names = [n for n, _ in trained]
        groups = [
            {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.99))
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self.teacher: nn.Module | None = _Slow(self.stream) if config.ema else None
        self.wrapped: nn.Module = objective
        if world.ranks > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(objective, device_ids=ids, broadcast_buffers=False)
        objective.train()

    def step(self, batches: Sequence[Pairs]) -> dict[str, Tensor]:
        """One batch of each stream; its losses by name, detached."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate(self.done, self.config)
        losses = self.backward(batches)
        self.scaler.unscale_(self.optimiser)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        losses["gradient"] = nn.utils.clip_grad_norm_(parameters, self.config.clip).detach()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.done += 1
        if isinstance(self.teacher, _Slow):
            self.teacher.follow(self.stream, min(self.config.ema, self.done / (self.done + 9)))
        return losses

    def backward(self, batches: Sequence[Pairs]) -> dict[str, Tensor]:
        """Gradients in the parameters' ``grad``; the losses, averaged over the parts of the batch."""
        self.optimiser.zero_grad(set_to_none=True)
        pieces = max(1, -(-len(batches[0].captions) // (self.config.micro_batch or len(batches[0].captions))))
        told: dict[str, Tensor] = {}
        whole = sum(len(b.captions) for b in batches)
        for i in range(pieces):
            part = [_piece(b, i, pieces) for b in batches]
            share = sum(len(b.captions) for b in part) / whole
            draw = generator(self.config.seed, self.done, self.world.rank, i)
            waits = self.world.ranks > 1 and i < pieces - 1
            with self.wrapped.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with torch.autocast(
                    self.world.device.type, DTYPES[self.config.precision], enabled=self.config.precision != "fp32"
                ):
                    losses = self.wrapped(part, draw)
                self.scaler.scale(losses["loss"] * share).backward()
            for name, value in losses.items():
                told[name] = told.get(name, 0) + value.detach() * share
        return told


class _Slow(nn.Module):
    """A copy that follows: what is trained keeps its name, what is frozen is left out."""

    def __init__(self, stream: nn.Module) -> None:
        super().__init__()
        for name, value in _trained(stream):
            self.register_buffer(name.replace(".", "/"), value.detach().clone())

    @torch.no_grad()
    def follow(self, stream: nn.Module, decay: float) -> None:
        for name, value in _trained(stream):
            self.get_buffer(name.replace(".", "/")).lerp_(value.detach(), 1 - decay)

    @torch.no_grad()
    def into(self, stream: nn.Module) -> None:
        for name, value in _trained(stream):
            value.copy_(self.get_buffer(name.replace(".", "/")))


def _trained(stream: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in stream.named_parameters() if p.requires_grad]


def _piece(batch: Pairs, i: int, pieces: int) -> Pairs:
    """The ``i``-th of ``pieces`` parts of a batch, in nearly equal numbers."""
    if pieces == 1:
        return batch
    n = len(batch.captions)
    own = slice(i * n // pieces, (i + 1) * n // pieces)
    return Pairs(
        batch.images[own],
        batch.captions[own],
        batch.negatives[own] if batch.negatives is not None else None,
        parallel=batch.parallel[own] if batch.parallel is not None else None,
    )


def fit(
    objective: Objective,
    streams: Batches,
    config: TrainConfig,
    log: Path | None = None,
    *,
    world: World = ALONE,
    folder: Path | None = None,
    resume: Path | None = None,
    board: Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
    described: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train until ``config.steps`` steps are done; the trained modules then hold the slow copy's weights.

    One record per interval, also in ``log``, ``board`` and ``tell``; checkpoints and ``resume`` as ``retrieval.fit``.
    """
    loop = Loop(objective, config, world)
    positions: list[dict[int, int]] = [{} for _ in streams]
    if resume is not None:
        checkpoints.load(loop, resume)
        for held, before in zip(positions, checkpoints.describe(resume)["positions"][world.rank], strict=True):
            held.update(enumerate(before))
    journal = Journal(log if world.first else None, loop.done, board if world.first else None)
    readers = [iter(s) for s in streams]
    started = interval = time.perf_counter()
    since = loop.done
    while loop.done < config.steps:
        batches = []
        for reader, held in zip(readers, positions, strict=True):
            batch = next(reader, None)
            if batch is None:
                raise InputError(f"the batches ended after {loop.done} steps; {config.steps} were asked for")
            held[batch.position[0]] = batch.position[1]
            batches.append(batch)
        step = loop.done
        losses = loop.step(batches)
        last = loop.done == config.steps
        if step % config.log_every == 0 or last:
            now = time.perf_counter()
            images = sum(len(b.captions) for b in batches) * world.ranks * (loop.done - since)
            record: dict[str, Any] = {"step": step, "seconds": round(now - started, 1)}
            record |= {k: round(float(total(v)) / world.ranks, 5) for k, v in losses.items()}
            record["rate"] = loop.optimiser.param_groups[0]["lr"]
            record["images_per_second"] = round(images / max(1e-9, now - interval), 1)
            journal.write(record)
            if tell and world.first:
                tell(record)
            interval, since = now, loop.done
        if folder is not None and (last or loop.done % config.checkpoint_every == 0):
            everyone = gather_objects([[held[i] for i in sorted(held)] for held in positions])
            if world.first:
                checkpoints.save(loop, folder, everyone, dict(described or {}))
    journal.close()
    if isinstance(loop.teacher, _Slow):
        loop.teacher.into(loop.stream)
    objective.eval()
    return journal.records
