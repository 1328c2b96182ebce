"""What the generation trainer promises, measured on small placed pictures (``tuwen.sample_data.placed``).

    python benchmarks/generation.py base       attribute accuracy between chance and the probe's ceiling
    python benchmarks/generation.py align      Chinese from a frozen English foundation, against pairs alone
    python benchmarks/generation.py towers     the same for retrieval: an English text tower to a Chinese one, no images
    python benchmarks/generation.py domain     new colours: fine-tuning, LoRA, learning without forgetting, replay
    python benchmarks/generation.py negatives  attribute negatives in tuning, at equal steps
    python benchmarks/generation.py fast       guidance, steps, pruning, alone and together, in one table
    python benchmarks/generation.py curated    curated shards against raw ones at equal compute

``--work DIR`` keeps what was trained, so that parts share the base and a run that was broken off goes on; ``--seeds N``
runs N fresh seeds; ``--quick`` only shows that everything runs (its figures mean nothing). The judge is a probe trained
on real pictures; accuracy is the share of images in which an attribute (or all four: kind, colour, number, place) is
what the prompt asks for. Fréchet distances are in the probe's feature space, over as many images each. Intervals (95 %)
are bootstraps over prompts for one seed and Student's t over seeds for several. A line is INVALID where baseline and
ceiling do not separate. Seconds are of one thread, arms interleaved, medians.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuwen import __version__
from tuwen.sample_data import placed
from tuwen.sample_data.placed import Placed
from tuwen.trainers import bootstrap, lora, shards
from tuwen.trainers.bootstrap import Estimate
from tuwen.trainers.generation import (
    align,
    base,
    domain,
    guidance,
    loop,
    metrics,
    model,
    probe,
    prune,
    sheet,
    steps,
)
from tuwen.trainers.generation.model import TextToImage
from tuwen.trainers.generation.sampling import evaluations
from tuwen.trainers.shards import DataConfig, PairStream

SIDE = 16
EVERYTHING = (*placed.COLOURS, *placed.NEW_COLOURS)
RECIPE = """name: placed
about: What keeps a caption that belongs to its picture, for small pictures.
source: tuwen's own choice
stages:
  - normalise
  - decode:
      shorter_side: 32
  - image_safety
  - jpeg
  - score
