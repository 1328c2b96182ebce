"""Photographs and short clips from shards, whole in memory: a photograph is a clip of one frame.

Adaptation draws the same samples again and again, for many simulated devices, so nothing is streamed; ``most`` bounds
what is read (a frame of 32 pixels takes 3 KB).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import InputError
from ..shards import IMAGES, Shards, members, told_of
from ..value.pixels import Pixels, small
from .pick import spaced


class Question(NamedTuple):
    """A question about a clip, of some kind, with its answer."""

    kind: str
    question: str
    answer: str


class Clips(NamedTuple):
    """n samples with their frames (n, t, 3, side, side) uint8, captions, and questions where the JSON has ``qa``."""

    frames: Tensor
    captions: list[str]
    questions: list[list[Question]]
    keys: list[str]
    bytes: int
    """Mean bytes of a frame as stored in the shards; what sending it would cost."""

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, rows: Sequence[int]) -> Clips:
        """Some of the samples."""
        chosen = self.frames[torch.as_tensor(list(rows), dtype=torch.long)]
        return Clips(
            chosen,
            [self.captions[i] for i in rows],
            [self.questions[i] for i in rows],
            [self.keys[i] for i in rows],
            self.bytes,
        )


def read(shards: Shards, side: int, frames: int, most: int = 20_000) -> Clips:
    """The first ``most`` usable samples; of each as many as ``frames`` frames, evenly spaced over the clip.

    A clip of fewer frames repeats some. Samples without a caption or with a frame that does not open are passed over;
    raises ``InputError`` where nothing is left.
    """
    pictures: list[list[Pixels]] = []
    captions, asked, keys = [], [], []
    stored = count = 0
    for path in shards.paths:
        for key, held in members(path):
            caption, told = told_of(held)
            found = frame_files(held)
            chosen = [found[i] for i in spaced(len(found), frames)] if found and caption else []
            opened = [small(held[name], side) for name in chosen]
            clip = [picture for picture in opened if picture is not None]
            if not clip or len(clip) < len(opened):
                continue
            stored, count = stored + sum(len(held[name]) for name in found), count + len(found)
            pictures.append(clip)
            captions.append(caption)
            asked.append(_questions(told))
            keys.append(key)
            if len(keys) == most:
                break
        if len(keys) == most:
            break
    if not keys:
        raise InputError(
            f"no usable sample in {len(shards.paths)} shards ({shards.paths[0]}, …): expected KEY.jpg or KEY.00.jpg, "
            "KEY.01.jpg, …, with KEY.txt or a caption in KEY.json"
        )
    packed = torch.from_numpy(np.array(pictures, np.uint8)).permute(0, 1, 4, 2, 3).contiguous()
    return Clips(packed, captions, asked, keys, round(stored / count))


def frame_files(held: Mapping[str, bytes]) -> list[str]:
    """Extensions of a sample's images in their order in time: those with a number before the type, else the one."""
    numbered = sorted(k for k, v in held.items() if v and k.rpartition(".")[2] in IMAGES and "." in k)
    return numbered or [k for k in IMAGES if held.get(k)][:1]


def several(shards: Shards) -> bool:
    """Whether the first sample that has an image has several."""
    for path in shards.paths:
        for _, held in members(path):
            if found := frame_files(held):
                return len(found) > 1
    return False


def _questions(told: Mapping[str, Any]) -> list[Question]:
    asked = told.get("qa") or ()
    return [
        Question(str(q.get("kind") or ""), str(q["question"]), str(q["answer"]))
        for q in asked
        if isinstance(q, Mapping) and q.get("question") and q.get("answer")
    ]
