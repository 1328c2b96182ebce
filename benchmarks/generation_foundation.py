"""A foundation between chance and ceiling, and Chinese on it: ``python benchmarks/generation.py base align``."""

from __future__ import annotations

import hashlib

import torch
from generation_common import Bench, chance, share, sheet_of

from tuwen.trainers import bootstrap
from tuwen.trainers.generation import metrics, model
from tuwen.trainers.generation.model import TextToImage


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
