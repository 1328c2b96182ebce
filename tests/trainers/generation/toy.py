"""An objective of one linear layer, and, run as a module under torchrun's variables, one rank that trains it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tuwen.trainers import distributed
from tuwen.trainers.generation.loop import Loop, Objective, TrainConfig
from tuwen.trainers.stream import Pairs


class Mean(Objective):
    """The mean square of a linear layer's outputs; draws nothing, so that parts and ranks can be compared."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__({"line": nn.Linear(48, 3)})

    def forward(self, batches: Sequence[Pairs], draw: torch.Generator) -> dict[str, Tensor]:
        images = torch.cat([b.images for b in batches]).float().flatten(1) / 255
        return {"loss": self.trained["line"](images).pow(2).mean()}


def gradient(place: distributed.World, micro_batch: int, streams: int = 1) -> Tensor:
    """The gradient of this rank's share of eight images from each of ``streams``; all parameters."""
    n = 8 // place.ranks
    own = slice(place.rank * n, (place.rank + 1) * n)
    draw = torch.Generator().manual_seed(0)
    batches = [
        Pairs(torch.randint(256, (8, 3, 4, 4), generator=draw).to(torch.uint8)[own], ["图"] * n) for _ in range(streams)
    ]
    loop = Loop(Mean(), TrainConfig(micro_batch=micro_batch), place)
    loop.backward(batches)
    return torch.cat([p.grad.flatten() for p in loop.stream.parameters() if p.grad is not None])


if __name__ == "__main__":
    place = distributed.start("cpu")
    found = torch.stack([gradient(place, 0), gradient(place, 3), gradient(place, 3, 2)])
    if place.first:
        torch.save(found, Path(sys.argv[1]))
    distributed.stop()