"""


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
        data = placed.encode(placed.render(p, rng), quality=95)
        cut = shards.crop(data, SIDE, 1.0, rng)
        assert cut is not None
        pictures.append(cut)
        told.append(p._asdict())
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), told


def share(hits: np.ndarray) -> str:
    """Accuracy with its interval over prompts."""
    return str(bootstrap.mean(np.asarray(hits, np.float64)))


def chance(asked: Sequence[Placed]) -> float:
    """All four attributes right by luck."""
    sizes = (len({getattr(p, n) for p in asked}) for n in Placed._fields)
    return float(np.prod([1 / s for s in sizes]))


def part_base(bench: Bench) -> dict[str, float]:
    """1: samples against chance and ceiling."""
    made = bench.base()
    print(
        f"base, seed {bench.seed}: {model.parameters(made):,} parameters, {bench.plan.base} steps of 32 pairs, English"
    )
    told = {}
    for name, asked in (("seen combinations", bench.asked), ("unseen combinations", bench.unseen)):
        images = bench.draw(made, asked, bench.plan.steps, 1.0, english=True)
        hits = bench.right(images, asked)
        told[name] = float(hits["all"].mean())
        print(f"  {name:<20} " + "  ".join(f"{k} {share(v)}" for k, v in hits.items()), flush=True)
        sheet_of(bench, f"base-{name.split()[0]}", images)
        if name.startswith("seen"):
            print(f"  Fréchet distance {bench.apart(images)}; floor (as many real pictures) {bench.floor:.2f}")
            rows = bench.judge.look(images)[0]
            print(f"  diversity {metrics.diversity(rows)}; real {metrics.diversity(bench.real_rows[: len(rows)])}")
            plain = bench.right(bench.draw(made, asked, bench.plan.few, 0.0, english=True), asked)
            print(f"  without guidance, {bench.plan.few} steps: all {share(plain['all'])}")
    ceiling, luck = float(bench.ceiling["all"].mean()), chance(bench.asked)
    print(f"  ceiling (probe on real pictures) {ceiling:.3f}; chance {luck:.4f}")
    told |= {"ceiling": ceiling, "chance": luck}
    reached = (told["seen combinations"] - luck) / (ceiling - luck)
    bench.verdict(
        f"{reached:.1%} of the way from chance to the ceiling (90 % asked)", reached >= 0.9, ceiling - luck > 0.5
    )
    return told


def part_align(bench: Bench) -> dict[str, float]:
    """2: Chinese prompts against English ones on the same network."""
    foundation = bench.base()
    before = weights(foundation)
    made = bench.chinese()
    pairs = bench.chinese("pairs", output=0.0, features=0.0, embedding=0.0)
    trained = model.parameters(made, "text_encoder", "adapter")
    whole = model.parameters(made)
    print(
        f"align, seed {bench.seed}: {trained:,} of {whole:,} parameters trained ({trained / whole:.1%}), "
        f"{bench.plan.align} steps of 32"
    )
    hits = {}
    for name, one, english in (("English", foundation, True), ("Chinese", made, False), ("pairs alone", pairs, False)):
        images = bench.draw(one, bench.asked, bench.plan.few, 1.0, english)
        hits[name] = bench.right(images, bench.asked)
        print(f"  {name:<12} " + "  ".join(f"{k} {share(v)}" for k, v in hits[name].items()), flush=True)
        sheet_of(bench, f"align-{name.split()[0]}", images)
    told = {n: float(h["all"].mean()) for n, h in hits.items()}
    luck = chance(bench.asked)
    valid = told["English"] - luck > 0.3
    bench.verdict(
        f"Chinese at {told['Chinese'] / max(1e-9, told['English']):.1%} of English (95 % asked)",
        told["Chinese"] >= 0.95 * told["English"],
        valid,
    )
    gain = bootstrap.mean(hits["Chinese"]["all"] - hits["pairs alone"]["all"])
    bench.verdict(f"parallel captions over pairs alone by {gain}", gain.low > 0, valid)
    bench.verdict(f"{trained / whole:.1%} of the parameters trained (under 10 % asked)", trained < 0.1 * whole)
    same = before == weights(foundation) and torch.equal(made.unet.conv_in.weight, foundation.unet.conv_in.weight)
    same = same and weights_of(made.unet) == weights_of(foundation.unet)
    bench.verdict("the network and the English side are unchanged to the bit", same)
    return told


def weights(made: TextToImage) -> str:
    """A hash of all weights."""
    return "".join(weights_of(m) for m in made.modules_named().values())


def weights_of(module: torch.nn.Module) -> str:
    """A hash of one module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


ARMS: dict[str, dict[str, Any]] = {
    "fine-tuning": {"lora": None, "replay": 0.0, "keep": 0.0},
    "LoRA": {"replay": 0.0, "keep": 0.0},
    "LoRA + LwF": {"replay": 0.0, "keep": 1.0},
    "LoRA + replay": {"replay": 0.5, "keep": 0.0},
    "LoRA + replay + LwF (default)": {},
}


def part_domain(bench: Bench) -> dict[str, float]:
    """3: new colours, gained and lost."""
    start = bench.chinese()
    few = bench.plan.few
    before = {
        name: bench.right(bench.draw(start, asked, few), asked)
        for name, asked in (("new", bench.new), ("old", bench.asked))
    }
    print(
        f"domain, seed {bench.seed}: {' and '.join(placed.NEW_COLOURS)} are new; "
        f"{bench.plan.domain} steps, 16 new pairs in each, "
        f"and 16 old ones where there is replay; adapters at {bench.plan.lora_rate:g}"
    )
    print(
        f"  before                         new {share(before['new']['all'])}  old {share(before['old']['all'])}",
        flush=True,
    )
    told: dict[str, float] = {}
    found = {}
    for name, fields in ARMS.items():
        rate = "" if "lora" in fields else f"-{bench.plan.lora_rate:g}"
        label = f"domain-{name.split(' (')[0].replace(' ', '')}{rate}"
        made = bench.kept(label, lambda f=fields: tuned(bench, start, **f))
        now = {n: bench.right(bench.draw(made, a, few), a) for n, a in (("new", bench.new), ("old", bench.asked))}
        gain = bootstrap.mean(now["new"]["all"] - before["new"]["all"])
        lost = bootstrap.mean(before["old"]["all"] - now["old"]["all"])
        found[name] = (gain.value, lost.value)
        told |= {f"{name}: gain": gain.value, f"{name}: lost": lost.value}
        print(f"  {name:<30} new {share(now['new']['all'])}  gained {gain}  lost on the old {lost}", flush=True)
    tuning, default = found["fine-tuning"], found["LoRA + replay + LwF (default)"]
    valid = tuning[0] > 0.2 and tuning[1] > 0.1
    bench.verdict(f"the default loses {100 * default[1]:.1f} points (at most 5 asked)", default[1] <= 0.05, valid)
    part = default[0] / max(1e-9, tuning[0])
    bench.verdict(f"and has {part:.0%} of fine-tuning's gain (75 % asked)", part >= 0.75, valid)
    return told


