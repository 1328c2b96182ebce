"""A dual-stream model of two layers, and, run as a module under torchrun's variables, one rank that trains it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuwen.trainers import distributed
from tuwen.trainers.edge.student import DistilConfig, Teacher, student_losses
from tuwen.trainers.loop import Loop
from tuwen.trainers.retrieval import RetrievalConfig, caption_group
from tuwen.trainers.stream import Pairs

CAPTIONS = ["红猫", "红猫", "蓝狗", "绿鸟", "红猫", "黄鱼", "蓝狗", "白兔"]


class Toy(nn.Module):
    """One linear layer for images of 4 pixels' side and one bag of characters for captions."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.text = nn.Linear(48, 6), nn.EmbeddingBag(64, 6)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        rows: Tensor = self.visual(images.flatten(1))
        return F.normalize(rows, dim=-1) if normalize else rows

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        rows: Tensor = self.text(tokens)
        return F.normalize(rows, dim=-1) if normalize else rows

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_image(images, True), self.encode_text(tokens, True), self.logit_scale.exp()


def tokenize(captions: Sequence[str]) -> Tensor:
    return torch.tensor([[ord(c) % 64 for c in (caption + "空空")[:2]] for caption in captions])


def gradient(place: distributed.World, momentum: bool) -> Tensor:
    """The gradient of this rank's share of eight pairs with hard negatives, in parts of three; all parameters."""
    torch.manual_seed(0)
    images = torch.randint(256, (8, 3, 4, 4)).to(torch.uint8)
    n = 8 // place.ranks
    own = slice(place.rank * n, (place.rank + 1) * n)
    negatives = [["蓝猫"], [], ["红猫"], ["白鸟"], [], [], ["黑狗"], []]
    batch = Pairs(images[own], CAPTIONS[own], negatives[own])
    config = RetrievalConfig(micro_batch=3, momentum=momentum, queue=12, momentum_ramp=0.0, steps=2)
    loop = Loop(Toy(), tokenize, config, place)
    loop.backward(batch)
    loop.done = 1
    loop.backward(batch)
    return torch.cat([p.grad.flatten() for p in loop.stream.parameters() if p.grad is not None])


def student_gradient(place: distributed.World) -> Tensor:
    """The gradient of this rank's share of eight pairs for a student of another toy; all parameters."""
    torch.manual_seed(0)
    pixels, ids = torch.randn(8, 3, 4, 4), tokenize(CAPTIONS)
    model, groups = Toy(), torch.tensor([caption_group(c) for c in CAPTIONS])
    n = 8 // place.ranks
    own = slice(place.rank * n, (place.rank + 1) * n)
    config = DistilConfig(pairs=0.5)
    targets = Teacher(Toy(), place)(pixels[own], ids[own])
    student_losses(model, pixels[own], ids[own], groups[own], targets, config)["loss"].backward()
    distributed.average_gradients(model.parameters())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


if __name__ == "__main__":
    place = distributed.start("cpu")
    found = [gradient(place, False), gradient(place, True), student_gradient(place)]
    counts = distributed.gather_objects([place.rank] * (place.rank + 1))
    if place.first:
        torch.save((found, counts), Path(sys.argv[1]))
    distributed.stop()
