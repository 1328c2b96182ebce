"""The yardstick of dataset value: one small dual-stream model, the same for every arm.

What it scores is of no interest by itself; only the differences between arms are. So it is as small as it can be
while pairs still teach it something: 32 pixels, characters, under a million parameters, a fraction of a second a
step on one core.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32
"""Pixels of the images that the model sees."""
LENGTH = 36
"""Characters of a caption that the model sees."""
CHARACTERS = 2000
"""Most characters of the vocabulary; rarer ones share one row."""
PAD, UNKNOWN = 0, 1


class Characters:
    """Captions to character ids (n, at most ``LENGTH``), padded with ``PAD`` to the longest of the batch."""

    def __init__(self, captions: Iterable[str]) -> None:
        counts = Counter("".join(captions))
        common = sorted(counts, key=lambda c: (-counts[c], c))[:CHARACTERS]
        self.ids = {c: i + 2 for i, c in enumerate(common)}

    def __len__(self) -> int:
        return len(self.ids) + 2

    def __call__(self, captions: Sequence[str]) -> Tensor:
        rows = [[self.ids.get(c, UNKNOWN) for c in words[:LENGTH]] or [UNKNOWN] for words in captions]
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


class Pictures(nn.Module):
    """A plain convolutional tower over blocks of 4 x 4 pixels: (n, 3, 32, 32) to (n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(4)]  # (n, 48, 8, 8)
        for before, after, stride in ((48, 64, 1), (64, 128, 2), (128, 128, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.GELU()]
        self.layers = nn.Sequential(*layers)  # (n, 128, 4, 4)
        self.out = nn.Linear(128 * (SIDE // 8) ** 2, width)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.out(self.layers(images).flatten(1))
        return found


class Words(nn.Module):
    """A transformer of one layer over characters: (n, l) ids to (n, width), the mean over what is no padding."""

    def __init__(self, characters: int, width: int, hidden: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.rows = nn.Embedding(characters, hidden, padding_idx=PAD)
        self.places = nn.Parameter(torch.randn(LENGTH, hidden) * 0.02)
        # No dropout: equal captions must have equal embeddings (see losses.contrastive).
        layer = nn.TransformerEncoderLayer(hidden, 4, 3 * hidden, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == PAD  # (n, l)
        seen = self.layers(self.rows(tokens) + self.places[: tokens.shape[1]], src_key_padding_mask=padding)
        there = (~padding).unsqueeze(2).float()
        found: Tensor = self.out((seen * there).sum(1) / there.sum(1))
        return found


class Yardstick(nn.Module):
    """Two towers into one space of ``width`` dimensions, with a learned temperature; what ``fit`` trains."""

    def __init__(self, characters: int, width: int = 128) -> None:
        super().__init__()
        self.pictures, self.words = Pictures(width), Words(characters, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit rows (n, width)."""
        return F.normalize(self.pictures(images), dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit rows (n, width)."""
        return F.normalize(self.words(tokens), dim=1)

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Any]:
        return {
            "image_features": self.encode_image(images),
            "text_features": self.encode_text(tokens),
            "logit_scale": self.logit_scale.exp(),
        }
