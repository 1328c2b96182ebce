"""What distillation buys a small dual-stream student, on the sample world at 32 pixels.

    python benchmarks/student.py [--seeds 3] [--quick] [--check]

Per seed a teacher is trained on clean pairs, then fusion over its towers. Students of a tenth of the teacher's
parameters (its two towers, without fusion) learn for few steps: from the pairs alone (scratch), from the plain
teacher, from the fused one; on clean pairs and on pairs 30 % of which are mismatched. Students of a quarter learn for
longer; theirs is also exported and quantised to int8. Scores are R@1 in percent on held-out scenes, mean of both ways,
any image of an equal caption counted as right; intervals are bootstraps over scenes and seeds together, paired where
two models are compared. A line is INVALID where the teacher is less than 5 points over the scratch student: there is
then no gap to close. Search times are of one core.
"""

from __future__ import annotations

import argparse
import io
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuwen.sample_data.draw import render
from tuwen.sample_data.world import caption, random_scene
from tuwen.trainers.embedded import PREPROCESS, save_tokenizer
from tuwen.trainers.fusion import FusedTeacher, FusionConfig, Towers
from tuwen.trainers.retrieval import caption_group
from tuwen.trainers.student import DistilConfig, Targets, Teacher, minimise, parameters, student_losses

SIDE = 32
CONTEXT = 36
DIMENSION = 64
NOISE = 0.3


class World(NamedTuple):
    """n scenes: pictures (n, 3, SIDE, SIDE) uint8 and a caption for each, its ids and its group."""

    images: Tensor
    captions: list[str]
    ids: Tensor
    groups: Tensor

    def pixels(self, rows: Tensor) -> Tensor:
        return self.images[rows].float() / 127.5 - 1


def draw(n: int, seed: int, tokenize: Callable[[list[str]], Tensor]) -> World:
    rng = np.random.default_rng(seed)
    pictures, captions = np.empty((n, SIDE, SIDE, 3), np.uint8), []
    for i in range(n):
        scene = random_scene(rng)
        pictures[i] = cv2.resize(render(scene, 2 * SIDE), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        captions.append(caption(scene, rng))
    groups = torch.tensor([caption_group(c) for c in captions])
    return World(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), captions, tokenize(captions), groups)


def mismatched(world: World, share: float, seed: int) -> World:
    """``share`` of the captions moved to other pictures."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(world.captions), round(share * len(world.captions)), replace=False)
    order = np.arange(len(world.captions))
    order[chosen] = np.roll(chosen, 1)
    return World(world.images, [world.captions[i] for i in order], world.ids[order], world.groups[order])


def build(vision: tuple[int, int], text: tuple[int, int], vocabulary: int, seed: int) -> Any:
    """A dual stream of (width, layers) towers."""
    torch.manual_seed(seed)
    return open_clip.CustomTextCLIP(**config(vision, text, vocabulary))


def config(vision: tuple[int, int], text: tuple[int, int], vocabulary: int) -> dict[str, Any]:
    (width, layers), (text_width, text_layers) = vision, text
    seen = {"image_size": SIDE, "patch_size": 8, "width": width, "layers": layers, "head_width": width // 4}
    read = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": text_width, "layers": text_layers}
    read |= {"heads": 4, "no_causal_mask": True, "pool_type": "first", "pad_id": 0, "eos_id": 3}
    return {
        "embed_dim": DIMENSION,
        "vision_cfg": {**seen, "pool_type": "avg"},
        "text_cfg": {**read, "hf_tokenizer_name": "local"},
    }


def order(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of row numbers."""
    made = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randperm(n, generator=made)
        yield from rows[: n - n % batch].view(-1, batch)
