"""Guidance, steps and pruning, each alone and together: ``python benchmarks/generation.py fast``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from generation_common import Bench, share, sheet_of
from torch import Tensor

from tuwen.sample_data import placed
from tuwen.trainers import bootstrap
from tuwen.trainers.bootstrap import Estimate
from tuwen.trainers.generation import base, export, guidance, metrics, model, prune, steps
from tuwen.trainers.generation.model import TextToImage
from tuwen.trainers.generation.onnx_model import OnnxModel
from tuwen.trainers.generation.sampling import evaluations

Drawer = Callable[..., Tensor]
"""Prompts, steps, weight and seed to images."""
BASE, GUIDED, STUDENT, TOGETHER = "base", "+ guidance", "+ guidance + steps", "+ pruning + guidance + steps"
EXPORTED = "the same, exported"


class Row(NamedTuple):
    """One model at one number of steps."""

    passes: int
    seconds: float
    rows: np.ndarray
    """Its images in the scorer's embedding."""
    frechet: float


def part_fast(bench: Bench) -> dict[str, float]:
    """4: guidance, steps and pruning, each alone and together."""
    start, plan = bench.start(), bench.plan
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
    # Errors add up from student to student: 4 steps are learned from 8 of the guided model, which are as good as 32.
    chain = {
        8: bench.kept("steps-8", lambda: halve(guided, 8)),
        4: bench.kept("steps-4", lambda: halve(guided, 4)),
    }
    chain[2] = bench.kept("steps-2", lambda: halve(chain[4], 2))
    small = bench.kept("pruned", cut)
    small_guided = bench.kept("pruned-guided", lambda: guide(small))
    small_fast = bench.kept("pruned-steps-4", lambda: halve(small_guided, 4))
    drawers: list[tuple[str, TextToImage, int]] = [
        *((BASE, start, n) for n in (plan.steps, 8, 4, 2)),
        *((GUIDED, guided, n) for n in (plan.steps, 8)),
        *((STUDENT, chain[n], n) for n in (8, 4, 2)),
        ("+ pruning", small, plan.steps),
        (TOGETHER, small_fast, 4),
    ]
    arms: list[tuple[str, Drawer, int, int]] = [(a, m, n, evaluations(m, n, weight)) for a, m, n in drawers]
    arms.append((EXPORTED, exported(bench, small_fast), 4, 4))
    seconds = timed([(draw, n) for _, draw, n, _ in arms], placed.caption(bench.asked[0]), weight, plan.rounds)
    told: dict[str, float] = {}
    found: dict[tuple[str, int], Row] = {}
    print(
        f"  Fréchet distance (1000 times) in the scorer's embedding, floor {1000 * bench.scorer_floor:.2f}, and in the "
        f"probe's features, floor {bench.floor:.2f}\n"
        f"  {'model':<30} steps passes  s/image  faster  in the scorer's           against the base         "
        "probe's  all attributes"
    )
    origin: Row | None = None
    for (name, made, n, passes), took in zip(arms, seconds, strict=True):
        images = bench.draw(made, bench.asked, n, weight)
        rows = bench.scored(images)
        apart = metrics.frechet_estimate(1000**0.5 * rows, 1000**0.5 * bench.scorer_rows)
        origin = origin or Row(passes, took, rows, apart.value)
        row = found[name, n] = Row(passes, took, rows, apart.value)
        told |= {f"{name} {n}: frechet": apart.value, f"{name} {n}: seconds": took}
        print(
            f"  {name:<30} {n:5d} {passes:6d} {took:8.4f} {origin.seconds / took:6.2f}x  {apart!s:<25} "
            f"{farther(row, origin, bench.scorer_rows)!s:<24} {bench.apart(images).value:7.2f}  "
            f"{share(bench.right(images, bench.asked)['all'])}",
            flush=True,
        )
        sheet_of(bench, f"fast-{name.replace(' ', '')}-{n}", images)
    judged(bench, found)
    return told