def tuned(bench: Bench, start: TextToImage, wrong: float = 0.0, on: str = "new", **fields: Any) -> TextToImage:
    """``start`` tuned on a set of shards."""
    settings = domain.DomainConfig(old=("old",), wrong=wrong, **{"lora": lora.LoraConfig(), **fields})
    made = model.copied(start)
    objective = domain.Domain(made, settings, base.DiffusionConfig(), bench.seed)
    streams = [bench.stream(on, 16, negatives=1 if wrong else 0)]
    if settings.replay or settings.keep:
        streams.append(bench.stream("train", 16))
    bench.fit(objective, streams, bench.plan.domain, 5e-4 if settings.lora is None else bench.plan.lora_rate)
    objective.finish()
    return made


def part_negatives(bench: Bench) -> dict[str, float]:
    """3b: attribute negatives of the shards as hard negatives in tuning, at equal steps."""
    start = bench.chinese()
    arms = {"before": start}
    for name, wrong in (("tuned on", 0.0), ("with negatives", 0.5)):
        fields = {"lora": lora.LoraConfig(), "replay": 0.0, "keep": 0.0}
        arms[name] = bench.kept(f"negatives-{wrong}", lambda w=wrong, f=fields: tuned(bench, start, w, "train", **f))
    print(
        f"negatives, seed {bench.seed}: {bench.plan.domain} more steps on the same pairs; "
        f"drawn without guidance in {bench.plan.few} steps"
    )
    hits = {}
    asked = [*bench.asked, *bench.unseen]
    for name, made in arms.items():
        hits[name] = bench.right(bench.draw(made, asked, bench.plan.few, 0.0), asked)
        print(f"  {name:<16} " + "  ".join(f"{k} {share(v)}" for k, v in hits[name].items()), flush=True)
    gain = bootstrap.mean(hits["with negatives"]["all"] - hits["tuned on"]["all"])
    room = float(bench.ceiling["all"].mean()) - float(hits["tuned on"]["all"].mean())
    bench.verdict(f"negatives change accuracy by {gain}", gain.low > 0, room > 0.02)
    return {"gain": gain.value}


