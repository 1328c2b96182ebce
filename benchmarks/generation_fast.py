"""Guidance, steps and pruning, each alone and together: ``python benchmarks/generation.py fast``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from generation_common import Bench, share, sheet_of

from tuwen.sample_data import placed
from tuwen.trainers.bootstrap import Estimate
from tuwen.trainers.generation import base, guidance, model, prune, steps
from tuwen.trainers.generation.model import TextToImage
from tuwen.trainers.generation.sampling import evaluations


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
