"""Several processes as one batch: what is gathered, and how gradients find their way back.

Under torchrun each rank holds n rows; the loss of a rank holds its rows against the m = ranks * n rows of all. The
mean of the ranks' losses is the loss of the large batch, and DDP's mean over ranks gives its gradient, if the gradient
with respect to a gathered row is the sum over all ranks that used it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class World(NamedTuple):
    """Which process this is."""

    rank: int = 0
    ranks: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


ALONE = World()
"""One process, on the CPU."""


def start(device: str = "auto") -> World:
    """The world that torchrun tells of in its environment; one process without it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    chosen = torch.device(device)
    if ranks == 1:
        return World(device=chosen)
    if not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return World(dist.get_rank(), ranks, chosen)


def stop() -> None:
    """Leave the group of processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All ranks' rows, one after the other; backward sums over ranks and takes this rank's part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        begin = dist.get_rank() * ctx.rows
        return whole[begin : begin + ctx.rows]


def gather(rows: Tensor) -> Tensor:
    """(n, …) of each rank -> (m, …) of all, with gradients; the rows themselves where there is one process."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    out: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return out


def total(value: Tensor) -> Tensor:
    """The sum over ranks, without gradients."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value.detach()
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every rank the mean of all ranks' gradients: for losses that are not made by one wrapped ``forward``."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    held = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in held])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(held, flat.split([g.numel() for g in held]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def gather_objects(value: Any) -> list[Any]:
    """Each rank's value, on all ranks; they may differ in size."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [value]
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, value)
    return told
