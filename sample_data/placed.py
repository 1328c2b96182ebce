"""Small pictures of one kind of thing at a place that the caption tells, in Chinese and in English.

They are for the generation trainer: at 16 pixels kind, colour, number and place can still be told, so that a network of
a million parameters learns them in minutes and a probe can say what it drew. They are stored larger, as photos are.
``python -m tuwen.sample_data.placed -o FOLDER`` writes them as shards. Some pairs of kind and colour are held out, so
that prompts for them ask for what was never seen together.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..export.shards import ShardInfo, write_index, write_shard
from ..scoring.negatives import negatives
from .draw import Pixels, compose
from .faults import encode
from .world import COLOURS_EN, KINDS, NUMBERS, NUMBERS_EN, Thing

SIDE = 64
SHAPES = ("car", "house", "tree", "umbrella", "ball", "boat")
COLOURS = ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色")
NEW_COLOURS = ("白色", "黑色")
"""Never in the training pictures: the domain that tuning is measured on."""
PLACES = {"左边": "on the left", "右边": "on the right", "上面": "at the top", "下面": "at the bottom"}
COUNTS = (1, 2)
HELD_OUT = frozenset((kind, COLOURS[i]) for i, kind in enumerate(SHAPES))
"""Each kind in one colour, each colour on one kind."""
_SPOTS = {
    "左边": ((0.25, 0.5), (0.25, 0.26), (0.25, 0.76)),
    "右边": ((0.75, 0.5), (0.75, 0.26), (0.75, 0.76)),
    "上面": ((0.5, 0.26), (0.25, 0.26), (0.75, 0.26)),
    "下面": ((0.5, 0.75), (0.25, 0.75), (0.75, 0.75)),
}
"""Where one thing lies, and where two do, as shares of the side."""


class Placed(NamedTuple):
    """What a picture shows."""

    kind: str
    colour: str
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    place: str

    @property
    def held_out(self) -> bool:
        """Whether training never shows this kind in this colour."""
        return (self.kind, self.colour) in HELD_OUT


def every(colours: Sequence[str] = COLOURS) -> list[Placed]:
    """All combinations."""
    return [Placed(*p) for p in itertools.product(SHAPES, colours, COUNTS, PLACES)]


def drawn(rng: np.random.Generator, colours: Sequence[str] = COLOURS) -> Placed:
    """A combination that is not held out."""
    while True:
        made = Placed(
            str(rng.choice(SHAPES)), str(rng.choice(list(colours))), int(rng.choice(COUNTS)), str(rng.choice([*PLACES]))
        )
        if not made.held_out:
            return made


def render(told: Placed, rng: np.random.Generator, side: int = SIDE) -> Pixels:
    """(side, side, 3) RGB: the things on grey, jittered and lit by ``rng``."""
    canvas = np.full((side, side, 3), rng.uniform(95, 150), np.float32)
    one, *two = _SPOTS[told.place]
    spots = [one] if told.count == 1 else two
    thing = Thing(told.kind, told.colour)
    return compose(canvas, [(thing, x, y, 0.48) for x, y in spots], rng)


def caption(told: Placed, rng: np.random.Generator | None = None) -> str:
    """In Chinese, in one of several ways; without ``rng`` in the plainest."""
    kind = KINDS[told.kind]
    name = kind.names[0] if rng is None else str(rng.choice(kind.names[:2]))
    things = f"{NUMBERS[told.count]}{kind.measure}{told.colour}"
    forms = (
        f"{told.place}有{things}的{name}",
        f"{things}的{name}在{told.place}",
        f"图中{told.place}是{things}{name}",
    )
    return forms[0] if rng is None else str(rng.choice(forms))


def caption_en(told: Placed, rng: np.random.Generator | None = None) -> str:
    """In English, likewise."""
    noun = KINDS[told.kind].english
    colour = COLOURS_EN[told.colour]
    number = "an" if told.count == 1 and colour[0] in "aeiou" else NUMBERS_EN[told.count]
    things = f"{number} {colour} {noun}{'s' if told.count > 1 else ''}"
    forms = (
        f"{things} {PLACES[told.place]}",
        f"{PLACES[told.place]} {things}",
        f"a picture of {things} {PLACES[told.place]}",
    )
    return forms[0] if rng is None else str(rng.choice(forms))


Sample = tuple[str, bytes, str, dict[str, Any]]


def samples(
    n: int, seed: int, side: int = SIDE, mismatched: float = 0.0, colours: Sequence[str] = COLOURS
) -> Iterator[Sample]:
    """(key, JPEG, caption, JSON) of ``n`` pictures; a share ``mismatched`` has the captions of another one."""
    rng = np.random.default_rng([seed, 11])
    for i in range(n):
        told = drawn(rng, colours)
        picture = render(told, rng, side)
        wrong = bool(rng.random() < mismatched)
        said = drawn(rng, colours) if wrong else told
        words, key = caption(said, rng), f"{seed:06d}{i:08d}"
        made = [{"kind": kind, "caption": c} for kind, c in negatives(words, key)]
        record = {
            "key": key,
            "caption_en": caption_en(said, rng),
            "caption_synthetic": caption(said),
            "negatives": made,
        }
        yield key, encode(picture, quality=95), words, {**record, "mismatched": wrong, "truth": told._asdict()}


def write_shards(
    folder: Path,
    n: int,
    seed: int,
    split: str = "train",
    per_shard: int = 1000,
    side: int = SIDE,
    mismatched: float = 0.0,
    colours: Sequence[str] = COLOURS,
) -> list[ShardInfo]:
    """Write ``n`` pictures as SPLIT-*.tar with their ``index.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = samples(n, seed, side, mismatched, colours)
    written = []
    for i, part in enumerate(iter(lambda: list(itertools.islice(stream, per_shard)), [])):
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
    parser.add_argument("--side", type=int, default=SIDE, help="pixels")
    parser.add_argument("--mismatched", type=float, default=0.0, help="share of captions that belong elsewhere")
    parser.add_argument("--new-colours", action="store_true", help="only colours that the others never have")
    given = parser.parse_args()
    colours = NEW_COLOURS if given.new_colours else COLOURS
    write_shards(given.out, given.samples, given.seed, given.split, 1000, given.side, given.mismatched, colours)


if __name__ == "__main__":
    main()
