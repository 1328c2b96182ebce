"""What the benchmarks of the generation trainer share: how much of everything, data, the judge, what was trained."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuwen import __version__
from tuwen.sample_data import placed
from tuwen.sample_data.placed import Placed
from tuwen.trainers import bootstrap, shards
from tuwen.trainers.bootstrap import Estimate
from tuwen.trainers.generation import align, base, loop, metrics, model, probe, sheet
from tuwen.trainers.generation.domain import DomainConfig
from tuwen.trainers.generation.model import TextToImage
from tuwen.trainers.shards import DataConfig, PairStream

SIDE = 16
EVERYTHING = (*placed.COLOURS, *placed.NEW_COLOURS)


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    pairs: int = 4000
    prompts: int = 192
    real: int = 2000
    base: int = 1500
    align: int = 250
    domain: int = 120
    lora_rate: float = 2e-3
    """Learning rate of the adapters; the weights themselves are tuned at 5e-4."""
    keep: float = DomainConfig.keep
    """Weight of learning without forgetting, in the arms that have it."""
    guidance: int = 160
    halving: int = 100
    prune: int = 250
    curated: int = 350
    towers: int = 150
    steps: int = 32
    """Sampling steps of the base."""
    few: int = 16
    """Sampling steps where arms of one kind are compared with each other."""
    rounds: int = 15
    unet: tuple[tuple[str, Any], ...] = ()


QUICK = Plan(
    pairs=96, prompts=12, real=64, base=2, align=2, domain=2, guidance=2, halving=2, prune=2, curated=2, towers=2,
    steps=16, few=2, rounds=2,
    unet=(("block_out_channels", (8, 16)), ("norm_num_groups", 4)),
)  # fmt: skip


def machine() -> str:
    """What the figures were measured on."""
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "diffusers", "peft", "numpy"))
    return (
        f"tuwen {__version__}, {platform.machine()} with {os.cpu_count()} cores, {torch.get_num_threads()} thread; "
        f"Python {platform.python_version()}, {packages}"
    )


class Bench:
    """Data, judge and trained models of one seed, kept in a folder."""

    def __init__(self, work: Path, plan: Plan, seed: int, quick: bool = False, base_seed: int | None = None) -> None:
        self.work, self.plan, self.seed, self.quick = work, plan, seed, quick
        self.base_seed = seed if base_seed is None else base_seed
        self.failed: list[str] = []
        for name, colours, mismatched, n in (
            ("train", placed.COLOURS, 0.0, plan.pairs),
            ("new", placed.NEW_COLOURS, 0.0, plan.pairs // 8),
            ("raw", placed.COLOURS, 0.4, plan.pairs // 2),
        ):
            if not (work / name / "index.json").is_file():
                number = {"train": 0, "new": 1, "raw": 2}[name]
                placed.write_shards(work / name, n, number, mismatched=mismatched, colours=colours)
        if not (work / "probe" / probe.TOLD).is_file():
            pictures, told = real(plan.pairs, 1, EVERYTHING)
            probe.trained(pictures, told, steps=20 if quick else probe.STEPS).save(work / "probe")
        self.judge = probe.Probe.load(work / "probe")
        rng = np.random.default_rng(1000 + seed)
        self.asked = [placed.drawn(rng) for _ in range(plan.prompts)]
        self.unseen = [p for p in placed.every() if p.held_out][: plan.prompts]
        self.new = [Placed(p.kind, str(rng.choice(placed.NEW_COLOURS)), p.count, p.place) for p in self.asked]
        pictures, told = real(plan.real, 9)
        self.real_rows, _ = self.judge.look(pictures.float() / 255)
        self.ceiling = self.judge.right(pictures.float() / 255, told)
        spare, _ = real(plan.prompts, 10)
        self.floor = metrics.frechet(self.judge.look(spare.float() / 255)[0], self.real_rows)

    def stream(self, name: str, batch: int = 32, **fields: Any) -> PairStream:
        """Batches of one of the sets of shards."""
        path = Path(name) if Path(name).is_absolute() else self.work / name
        return PairStream(shards.find([str(path)]), DataConfig(batch=batch, crop=1.0, seed=self.seed, **fields), SIDE)

    def kept(self, name: str, make: Callable[[], TextToImage]) -> TextToImage:
        """A model that is trained once."""
        folder = self.work / f"{name}-{self.seed}"
        if not (folder / "model_index.json").is_file():
            began = time.process_time()
            made = make()
            print(f"  [{name}, seed {self.seed}: {time.process_time() - began:.0f} CPU s]", flush=True)
            model.save(made, folder)
        return model.load(folder)

    def fit(self, objective: loop.Objective, streams: Sequence[PairStream], n: int, rate: float) -> None:
        """Train, as the command does."""
        loop.fit(objective, streams, loop.TrainConfig(steps=n, learning_rate=rate, seed=self.seed, log_every=10**9))

    def base(self) -> TextToImage:
        """The English foundation."""
        if self.base_seed != self.seed:
            return Bench(self.work, self.plan, self.base_seed, self.quick).base()

        def make() -> TextToImage:
            words = [placed.caption_en(p) for p in placed.every(EVERYTHING)] + ["a picture of"]
            made = model.new(dict(self.plan.unet), words, {}, seed=self.seed)
            self.fit(
                base.Base(made, base.DiffusionConfig()),
                [self.stream("train", caption="caption_en")],
                self.plan.base,
                2e-3,
            )
            return made

        return self.kept("base", make)

    def chinese(self, name: str = "align", **fields: Any) -> TextToImage:
        """The foundation with a Chinese text side."""
        if self.base_seed != self.seed and name == "align":
            return Bench(self.work, self.plan, self.base_seed, self.quick).chinese()
        config = align.AlignConfig(**fields)

        def make() -> TextToImage:
            foundation = self.base()
            rng = np.random.default_rng(0)
            words = [placed.caption(p, rng) for p in placed.every(EVERYTHING) for _ in range(4)]
            made = align.chinese(foundation, config, words, self.seed)
            streams = [self.stream("train", parallel="caption_en")]
            self.fit(align.Align(made, foundation, config, base.DiffusionConfig()), streams, self.plan.align, 2e-3)
            return made

        return self.kept(name, make)

    def draw(
        self, made: TextToImage, asked: Sequence[Placed], n: int, weight: float = 1.0, english: bool = False
    ) -> Tensor:
        """Images of what is asked for."""
        say = placed.caption_en if english else placed.caption
        return made([say(p) for p in asked], n, weight, self.seed)

    def right(self, images: Tensor, asked: Sequence[Placed]) -> dict[str, np.ndarray]:
        """Hits by attribute."""
        return self.judge.right(images, [p._asdict() for p in asked])

    def apart(self, images: Tensor) -> Estimate:
        """Fréchet distance from real pictures."""
        return metrics.frechet_estimate(self.judge.look(images)[0], self.real_rows)

    def verdict(self, what: str, held: bool, valid: bool = True) -> None:
        """Print and remember whether a promise holds."""
        said = "INVALID: baseline and ceiling do not separate" if not valid else "holds" if held else "FAILS"
        print(f"  {what}: {said}", flush=True)
        if not (held and valid):
            self.failed.append(what)


def real(n: int, seed: int, colours: Sequence[str] = placed.COLOURS) -> tuple[Tensor, list[dict[str, Any]]]:
    """Pictures uint8 (n, 3, 16, 16) as the stream gives them, and what they show; all colours: held-out pairs too."""
    rng = np.random.default_rng([seed, 5])
    pictures, told = [], []
    for _ in range(n):
        p = placed.drawn(rng, colours)
        if len(colours) > len(placed.COLOURS):
            p = p._replace(kind=str(rng.choice(placed.SHAPES)))
        pictures.append(picture(p, rng))
        told.append(p._asdict())
    return torch.stack(pictures), told


def picture(p: Placed, rng: np.random.Generator) -> Tensor:
    """uint8 (3, 16, 16)"""
    cut = shards.crop(placed.encode(placed.render(p, rng), quality=95), SIDE, 1.0, rng)
    assert cut is not None
    return torch.from_numpy(cut).permute(2, 0, 1).contiguous()


def share(hits: np.ndarray) -> str:
    """Accuracy with its interval over prompts."""
    return str(bootstrap.mean(np.asarray(hits, np.float64)))


def chance(asked: Sequence[Placed]) -> float:
    """All four attributes right by luck."""
    sizes = (len({getattr(p, n) for p in asked}) for n in Placed._fields)
    return float(np.prod([1 / s for s in sizes]))


def sheet_of(bench: Bench, name: str, images: Tensor) -> None:
    """Keep a contact sheet."""
    path = bench.work / "sheets" / f"{name}-{bench.seed}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sheet.png(sheet.grid(sheet.pixels(images[:48]), 12)))
