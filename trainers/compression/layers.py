"""Layers that a compression can decide about: int8 or not, and norms that see the channels that stay only.

An int8 layer computes as its exported form will: inputs rounded to unsigned 8-bit integers with one scale, weights to
signed ones with a scale for each output channel, gradients passed straight through (Jacob et al. 2018,
arXiv 1712.05877). A factor per output channel, such as the batch norm that the export folds into the weights, changes
only the scales.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .instructions import WEIGHT_LIMIT

RANGE_MOMENTUM = 0.05


class Quantisable(nn.Module):
    """What ``Conv`` and ``Dense`` share: whether int8 is on, and the range of the inputs seen."""

    int8: bool
    low: Tensor
    high: Tensor

    def _prepare(self) -> None:
        self.int8 = False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def rounded(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and weights as int8 has them."""
        known = bool(self.high > self.low)
        if self.training or not known:
            low, high = x.detach().min().clamp(max=0), x.detach().max().clamp(min=0)
            share = RANGE_MOMENTUM if known else 1.0
            self.low.lerp_(low, share)
            self.high.lerp_(high, share)
        scale = ((self.high - self.low) / 255).clamp(min=1e-8)
        zero = (-self.low / scale).round().clamp(0, 255).to(torch.int32)
        x = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
        each = (weight.detach().flatten(1).abs().amax(1) / WEIGHT_LIMIT).clamp(min=1e-8)
        none = torch.zeros(len(each), dtype=torch.int32)
        return x, torch.fake_quantize_per_channel_affine(weight, each, none, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)


class Conv(nn.Conv2d, Quantisable):
    """A convolution, in int8 where ``int8`` is set."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.int8:
            x, weight = self.rounded(x, weight)
        found: Tensor = self._conv_forward(x, weight, self.bias)
        return found


class Dense(nn.Linear, Quantisable):
    """A linear layer, likewise."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.int8:
            x, weight = self.rounded(x, weight)
        return F.linear(x, weight, self.bias)


class Norm(nn.LayerNorm):
    """A layer norm over the last dimension; with ``mask`` (d,) over the channels that it keeps."""

    mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return super().forward(x)
        kept = self.mask.sum(-1, keepdim=True).clamp(min=1)
        mask = self.mask if self.mask.ndim == 1 else self.mask[:, None]
        kept = kept if kept.ndim == 1 else kept[:, None]
        mean = (x * mask).sum(-1, keepdim=True) / kept
        centred = x - mean
        variance = (centred.square() * mask).sum(-1, keepdim=True) / kept
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
