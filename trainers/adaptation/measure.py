"""What a device's model is worth on its gallery: retrieval both ways, and answers to questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .devices import PLAIN, Camera, Device
from .light import Light
from .task import I64, Task

RETRIEVAL, ANSWERS = "retrieval", "answers"


class Gallery:
    """A device's gallery with captions and questions encoded once: none of the dynamic layers reads text."""

    @torch.no_grad()
    def __init__(self, light: Light, task: Task, rows: I64, camera: Camera) -> None:
        index = torch.from_numpy(rows)
        self.pixels = camera(task.clips.frames[index])
        self.text, self.groups = light.text(task.tokens[index]), task.groups[index]
        places, numbers = task.asked(rows)
        self.places, self.right = places, task.answers[numbers]
        self.questions = light.questions(task.question_tokens[numbers]) if len(numbers) else None
        self.kinds = [task.kinds[i] for i in numbers.tolist()]
        self.texts = [task.question_texts[i] for i in numbers.tolist()]

    @torch.no_grad()
    def measure(self, light: Light, parameters: Tensor) -> dict[str, float]:
        """R@1, mean of both ways, and the share of questions answered rightly, where there are questions."""
        clips = light.clip(self.pixels, parameters)
        found = {RETRIEVAL: recall(F.normalize(clips, dim=1) @ self.text.T, self.groups)}
        if self.questions is not None:
            said = light.answers(clips[self.places], self.questions).argmax(1)
            found[ANSWERS] = float((said == self.right).float().mean())
        return found


def recall(cosines: Tensor, groups: Tensor) -> float:
    """R@1 of (n, n) cosines of images and captions, mean of both ways; all of a caption's images are right."""
    right = groups[:, None] == groups[None, :]
    both = [right.gather(1, c.argmax(1)[:, None]).float().mean() for c in (cosines, cosines.T)]
    return float(torch.stack(both).mean())


def galleries(light: Light, task: Task, devices: Sequence[Device], plain: bool = False) -> list[Gallery]:
    """Each device's; ``plain``: the same things without its camera, which is what nothing of a device's own costs."""
    return [Gallery(light, task, d.gallery, PLAIN if plain else d.camera) for d in devices]


def blind(train: Task, galleries: Sequence[Gallery]) -> list[dict[str, float]]:
    """Share of questions that are right when each gets its most frequent answer in training, whatever is seen."""
    counts: dict[str, Counter[int]] = {}
    for text, answer in zip(train.question_texts, train.answers.tolist(), strict=True):
        counts.setdefault(text, Counter())[answer] += 1
    best = {text: found.most_common(1)[0][0] for text, found in counts.items()}
    return [
        {ANSWERS: sum(best.get(t) == a for t, a in zip(g.texts, g.right.tolist(), strict=True)) / len(g.texts)}
        for g in galleries
        if g.texts
    ]


def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over devices."""
    return {name: sum(f[name] for f in found) / len(found) for name in found[0]} if found else {}


def rounded(found: Mapping[str, float]) -> dict[str, Any]:
    """For JSON."""
    return {name: round(value, 4) for name, value in found.items()}
