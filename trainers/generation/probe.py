"""The judge of what was drawn: a small network trained on real samples to tell their attributes.

Its classes are what the samples' JSON says under ``truth`` ({"colour": "红色", "count": 2, ...}). Its accuracy on real
samples is the ceiling of every figure that it gives; its features are one of the two spaces of the Fréchet distance.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...pipeline.errors import InputError

Truth = dict[str, Any]
WEIGHTS, TOLD = "probe.safetensors", "probe.json"
WIDTH = 32
"""Of its features: few, so that a covariance can be had from a few hundred images."""
STEPS, BATCH, RATE = 500, 64, 2e-3


class Probe(nn.Module):
    """Three convolutions over images of ``side`` pixels, features, and a linear choice for each attribute."""

    def __init__(self, classes: dict[str, list[str]], side: int) -> None:
        super().__init__()
        self.classes, self.side = classes, side
        last = max(1, side // 8)
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.SiLU(),
            nn.Conv2d(24, 48, 4, 2, 1), nn.GroupNorm(8, 48), nn.SiLU(),
            nn.Conv2d(48, 64, 4, 2, 1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Conv2d(64, 64, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * last * last, WIDTH),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(names)) for name, names in classes.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (n, 3, side, side) in [0, 1] to features (n, WIDTH) and logits by attribute."""
        rows = self.body(images * 2 - 1)
        return rows, {name: head(F.silu(rows)) for name, head in self.heads.items()}

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[NDArray[np.float64], dict[str, list[str]]]:
        """Features and the class of each attribute; images of another size are resized."""
        self.eval()
        parts = [self(self.sized(some)) for some in images.split(256)]
        rows = torch.cat([p[0] for p in parts]).double().numpy()
        chosen = {n: torch.cat([p[1][n] for p in parts]).argmax(1).tolist() for n in self.classes}
        return rows, {n: [self.classes[n][i] for i in numbers] for n, numbers in chosen.items()}

    def sized(self, images: Tensor) -> Tensor:
        """At the probe's own size."""
        size = (self.side, self.side)
        return images if tuple(images.shape[-2:]) == size else F.interpolate(images, size, mode="area")

    def right(self, images: Tensor, truths: Sequence[Truth]) -> dict[str, NDArray[np.float64]]:
        """For each attribute (n,) 1 where the image shows what its prompt asked for; ``all`` where every one does."""
        _, seen = self.look(images)
        told = {
            n: np.array([float(s == str(t[n])) for s, t in zip(seen[n], truths, strict=True)])
            for n in self.classes
            if all(n in t for t in truths)
        }
        return told | {"all": np.prod(list(told.values()), axis=0)}

    def save(self, folder: Path) -> None:
        """Write weights and classes."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        (folder / TOLD).write_text(json.dumps({"classes": self.classes, "side": self.side}, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """What ``save`` wrote."""
        from safetensors.torch import load_file

        try:
            told = json.loads((folder / TOLD).read_text("utf-8"))
            made = cls(told["classes"], told["side"])
            made.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{folder} holds no probe ({str(error).splitlines()[0]})") from None
        return made.eval()


def trained(images: Tensor, truths: Sequence[Truth], seed: int = 0, steps: int = STEPS) -> Probe:
    """A probe of uint8 images (n, 3, side, side) and what they show."""
    names = [n for n in truths[0] if all(n in t for t in truths)] if truths else []
    classes = {n: sorted({str(t[n]) for t in truths}) for n in names}
    classes = {n: c for n, c in classes.items() if len(c) > 1}
    if not classes:
        raise InputError(
            "the samples' JSON has no truth with attributes that differ, so no probe can be trained on them"
        )
    torch.manual_seed(seed)
    probe = Probe(classes, int(images.shape[-1]))
    labels = {n: torch.tensor([c.index(str(t[n])) for t in truths]) for n, c in classes.items()}
    optimiser = torch.optim.AdamW(probe.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(images), (min(BATCH, len(images)),), generator=draw)
        _, logits = probe(images[rows].float() / 255)
        loss = torch.stack([F.cross_entropy(logits[n], labels[n][rows]) for n in classes]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return probe.eval()
