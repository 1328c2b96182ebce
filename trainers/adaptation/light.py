"""The light model that runs on a device: a small convolutional tower whose dynamic layers take parameters from outside.

The dynamic layers are a colour matrix before the first convolution (3 x 3 and a bias, as a change to the identity)
and a scale and shift of each channel after each normalisation (FiLM, Perez et al. 2018, arXiv 1709.07871). To what a
device is given the model adds a constant of its own (``common``), so that parameters that are all zero are the best
that one set does for all devices: the static model. Captions and questions go through the yardstick's character
transformer (``value.model``), which has no dynamic layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..value.model import Words

GRID = 4
"""Steps of a colour in the histogram of ``Statistics``."""


@dataclass(frozen=True)
class LightConfig:
    """Size of the light model."""

    side: int = 32
    """Pixels of a frame; a multiple of 8."""
    frames: int = 0
    """Frames of a clip that are looked at; 0: one where the shards hold photographs, four where they hold clips."""
    width: int = 32
    """Channels of the first convolution; the others have twice as many."""
    embed: int = 96
    """Dimensions of the embedding."""
    text: int = 64
    """Width of the text transformer."""


class Light(nn.Module):
    """Frames (n, t, 3, side, side) from -1 to 1, with parameters (m, p) of the dynamic layers, m being 1 or n."""

    common: Tensor

    def __init__(self, config: LightConfig, characters: int, answers: int = 0) -> None:
        super().__init__()
        self.config = config
        frames = max(1, config.frames)
        plan = ((48, config.width, 1), (config.width, 2 * config.width, 2), (2 * config.width, 2 * config.width, 1))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in plan)
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for _, b, _ in plan)
        self.sizes = [12, *(2 * b for _, b, _ in plan)]
        flat = 2 * config.width * (config.side // 8) ** 2
        self.frame = nn.Linear(flat, config.embed)
        self.time = nn.Linear(frames * config.embed, config.embed) if frames > 1 else None
        self.words = Words(characters, config.embed, config.text)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("common", torch.zeros(1, self.dynamic))
        self.answer: nn.Module | None = None
        if answers:
            self.questions = Words(characters, config.embed, config.text)
            hidden = 2 * config.embed
            self.answer = nn.Sequential(nn.Linear(3 * config.embed, hidden), nn.GELU(), nn.Linear(hidden, answers))

    @property
    def dynamic(self) -> int:
        """How many numbers the dynamic layers take."""
        return sum(self.sizes)

    def static(self) -> Tensor:
        """(1, p) parameters of the static model."""
        return torch.zeros(1, self.dynamic)

    def plain(self) -> Tensor:
        """(1, p) parameters of the model as it was before ``common``: for photographs through no camera."""
        return -self.common

    def clip(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """(n, embed) of clips, not normalised."""
        n, t = frames.shape[:2]
        each = parameters if parameters.shape[0] == 1 else parameters.repeat_interleave(t, 0)
        rows: Tensor = self.frame(self._maps(frames.flatten(0, 1), each).flatten(1))  # (n t, embed)
        if self.time is None:
            return rows
        whole: Tensor = self.time(rows.view(n, -1))
        return whole

    def _maps(self, x: Tensor, parameters: Tensor) -> Tensor:
        colour, *films = (self.common + parameters).split(self.sizes, 1)
        matrix = colour[:, :9].reshape(-1, 3, 3) + torch.eye(3, device=x.device)
        n, _, h, w = x.shape
        x = (matrix @ x.flatten(2) + colour[:, 9:, None]).view(n, 3, h, w)
        x = F.pixel_unshuffle(x, 4)  # (n, 48, h/4, w/4)
        for convolution, norm, film in zip(self.convolutions, self.norms, films, strict=True):
            scale, shift = film[:, :, None, None].chunk(2, 1)
            x = F.gelu(norm(convolution(x)) * (1 + scale) + shift)
        return x  # (n, 2 width, h/8, w/8)

    def image(self, frames: Tensor, parameters: Tensor) -> Tensor:
        """Unit rows (n, embed) of clips."""
        return F.normalize(self.clip(frames, parameters), dim=1)

    def text(self, tokens: Tensor) -> Tensor:
        """Unit rows (n, embed) of captions."""
        return F.normalize(self.words(tokens), dim=1)

    def answers(self, clips: Tensor, questions: Tensor) -> Tensor:
        """(n, answers) logits of what ``clip`` gave for clips under ``questions`` (n, embed) of the question tower."""
        assert self.answer is not None
        logits: Tensor = self.answer(torch.cat([clips, questions, clips * questions], 1))
        return logits


class Statistics(nn.Module):
    """What a device measures of each frame before anything is uploaded: a fixed function of the static model.

    A soft histogram of colours (GRID to the power of three bins, weights of linear interpolation), mean and largest
    activation of each channel of the first convolution, mean of each channel of the last.
    """

    def __init__(self, light: Light) -> None:
        super().__init__()
        self.light = light
        self.size = GRID**3 + 4 * light.config.width

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) from -1 to 1 to (n, size)."""
        small = F.avg_pool2d(frames, 2)
        at = torch.arange(GRID, device=frames.device, dtype=frames.dtype)[:, None]
        near = F.relu(1 - ((small.flatten(2) + 1)[:, :, None] * ((GRID - 1) / 2) - at).abs())  # (n, 3, GRID, pixels)
        pairs = (near[:, 0, :, None] * near[:, 1, None]).flatten(1, 2)  # (n, GRID^2, pixels)
        histogram = (pairs @ near[:, 2].transpose(1, 2)).flatten(1) / near.shape[3]
        first = F.gelu(self.light.convolutions[0](F.pixel_unshuffle(frames, 4))).flatten(2)
        last = self.light._maps(frames, self.light.static().to(frames.device)).flatten(2)
        return torch.cat([histogram.sqrt(), first.mean(2), first.amax(2), last.mean(2)], 1)


def answer_words(answers: Sequence[str], most: int = 500) -> list[str]:
    """The answers that the model may give, the most frequent first."""
    counts: dict[str, int] = {}
    for one in answers:
        counts[one] = counts.get(one, 0) + 1
    return sorted(counts, key=lambda a: (-counts[a], a))[:most]
