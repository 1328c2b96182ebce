"""Shards of the sample world, for trying the trainers: ``python -m tuwen.sample_data.shards -o FOLDER``.

They are laid out as ``curate run`` lays its own, with hard negatives by the same rules; nothing was filtered, because
nothing is wrong with them except what ``mismatched`` plants: captions that belong to other pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..export.shards import ShardInfo, write_index, write_shard
from ..scoring.negatives import negatives
from .draw import render
from .faults import encode
from .world import KINDS, Scene, caption, random_scene

Sample = tuple[str, bytes, str, dict[str, Any]]


def samples(n: int, seed: int, side: int = 64, mismatched: float = 0.0, alone: bool = False) -> Iterator[Sample]:
    """(key, JPEG, caption, JSON) of ``n`` scenes; a share ``mismatched`` has the caption of another scene.

    ``alone``: only scenes with one kind of thing, which a small model learns in seconds.
    """
    rng = np.random.default_rng([seed, 7])
    for i in range(n):
        scene = drawn_scene(rng, alone)
        wrong = rng.random() < mismatched
        words = caption(drawn_scene(rng, alone) if wrong else scene, rng)
        key = f"{seed:06d}{i:08d}"
        made = [{"kind": kind, "caption": c} for kind, c in negatives(words, key)]
        told = {"key": key, "negatives": made, "mismatched": bool(wrong), "concept": concept(scene)}
        yield key, picture(scene, side), words, told


def drawn_scene(rng: np.random.Generator, alone: bool) -> Scene:
    """A random scene; with ``alone`` the next one that holds one kind of thing."""
    scene = random_scene(rng)
    while alone and len(scene.things) > 1:
        scene = random_scene(rng)
    return scene


def picture(scene: Scene, side: int) -> bytes:
    """The scene as a JPEG of ``side`` pixels, drawn at twice the size."""
    drawn = cv2.resize(render(scene, 2 * side), (side, side), interpolation=cv2.INTER_AREA)
    return encode(drawn.astype(np.uint8), quality=90)


def concept(scene: Scene) -> str:
    """The kind of the scene's first thing, in Chinese."""
    return KINDS[scene.things[0].kind].names[0]


def write_shards(
    folder: Path,
    n: int,
    seed: int,
    split: str = "train",
    per_shard: int = 1000,
    side: int = 64,
    mismatched: float = 0.0,
    alone: bool = False,
) -> list[ShardInfo]:
    """Write ``n`` scenes as SPLIT-*.tar with their ``index.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = samples(n, seed, side, mismatched, alone)
    written = []
    for i in range(-(-n // per_shard)):
        part = [next(stream) for _ in range(min(per_shard, n - i * per_shard))]
        written.append(write_shard(str(folder / f"{split}-{i:06d}.tar"), part))
    write_index(str(folder), written)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--alone", action="store_true", help="only scenes with one kind of thing")
    parser.add_argument("--mismatched", type=float, default=0.0, help="share of captions that belong elsewhere")
    given = parser.parse_args()
    write_shards(
        given.out, given.samples, given.seed, given.split, given.per_shard, given.side, given.mismatched, given.alone
    )  # fmt: skip


if __name__ == "__main__":
    main()
