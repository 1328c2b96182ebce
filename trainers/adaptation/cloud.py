"""The cloud's side: from a device's anchor features to the parameters of its dynamic layers.

The AnchorFrame Distribution Reasoner (``Reasoner``) says from a few anchors how the features of all frames of the
device are distributed (a Gaussian with a mean and a deviation for each feature); the Fast Domain Adaptor
(``Adaptor``), a hypernetwork, makes parameters of that. Both are trained together, over many simulated devices, with
the light model frozen: one that trains along learns to do without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exchange import LEVELS


@dataclass(frozen=True)
class CloudConfig:
    """What the cloud learns, and how."""

    features: int = 64
    """Numbers, and bytes, that an anchor frame is uploaded as."""
    hidden: int = 128
    anchors: int = 16
    """Most anchor frames of a device."""
    policy: str = "auto"
    """How a device picks its anchors: uniform, learned, random, herding; auto: whichever of uniform, learned and
    herding was best on the validation devices."""
    steps: int = 1500
    """With few steps all devices get nearly the same parameters: another device's then do well, too."""
    learning_rate: float = 4e-3
    devices: int = 16
    """Devices in a step."""
    batch: int = 12
    """Samples of each."""
    reasoning: float = 0.1
    """Weight of the likelihood of the remaining frames' features under the reasoned distribution."""


class Encoder(nn.Module):
    """The last step on the device: statistics of a frame (``light.Statistics``) to bytes that may be uploaded."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, statistics: int, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("deviation", torch.ones(statistics))
        self.layers = nn.Sequential(nn.Linear(statistics, 96), nn.GELU(), nn.Linear(96, features), nn.Tanh())

    def scale_to(self, statistics: Tensor) -> None:
        """Learn mean and deviation of the statistics from (n, s) of them."""
        self.mean.copy_(statistics.mean(0))
        self.deviation.copy_(statistics.std(0).clamp(min=1e-3))

    def forward(self, statistics: Tensor) -> Tensor:
        """(..., s) to features (..., f) of -1 to 1, on the levels that are uploaded. Gradients pass straight on."""
        x: Tensor = self.layers(((statistics - self.mean) / self.deviation).clamp(-5, 5))
        return x + ((x * LEVELS).round() / LEVELS - x).detach()


class Reasoned(NamedTuple):
    """How a device's features are distributed, (devices, f) each, and the summary that it was read from."""

    mean: Tensor
    deviation: Tensor
    summary: Tensor


class Reasoner(nn.Module):
    """AnchorFrame Distribution Reasoner: attention over anchors corrects their own mean and deviation."""

    HEADS = 4

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.attention = nn.Linear(hidden, self.HEADS)
        self.join = nn.Sequential(nn.Linear(self.HEADS * hidden + 2 * features, hidden), nn.GELU())
        self.correct = nn.Linear(hidden, 2 * features)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)

    def forward(self, anchors: Tensor) -> Reasoned:
        """(devices, k, f)."""
        own_mean, own_deviation = moments(anchors)
        rows = self.each(anchors)
        weights = self.attention(rows).softmax(1)  # (devices, k, heads)
        pooled = (weights.transpose(1, 2) @ rows).flatten(1)
        summary = self.join(torch.cat([pooled, own_mean, own_deviation], 1))
        shift, stretch = self.correct(summary).chunk(2, 1)
        return Reasoned(own_mean + shift, (own_deviation + 0.05) * stretch.clamp(-3, 3).exp(), summary)


class Adaptor(nn.Module):
    """Fast Domain Adaptor: the hypernetwork."""

    def __init__(self, features: int, hidden: int, parameters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * features + hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.out = nn.Linear(hidden, parameters)
        # Larger than zero and not as large as usual: the first devices are near the static model, but not at it.
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, reasoned: Reasoned) -> Tensor:
        """(devices, p)."""
        made: Tensor = self.out(self.layers(torch.cat(reasoned, 1)))
        return made


class Cloud(nn.Module):
    """Anchors (devices, k, f) to parameters (devices, p)."""

    def __init__(self, config: CloudConfig, parameters: int) -> None:
        super().__init__()
        self.reasoner = Reasoner(config.features, config.hidden)
        self.adaptor = Adaptor(config.features, config.hidden, parameters)

    def forward(self, anchors: Tensor) -> Tensor:
        made: Tensor = self.adaptor(self.reasoner(anchors))
        return made


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (…, f) of features (…, k, f); the deviation of one is zero."""
    mean = features.mean(-2)
    return mean, ((features - mean.unsqueeze(-2)).square().mean(-2) + 1e-8).sqrt()


def surprise(features: Tensor, reasoned: Reasoned) -> Tensor:
    """Mean negative log likelihood of features (devices, N, f) under what was reasoned."""
    mean, deviation = reasoned.mean[:, None], reasoned.deviation[:, None]
    return F.gaussian_nll_loss(mean.expand_as(features), features, deviation.square().expand_as(features))