def part_fast(bench: Bench) -> dict[str, float]:
    """4: guidance, steps and pruning, each alone and together."""
    start, plan = bench.chinese(), bench.plan
    weight = 1.0
    weights_ = guidance.GuidanceConfig()

    def guide(teacher: TextToImage) -> TextToImage:
        made = guidance.student(teacher, weights_)
        bench.fit(guidance.Guidance(made, teacher, weights_), [bench.stream("train")], plan.guidance, 5e-4)
        return made

    def halve(teacher: TextToImage, n: int) -> TextToImage:
        made = model.copied(teacher)
        objective = steps.Steps(made, teacher, n, steps.StepsConfig(), weights_)
        bench.fit(objective, [bench.stream("train")], plan.halving, 3e-4)
        return made

    def cut() -> TextToImage:
        config = prune.PruneConfig(speed=1.01 if bench.quick else 1.5)
        removed, table = prune.chosen(start, next(iter(bench.stream("train", 16))), config)
        print("  sensitivity, taken out already and next (one pass, milliseconds an image):")
        for row in table:
            print(
                f"    {row['after']:<24} and without {row['name']:<8} saves {row['saved']:+.3f} "
                f"of {row['whole_ms']:.3f}  error {row['error']:.4f}  {row['parameters']:,} parameters"
            )
        print(f"  taken out: {', '.join(removed)}", flush=True)
        made = prune.smaller(start, removed)
        bench.fit(
            prune.Prune(made, start, config, base.DiffusionConfig(), weights_),
            [bench.stream("train")],
            plan.prune,
            1e-3,
        )
        return made

    print(f"fast, seed {bench.seed}: guided by {weight}")
    guided = bench.kept("guided", lambda: guide(start))
    chain = {16: guided}
    for n in (8, 4, 2):
        chain[n] = bench.kept(f"steps-{n}", lambda m=n: halve(chain[2 * m], m))
    small = bench.kept("pruned", cut)
    small_guided = bench.kept("pruned-guided", lambda: guide(small))
    small_chain = {16: small_guided}
    for n in (8, 4):
        small_chain[n] = bench.kept(f"pruned-steps-{n}", lambda m=n: halve(small_chain[2 * m], m))
    rows: list[tuple[str, TextToImage, int]] = [
        ("base", start, plan.steps), ("base", start, 8), ("base", start, 4),
        ("+ guidance", guided, plan.steps),
        ("+ guidance + steps", chain[8], 8), ("+ guidance + steps", chain[4], 4), ("+ guidance + steps", chain[2], 2),
        ("+ pruning", small, plan.steps),
        ("+ pruning + guidance + steps", small_chain[8], 8), ("+ pruning + guidance + steps", small_chain[4], 4),
    ]  # fmt: skip
    seconds = timed([(m, n) for _, m, n in rows], placed.caption(bench.asked[0]), weight, plan.rounds)
    told: dict[str, float] = {}
    found: dict[tuple[str, int], tuple[int, Estimate, float]] = {}
    print(f"  {'model':<30} steps passes  s/image  faster  Fréchet (floor {bench.floor:.2f})      all attributes")
    for (name, made, n), took in zip(rows, seconds, strict=True):
        images = bench.draw(made, bench.asked, n, weight)
        apart, passes = bench.apart(images), evaluations(made, n, weight)
        found[name, n] = (passes, apart, took)
        told |= {f"{name} {n}: frechet": apart.value, f"{name} {n}: seconds": took}
        hits = bench.right(images, bench.asked)["all"]
        print(
            f"  {name:<30} {n:5d} {passes:6d} {took:8.4f} {seconds[0] / took:6.2f}x  {apart!s:<30} {share(hits)}",
            flush=True,
        )
        sheet_of(bench, f"fast-{name.replace(' ', '')}-{n}", images)
    origin, worse = found["base", plan.steps], found["base", 4]
    valid = worse[1].value > 1.1 * origin[1].value
    for n in (8, 4, 2):
        passes, apart, took = found["+ guidance + steps", n]
        fewer, more = origin[0] / passes, apart.value / origin[1].value - 1
        line = f"{n} steps: {fewer:.0f}x fewer passes, Fréchet {more:+.1%} of the base's (8x, +10 % asked)"
        if n == 8:
            bench.verdict(line, fewer >= 8 and more <= 0.1, valid)
            twice = found["base", 8]
            bench.verdict(
                f"better than the base at {twice[0]} passes ({apart.value:.2f} < {twice[1].value:.2f})",
                apart.value < twice[1].value,
                valid,
            )
            bench.verdict(f"{origin[2] / took:.1f}x faster in seconds (4x asked)", origin[2] / took >= 4)
        else:
            print(f"  {line}: for the record")
    cost = origin[2] / found["+ pruning", plan.steps][2]
    more = found["+ pruning", plan.steps][1].value / origin[1].value - 1
    bench.verdict(
        f"pruned: {cost:.2f}x per step, Fréchet {more:+.1%} (1.5x, +30 % asked)", cost >= 1.5 and more <= 0.3, valid
    )
    total_ = origin[2] / found["+ pruning + guidance + steps", 8][2]
    shares = {
        "guidance": origin[2] / found["+ guidance", plan.steps][2],
        "steps": found["+ guidance", plan.steps][2] / found["+ guidance + steps", 8][2],
        "pruning": found["+ guidance + steps", 8][2] / found["+ pruning + guidance + steps", 8][2],
    }
    parts = ", ".join(f"{k} {v:.2f}x ({np.log(v) / np.log(total_):.0%})" for k, v in shares.items())
    print(f"  all together {total_:.1f}x at 8 steps: {parts} (shares of the logarithm)")
    return told


