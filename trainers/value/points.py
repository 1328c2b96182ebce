"""One point of a study: the yardstick trained on some pairs with a seed, and what it finds of the held-out ones.

Architecture, steps, batch and schedule are the same for every point (DataComp, Gadre et al. 2023, arXiv 2304.14108):
a point sees ``steps * batch`` samples however many pairs it has, and only those pairs differ. With one seed all
points begin with the same weights, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..retrieval import Batch, RetrievalConfig, caption_group, fit, normalise
from .model import Characters, Yardstick

Rows = NDArray[np.int64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Budget:
    """What every point may spend; ``seeds`` are how many times each is trained."""

    steps: int = 150
    batch: int = 256
    seeds: int = 3
    learning_rate: float = 3e-3
    threads: int = 1

    def config(self, seed: int) -> RetrievalConfig:
        """The trainer's settings: the contrastive loss alone, a tenth of the steps to warm up."""
        return RetrievalConfig(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup=max(1, self.steps // 10),
            seed=seed,
            threshold_weight=0.0,
            caption_weight=0.0,
            log_every=max(1, self.steps),
        )


@dataclass(frozen=True)
class Questions:
    """Held-out pairs: ``images`` (n, 3, side, side) uint8 and one caption each, in one or more styles."""

    images: Tensor
    captions: dict[str, list[str]]


@dataclass(frozen=True)
class Answers:
    """Per question of one style, both ways, the rank of the best right answer, from 0; (2n,): captions, then images."""

    ranks: NDArray[np.int32]

    def recall(self, k: int) -> float:
        """Share of the questions, captions and images alike, whose right answer is among the first ``k``."""
        return float((self.ranks < k).mean())


@dataclass
class Point:
    """What one training gave: by style of the questions, the ranks; and the loss at its end."""

    answers: dict[str, Answers] = field(default_factory=dict)
    loss: float = float("nan")


def batches(images: Tensor, captions: Sequence[str], size: int, seed: int) -> Iterator[Batch]:
    """Endless full batches: all pairs in one shuffled order after another, each as often as any other."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(len(captions))])
        chosen, waiting = waiting[:size], waiting[size:]
        yield images[torch.from_numpy(chosen)], [captions[i] for i in chosen]


def train(
    images: Tensor, captions: Sequence[str], words: Characters, questions: Questions, budget: Budget, seed: int
) -> Point:
    """Train on ``images`` (n, 3, side, side) with ``captions`` and answer ``questions``."""
    torch.set_num_threads(budget.threads)
    torch.manual_seed(seed)
    model, config = Yardstick(len(words)), budget.config(seed)
    log = fit(model, words, batches(images, captions, budget.batch, seed), config)
    return Point({style: ask(model, words, questions, style, config) for style in questions.captions}, log[-1]["loss"])


@torch.no_grad()
def ask(model: Yardstick, words: Characters, questions: Questions, style: str, config: RetrievalConfig) -> Answers:
    """The model's answers to the questions with captions of one style."""
    model.eval()
    captions = questions.captions[style]
    blocks = range(0, len(captions), 256)
    image = torch.cat([model.encode_image(normalise(questions.images[i : i + 256], config)) for i in blocks])
    text = torch.cat([model.encode_text(words(captions[i : i + 256])) for i in blocks])
    groups = np.array([caption_group(c) for c in captions])
    return Answers(ranks((text @ image.T).numpy(), groups))


def ranks(scores: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.int32]:
    """(2n,) ranks of the best right answer for n captions and n images; ``scores`` (n captions, n images).

    Every image of an equal caption is right. A wrong answer that ties with the right one stands before it, so that a
    model which says the same of everything finds nothing.
    """
    right = groups[:, None] == groups[None, :]
    found: list[Any] = []
    for table in (scores, scores.T):
        best = np.where(right, table, -np.inf).max(1, keepdims=True)
        found.append(((table >= best) & ~right).sum(1))
    return np.concatenate(found).astype(np.int32)


def settings(budget: Budget) -> dict[str, Any]:
    """What a record of points must match to be gone on with."""
    return {
        "steps": budget.steps,
        "batch": budget.batch,
        "learning_rate": budget.learning_rate,
        "torch": torch.__version__,
    }
