"""An objective of one linear layer, and, run as a module under torchrun's variables, one rank.

The rank trains that layer and then a stage: ROOT/new on ROOT/base, with ROOT/old to keep.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tuwen.trainers import distributed
from tuwen.trainers.generation import train
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


def tuned(root: Path) -> None:
    """The stage domain of ROOT/new, from ROOT/base."""
    train.train([str(root / "new")], root / "tuned", "domain", str(root / "base"), None, sets(root), "cpu")


def sets(root: Path) -> list[str]:
    """Settings of a network of a few thousand parameters, and of three steps."""
    return [
        "model.unet={sample_size: 4, block_out_channels: [8, 16], norm_num_groups: 4, cross_attention_dim: 16}",
        "model.text={width: 16, heads: 2}", "data.batch=8", "data.shuffle=8", "train.steps=3", "train.warmup=1",
        f"data.more_captions=[{root}/new]", f"domain.old=[{root}/old]",
    ]  # fmt: skip


if __name__ == "__main__":
    root, place = Path(sys.argv[1]), distributed.start("cpu")
    found = torch.stack([gradient(place, 0), gradient(place, 3), gradient(place, 3, 2)])
    if place.first:
        torch.save(found, root / "found.pt")
    distributed.stop()
    tuned(root)