def timed(rows: Sequence[tuple[TextToImage, int]], prompt: str, weight: float, rounds: int) -> list[float]:
    """Median seconds of one image, arms interleaved."""
    taken: list[list[float]] = [[] for _ in rows]
    for made, _ in rows:
        made([prompt], 1, weight)
    for i in range(rounds):
        for held, (made, n) in zip(taken, rows, strict=True):
            began = time.perf_counter()
            made([prompt], n, weight, i)
            held.append(time.perf_counter() - began)
    return [float(np.median(held)) for held in taken]


def part_curated(bench: Bench) -> dict[str, float]:
    """5: curated shards against raw ones, and against the clean part of them, at equal compute."""
    run, clean = bench.work / "curated", bench.work / "clean"
    if not any(run.glob("shards/*.tar")):
        curate(bench, run)
    if not (clean / "index.json").is_file():
        part = [s for s in shards.every(shards.find([str(bench.work / "raw")])) if not s.told["mismatched"]]
        clean.mkdir(exist_ok=True)
        from tuwen.export.shards import write_index, write_shard

        told = [(s.key, s.image, s.caption, s.told) for s in part]
        write_index(str(clean), [write_shard(str(clean / "train-000000.tar"), told)])
    arms = {"raw": str(bench.work / "raw"), "curated": str(run), "clean (ceiling)": str(clean)}
    print(
        f"curated, seed {bench.seed}: 40 % of the raw captions belong to other pictures; "
        f"{bench.plan.curated} steps of 32 each"
    )
    hits, apart, told = {}, {}, {}
    for name, path in arms.items():
        pairs = shards.find([path]).samples

        def make(path: str = path) -> TextToImage:
            rng = np.random.default_rng(0)
            words = [placed.caption(p, rng) for p in placed.every() for _ in range(4)]
            made = model.new(dict(bench.plan.unet), words, {}, seed=bench.seed)
            bench.fit(base.Base(made, base.DiffusionConfig()), [bench.stream(path)], bench.plan.curated, 2e-3)
            return made

        made = bench.kept(f"from-{name.split()[0]}", make)
        images = bench.draw(made, bench.asked, bench.plan.few)
        hits[name], apart[name] = bench.right(images, bench.asked), bench.apart(images)
        told[name] = float(hits[name]["all"].mean())
        print(
            f"  {name:<16} {pairs:5d} pairs  all {share(hits[name]['all'])}  "
            + "  ".join(f"{k} {v.mean():.3f}" for k, v in hits[name].items() if k != "all")
            + f"  Fréchet {apart[name]}",
            flush=True,
        )
    gain = bootstrap.mean(hits["curated"]["all"] - hits["raw"]["all"])
    valid = told["clean (ceiling)"] - told["raw"] > 0.05
    bench.verdict(f"curated over raw by {gain} in attribute accuracy", gain.low > 0, valid)
    return told


def curate(bench: Bench, run: Path) -> None:
    """``curate run`` with the embedded scorer, on the raw shards."""
    from tuwen.pipeline.cli import main

    recipe = bench.work / "placed.yaml"
    recipe.write_text(RECIPE, "utf-8")
    words = ["run", str(bench.work / "raw"), "-o", str(run), "-r", str(recipe), "-j", "1"]
    held, sys.argv = sys.argv, ["curate", *words]
    try:
        main()
    except SystemExit as done:
        if done.code:
            raise
    finally:
        sys.argv = held