def judged(bench: Bench, found: dict[tuple[str, int], Row]) -> None:
    """What holds: one student must have all that is asked for; pruning is judged by itself."""
    steps_ = bench.plan.steps
    origin = found[BASE, steps_]
    valid = found[BASE, 2].frechet > 1.1 * origin.frechet
    students = []
    candidates = ((GUIDED, 8), *((STUDENT, n) for n in (8, 4, 2)))
    for name, n in candidates:
        row, twice = found[name, n], found[BASE, n]
        fewer, more, faster = origin.passes / row.passes, row.frechet / origin.frechet - 1, origin.seconds / row.seconds
        gap = farther(row, twice, bench.scorer_rows)
        print(
            f"  {name}, {n} steps: {fewer:.0f}x fewer passes (8x asked), "
            f"Fréchet {more:+.1%} of the base's (+10 % asked), "
            f"{gap} of the base's at {twice.passes} passes (all under 0 asked), {faster:.1f}x faster (4x asked)"
        )
        students.append(fewer >= 8 and more <= 0.1 and gap.high < 0 and faster >= 4)
    held = "; ".join(f"{name}, {n} steps" for (name, n), good in zip(candidates, students, strict=True) if good)
    bench.verdict(f"a student has all of it ({held or 'none'})", any(students), valid)
    small = found["+ pruning", steps_]
    cost, more = origin.seconds / small.seconds, small.frechet / origin.frechet - 1
    bench.verdict(
        f"pruned: {cost:.2f}x per step, Fréchet {more:+.1%} (1.5x, +30 % asked)", cost >= 1.5 and more <= 0.3, valid
    )
    last = found[EXPORTED, 4]
    seconds = [origin, found[GUIDED, steps_], found[STUDENT, 4], found[TOGETHER, 4], last]
    total = np.log(origin.seconds / last.seconds)
    parts = ", ".join(
        f"{name} {before.seconds / after.seconds:.2f}x ({np.log(before.seconds / after.seconds) / total:.0%})"
        for name, (before, after) in zip(("guidance", "steps", "pruning", "export"), pairwise(seconds), strict=True)
    )
    print(f"  all together {np.exp(total):.1f}x at 4 steps: {parts} (shares of the logarithm)")


def farther(row: Row, other: Row, real: np.ndarray, replicates: int = 60) -> Estimate:
    """By what share ``row`` is farther from real pictures than ``other``: a bootstrap over prompts, paired."""
    value = row.frechet / other.frechet - 1
    if row.rows is other.rows:
        return bootstrap.of_replicates(value, np.full(replicates, value), len(row.rows))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(replicates):
        some = rng.integers(len(row.rows), size=len(row.rows))
        drawn.append(metrics.frechet(row.rows[some], real) / metrics.frechet(other.rows[some], real) - 1)
    return bootstrap.of_replicates(value, np.array(drawn) - np.mean(drawn) + value, len(row.rows))


def exported(bench: Bench, made: TextToImage) -> Drawer:
    """The model through onnxruntime, on one thread and from the same noise."""
    folder = bench.work / f"exported-{bench.seed}"
    told = export.export(made, folder, export.ExportConfig(steps=4), [placed.caption(p) for p in bench.asked])
    small = told["int8"]
    print(
        f"  exported: differs by {told['difference']:.1e}; integers {small['milliseconds'][1]:.3f} ms a pass for "
        f"{small['milliseconds'][0]:.3f}, error {small['error']:.4f}: {'kept' if small['kept'] else 'not kept'}"
    )
    onnx = OnnxModel(folder, threads=1)

    def draw(prompts: list[str], steps: int, weight: float, seed: int = 0) -> Tensor:
        return torch.from_numpy(
            onnx.generate(prompts, steps, weight, seed, export.model_noise(made, len(prompts), seed))
        )

    return draw


def timed(rows: Sequence[tuple[Drawer, int]], prompt: str, weight: float, rounds: int) -> list[float]:
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
