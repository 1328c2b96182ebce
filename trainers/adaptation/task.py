"""Samples as the light model takes them: ids of captions, groups of equal captions, questions and answers by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..retrieval import caption_group
from ..value.model import PAD, Characters
from .samples import Clips

I64 = NDArray[np.int64]


class Vocabulary(NamedTuple):
    """Characters of captions and questions, and the answers that can be given."""

    characters: Characters
    answers: list[str]


class Asked(NamedTuple):
    """m questions: the place in the batch of the sample that each is about, its number in the task, the answer's
    number, below 0 where unknown."""

    place: Tensor
    number: Tensor
    answer: Tensor


class Batch(NamedTuple):
    """n samples: their rows, pixels (n, t, 3, side, side) from -1 to 1, groups of equal captions, and questions."""

    rows: Tensor
    pixels: Tensor
    groups: Tensor
    asked: Asked


class Task:
    """All samples of a split, ready to be drawn from."""

    def __init__(self, clips: Clips, vocabulary: Vocabulary) -> None:
        self.clips, self.vocabulary = clips, vocabulary
        self.tokens = padded(vocabulary.characters, clips.captions)
        self.groups = torch.tensor([caption_group(c) for c in clips.captions])
        numbers = {a: i for i, a in enumerate(vocabulary.answers)}
        flat = [(i, q) for i, questions in enumerate(clips.questions) for q in questions] if numbers else []
        self.question_texts = [q.question for _, q in flat]
        self.kinds = [q.kind for _, q in flat]
        self.answers = torch.tensor([numbers.get(q.answer, -1) for _, q in flat], dtype=torch.long)
        self.question_tokens = padded(vocabulary.characters, self.question_texts)
        self.of_sample: list[list[int]] = [[] for _ in clips.captions]
        for at, (i, _) in enumerate(flat):
            self.of_sample[i].append(at)

    def __len__(self) -> int:
        return len(self.clips)

    def asked(self, rows: Sequence[int] | I64, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(places in ``rows``, numbers of questions): all of them, or one of each sample drawn by ``rng``."""
        places, numbers = [], []
        for at, row in enumerate(rows):
            own = self.of_sample[int(row)]
            if rng is not None and own:
                own = [own[int(rng.integers(len(own)))]]
            places += [at] * len(own)
            numbers += own
        return torch.tensor(places, dtype=torch.long), torch.tensor(numbers, dtype=torch.long)

    def batch(self, rows: I64, pixels: Tensor, rng: np.random.Generator | None = None) -> Batch:
        """The samples ``rows`` whose ``pixels`` a camera has made."""
        index = torch.from_numpy(rows)
        places, numbers = self.asked(rows, rng)
        return Batch(index, pixels, self.groups[index], Asked(places, numbers, self.answers[numbers]))


def vocabulary(clips: Clips, answers: list[str]) -> Vocabulary:
    """The characters of the captions and questions of ``clips``."""
    return Vocabulary(Characters([*clips.captions, *(q.question for qs in clips.questions for q in qs)]), answers)


def padded(characters: Characters, texts: Sequence[str]) -> Tensor:
    """(n, l) ids, all of one length."""
    return characters(texts) if texts else torch.full((0, 1), PAD)