def part_towers(bench: Bench) -> dict[str, float]:
    """2b: a retrieval model's English text tower to a Chinese one on parallel captions alone."""
    from tuwen.trainers import align_towers, towers
    from tuwen.trainers.retrieval import RetrievalConfig, fit

    folder, rng = bench.work / f"clip-{bench.seed}", np.random.default_rng(3)
    words = [placed.caption_en(p, rng) for p in placed.every() for _ in range(3)]
    sizes = {"layers": 2, "width": 64, "patch_size": 4, "image_size": SIDE, "head_width": 16}
    config = towers.ModelConfig(
        "tiny", "captions", 64, sizes, {"layers": 1, "width": 64, "heads": 4, "context_length": 48}
    )
    if not (folder / towers.WEIGHTS).is_file():
        towers.prepare(config, folder, words)
        clip, tokenize, _ = towers.build(folder, bench.seed)
        plain = RetrievalConfig(
            steps=2 * bench.plan.towers, warmup=20, threshold_weight=0.0, seed=bench.seed, learning_rate=2e-3
        )
        fit(clip, tokenize, bench.stream("train", 64, caption="caption_en"), plain)
        towers.save_weights(clip, folder)
    print(f"towers, seed {bench.seed}: {bench.plan.towers} steps of 64 captions in two languages, no images")
    chinese = [placed.caption(p, rng) for p in placed.every() for _ in range(3)]
    asked = [*placed.every()]
    asked = [p for p in asked if not p.held_out]
    pictures = torch.stack(
        [
            torch.from_numpy(
                shards.crop(placed.encode(placed.render(p, rng), quality=95), SIDE, 1.0, rng).transpose(2, 0, 1).copy()
            )
            for p in asked
        ]
    )  # type: ignore[union-attr]
    told: dict[str, float] = {}
    hits = {}
    english, tokenize, _ = towers.build(folder, bench.seed, str(folder))
    hits["English"] = recall(english, tokenize, pictures, [placed.caption_en(p) for p in asked])
    for name, pairs_alone in (("Chinese, parallel captions", False), ("Chinese, as many pairs", True)):
        model_, words_ = align_towers.chinese(
            folder, bench.work / f"{name.split(', ')[1].replace(' ', '-')}-{bench.seed}", chinese, bench.seed
        )
        batches = bench.stream("train", 64, parallel="caption_en")
        if pairs_alone:
            plain = RetrievalConfig(
                steps=bench.plan.towers, warmup=20, threshold_weight=0.0, seed=bench.seed, learning_rate=2e-3
            )
            model_.visual.requires_grad_(False)
            model_.logit_scale.requires_grad_(False)
            fit(model_, words_, batches, plain)
        else:
            aligned = align_towers.AlignConfig(bench.plan.towers, 2e-3, 20, bench.seed)
            align_towers.fit(model_, words_, english, tokenize, batches, aligned)
        hits[name] = recall(model_, words_, pictures, [placed.caption(p) for p in asked])
    for name, found in hits.items():
        told[name] = float(found.mean())
        print(f"  {name:<28} R@1, text to image, {share(found)}", flush=True)
    part = told["Chinese, parallel captions"] / max(1e-9, told["English"])
    valid = told["English"] > 20 / len(asked)
    bench.verdict(f"Chinese at {part:.1%} of English with no image (95 % asked)", part >= 0.95, valid)
    gain = bootstrap.mean(hits["Chinese, parallel captions"] - hits["Chinese, as many pairs"])
    bench.verdict(f"over as many image-text pairs by {gain}", gain.value > 0, valid)
    return told


@torch.no_grad()
def recall(clip: Any, tokenize: Any, pictures: Tensor, captions: list[str]) -> np.ndarray:
    """(n,) 1 where a caption's picture comes first."""
    clip.eval()
    images = clip.encode_image(pictures.float() / 127.5 - 1, normalize=True)
    found = clip.encode_text(tokenize(captions), normalize=True) @ images.T
    return (found.argmax(1) == torch.arange(len(captions))).numpy().astype(np.float64)


def sheet_of(bench: Bench, name: str, images: Tensor) -> None:
    """Keep a contact sheet."""
    path = bench.work / "sheets" / f"{name}-{bench.seed}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sheet.png(sheet.grid(sheet.pixels(images[:48]), 12)))


PARTS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "base": part_base,
    "align": part_align,
    "towers": part_towers,
    "domain": part_domain,
    "negatives": part_negatives,
    "fast": part_fast,
    "curated": part_curated,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--base-seed", type=int, help="all seeds begin with the base and the alignment of this one")
    parser.add_argument("--work", type=Path, help="folder that keeps what was trained")
    parser.add_argument("--lora-rate", type=float, default=Plan.lora_rate, help="learning rate of adapters in domain")
    parser.add_argument("--quick", action="store_true", help="only that it runs")
    parser.add_argument("--check", action="store_true", help="exit 1 where something that is promised does not hold")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.parts:
            told = []
            for seed in range(given.first, given.first + given.seeds):
                plan = replace(QUICK if given.quick else Plan(), lora_rate=given.lora_rate)
                bench = Bench(work, plan, seed, given.quick, given.base_seed)
                told.append(PARTS[name](bench))
                failed += bench.failed
            if len(told) > 1:
                print(f"{name}, mean over {len(told)} seeds with 95 % t intervals:")
                for key in told[0]:
                    print(f"  {key:<44} {bootstrap.over_seeds([t[key] for t in told])}")
    if given.check and failed:
        sys.exit(f"does not hold: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
