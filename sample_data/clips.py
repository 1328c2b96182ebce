"""Short clips of the sample world: ``python -m tuwen.sample_data.clips -o FOLDER``.

One or two things move over a background, or stay. A clip is one sample of several frames::

    KEY.00.jpg … KEY.07.jpg    the frames, in their order in time
    KEY.txt                    the caption
    KEY.json                   key, frames, qa: a list of {kind, question, answer}, concept

Any shard with several images to a key is read as clips by ``curate train adaptation``; ``qa`` is what questions are
answered from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..export.shards import ShardInfo, write_clips, write_index
from .draw import background, place
from .faults import encode
from .world import COLOURS, KINDS, SCENES, Thing

FRAMES = 8
STEPS = {"向左": (-1.0, 0.0), "向右": (1.0, 0.0), "向上": (0.0, -1.0), "向下": (0.0, 1.0), "": (0.0, 0.0)}
"""Direction of a movement as a caption says it; "" stands still."""
AT = {"夜晚": "夜晚", "湖边": "湖边", "房间": "房间里", "街道": "街道上"}
REACH = 0.3
"""Share of the picture that a moving thing crosses within the clip."""

Sample = tuple[str, list[bytes], str, dict[str, Any]]


@dataclass(frozen=True)
class Clip:
    """One or two things, each with its movement, on a background; ``style`` seeds what words do not say."""

    things: tuple[Thing, ...]
    moves: tuple[str, ...]
    background: str
    style: int


def random_clip(rng: np.random.Generator, two: float = 0.3) -> Clip:
    """A clip drawn from ``rng``; with probability ``two`` of two kinds of thing in two colours."""
    n = 2 if rng.random() < two else 1
    kinds, colours = rng.permutation(list(KINDS))[:n], rng.permutation(list(COLOURS))[:n]
    things = tuple(Thing(str(k), str(c)) for k, c in zip(kinds, colours, strict=True))
    moves = tuple(str(m) for m in rng.choice(list(STEPS), n))
    return Clip(things, moves, str(rng.choice(list(SCENES))), int(rng.integers(2**31)))


def frames(clip: Clip, count: int = FRAMES, side: int = 64) -> list[NDArray[np.uint8]]:
    """The clip's ``count`` pictures, each (side, side, 3) RGB."""
    rng = np.random.default_rng(clip.style)
    still = background(clip.background, 2 * side, rng)
    lanes = (0.5,) if len(clip.things) == 1 else (0.32, 0.7)
    starts = [(0.5 + rng.uniform(-0.12, 0.12), y + rng.uniform(-0.06, 0.06)) for y in lanes]
    scale = (0.44 if len(clip.things) == 1 else 0.34) * rng.uniform(0.9, 1.1)
    light, seed = rng.uniform(0.86, 1.08), int(rng.integers(2**31))
    made = []
    for i in range(count):
        canvas = still.copy()
        passed = (i / max(1, count - 1) - 0.5) * REACH
        for k, (thing, move, (x, y)) in enumerate(zip(clip.things, clip.moves, starts, strict=True)):
            dx, dy = STEPS[move]
            # The same numbers in every frame: neither the texture nor which way the thing looks may flicker.
            place(canvas, thing, x + dx * passed, y + dy * passed, scale, np.random.default_rng([seed, k]))
        lit = canvas * light + rng.normal(0, 3.0, (2 * side, 2 * side, 1))
        small = cv2.resize(np.clip(lit, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
        made.append(small.astype(np.uint8, copy=False))
    return made


def name(thing: Thing, rng: np.random.Generator) -> str:
    """一只红色的猫."""
    kind = KINDS[thing.kind]
    return f"一{kind.measure}{thing.colour}的{rng.choice(kind.names)}"


def caption(clip: Clip, rng: np.random.Generator) -> str:
    """What is there, where, and how it moves."""
    at = AT.get(clip.background, f"{clip.background}上")
    parts = [
        f"{name(thing, rng)}{move}移动" if move else f"{name(thing, rng)}停着不动"
        for thing, move in zip(clip.things, clip.moves, strict=True)
    ]
    told = "，".join(parts)
    return str(rng.choice((f"{at}，{told}", f"{told}，在{at}", f"视频里{at}有{told}")))


def questions(clip: Clip, rng: np.random.Generator) -> list[dict[str, str]]:
    """Questions about the clip with their answers, of five kinds; one about each thing where that makes sense."""
    asked = []
    for thing, move in zip(clip.things, clip.moves, strict=True):
        kind = KINDS[thing.kind].names[0]
        asked += [
            ("colour", f"{kind}是什么颜色的？", thing.colour),
            ("motion", f"{kind}往哪边动？", move or "不动"),
            ("object", f"{thing.colour}的是什么？", kind),
        ]
    asked += [("place", "这是在哪里？", clip.background), ("number", "有几样东西？", "一两"[len(clip.things) - 1])]
    order = rng.permutation(len(asked))
    return [dict(zip(("kind", "question", "answer"), asked[i], strict=True)) for i in order]


def samples(n: int, seed: int, side: int = 64, count: int = FRAMES, two: float = 0.3) -> Iterator[Sample]:
    """(key, JPEGs, caption, JSON) of ``n`` clips."""
    rng = np.random.default_rng([seed, 11])
    for i in range(n):
        clip = random_clip(rng, two)
        key = f"clip{seed:06d}{i:08d}"
        told = {"key": key, "frames": count, "qa": questions(clip, rng)}
        told |= {"concept": KINDS[clip.things[0].kind].names[0]}
        yield key, [encode(f, quality=90) for f in frames(clip, count, side)], caption(clip, rng), told


def write_clip_shards(
    folder: Path, n: int, seed: int, split: str = "train", per_shard: int = 500, side: int = 64, count: int = FRAMES
) -> list[ShardInfo]:
    """Write ``n`` clips as SPLIT-*.tar with their ``index.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = samples(n, seed, side, count)
    written = []
    for i in range(-(-n // per_shard)):
        part = [next(stream) for _ in range(min(per_shard, n - i * per_shard))]
        written.append(write_clips(str(folder / f"{split}-{i:06d}.tar"), part))
    write_index(str(folder), written)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--per-shard", type=int, default=500)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--frames", type=int, default=FRAMES)
    given = parser.parse_args()
    write_clip_shards(given.out, given.clips, given.seed, given.split, given.per_shard, given.side, given.frames)


if __name__ == "__main__":
    main()
