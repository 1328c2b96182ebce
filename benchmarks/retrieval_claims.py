"""Momentum distillation against none; all images of a caption against one: ``python benchmarks/retrieval.py claims``.

Models of 0.2 million parameters on the sample world: baseline, control and ceiling beside each arm, the same seeds for
all, differences paired by seed, 95 % t intervals; where baseline and ceiling are within noise of each other the
verdict is INVALID, whatever the arms did.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from retrieval_common import MODEL, SIDE

from tuwen.export.shards import write_shard
from tuwen.sample_data import shards as world
from tuwen.sample_data.world import Scene, caption
from tuwen.scoring.scorer import load_scorer
from tuwen.trainers import bootstrap, evaluate, shards, train_retrieval

Arm = tuple[str, Path, list[str]]
"""A name, its training shards, its settings."""


def trained(arm: Arm, seed: int, test: evaluate.Pairs, images: list[bytes], root: Path) -> dict[str, float]:
    """R@1 and R@5, both ways averaged, in percent, of one arm with one seed."""
    name, data, sets = arm
    out = root / f"{name}-{data.name}-{seed}".replace(" ", "-")
    everything = [*MODEL, *sets, f"train.seed={seed}", f"data.seed={seed}", "data.crop=1.0", "train.threshold_weight=0"]
    train_retrieval.train([str(data)], out, sets=everything, device="cpu")
    scorer = load_scorer(str(out), "cpu", 64, torch.get_num_threads())
    rows, texts = scorer.embed_images(images), scorer.embed_texts(test.captions)
    shutil.rmtree(out)
    found = [evaluate.ranks(rows, texts, test.right), evaluate.ranks(texts, rows, test.right[:, ::-1])]
    return {f"R@{k}": 100 * float(np.mean([np.mean(f <= k) for f in found])) for k in (1, 5)}


def compare(title: str, arms: dict[str, Arm], given: argparse.Namespace, root: Path) -> None:
    """Train all arms with all seeds; print the table, and the verdict on each arm against the baseline.

    The keys of ``arms`` are roles: baseline, control, ceiling and those that begin with arm.
    """
    print(f"\n{title}")
    found: dict[str, list[dict[str, float]]] = {role: [] for role in arms}
    for seed in range(given.seeds):
        test, images = held_out(root, given.test, seed)
        for role, arm in arms.items():
            found[role].append(trained(arm, seed, test, images, root))
            print(f"    {role:<9} seed {seed}  R@1 {found[role][-1]['R@1']:.1f}", file=sys.stderr, flush=True)
    for role, (name, *_) in arms.items():
        told = [bootstrap.over_seeds([f[k] for f in found[role]]) for k in ("R@1", "R@5")]
        against = _gain(found[role], found["baseline"])
        difference = "" if role == "baseline" else f"{against.value:+6.1f} ({against.low:+.1f} to {against.high:+.1f})"
        print(f"  {role:<9} {name:<44} R@1 {told[0].value:5.1f}  R@5 {told[1].value:5.1f}   {difference}", flush=True)
    told = {role: _gain(found[role], found["baseline"]) for role in arms if role != "baseline"}
    for role in (r for r in arms if r.startswith("arm")):
        gap, gain = told["ceiling"], told[role]
        if gap.low <= 0:
            verdict = "INVALID: baseline and ceiling are within noise of each other"
        elif gain.low > 0:
            verdict = f"better, by {gain.value / gap.value:.0%} of the way to the ceiling"
        else:
            verdict = "worse" if gain.high < 0 else "no difference shown"
        print(f"  {arms[role][0]}: {verdict}", flush=True)


def _gain(arm: list[dict[str, float]], baseline: list[dict[str, float]]) -> bootstrap.Estimate:
    """Points of R@1 over the baseline, paired by seed."""
    return bootstrap.over_seeds([a["R@1"] - b["R@1"] for a, b in zip(arm, baseline, strict=True)])


def held_out(root: Path, n: int, seed: int) -> tuple[evaluate.Pairs, list[bytes]]:
    """``n`` scenes of a seed that no training set has, and their pictures' bytes."""
    made = list(world.samples(n, seed=1000 + seed, side=SIDE, alone=True))
    right = np.stack([np.arange(n), np.arange(n)], 1)
    empty = np.empty((0, 1), np.float32)
    return evaluate.Pairs([words for _, _, words, _ in made], right, empty, empty, []), [
        image for _, image, _, _ in made
    ]


def claims(given: argparse.Namespace) -> list[str]:
    """Momentum distillation on clean and noisy pairs; all images of a caption against one."""
    base = [f"train.steps={given.steps}", f"data.batch={given.batch}", "train.warmup=15", "train.learning_rate=0.003"]
    slow = [
        "train.momentum=true",
        "train.momentum_decay=0.95",
        f"train.queue={4 * given.batch}",
        "train.momentum_ramp=0.3",
    ]
    print(
        f"sample world, {given.samples} pairs, {given.steps} steps of {given.batch}, {given.seeds} seeds, "
        f"{given.test} held out"
    )
    print(
        "momentum distillation: decay 0.95, queue of four batches, alpha 0.4 (ALBEF's 0.995 and 65,536 fit its steps)"
    )
    chosen = set(given.only or ("clean", "noisy", "shared"))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name, share in (("clean", 0.0), ("noisy", given.noise)):
            world.write_shards(root / name, given.samples, seed=1, side=SIDE, mismatched=share, alone=True)
        _only_true(root / "noisy", root / "filtered")
        for name, ceiling in (("clean", "twice the steps"), ("noisy", "what belongs elsewhere taken out (truth)")):
            longer = [*base, f"train.steps={2 * given.steps}"] if name == "clean" else base
            arms: dict[str, Arm] = {
                "baseline": ("contrastive", root / name, base),
                "control": ("momentum queue, alpha 0", root / name, [*base, *slow, "train.momentum_alpha=0"]),
                "arm": ("momentum distillation, queue", root / name, [*base, *slow]),
                "arm 2": ("momentum distillation, the batch's own keys", root / name, [*base, *slow, "train.queue=0"]),
                "ceiling": (ceiling, root / ("clean" if name == "clean" else "filtered"), longer),
            }
            about = "clean pairs" if name == "clean" else f"{given.noise:.0%} of the captions belong elsewhere"
            if name in chosen:
                compare(f"momentum distillation, {about}", arms, given, root)
        if "shared" in chosen:
            _shared(root, given.samples, 400)
            arms = {
                "baseline": ("one image of each caption", root / "one", base),
                "control": ("as many images, drawn at random", root / "random", base),
                "arm": ("all images of each caption", root / "all", base),
                "ceiling": ("as many images, each with its own caption", root / "own", base),
            }
            compare(f"{given.samples} images of 400 captions: all images of a caption, or one", arms, given, root)
    return []


def _only_true(source: Path, target: Path) -> None:
    """The pairs whose caption is their own."""
    target.mkdir()
    for i, path in enumerate(shards.find([str(source)]).paths):
        kept = [(s.key, s.image, s.caption, s.told) for s in shards.samples(path) if not s.told["mismatched"]]
        write_shard(str(target / f"train-{i:06d}.tar"), kept)


def _shared(root: Path, images: int, captions: int) -> None:
    """``images`` pictures of scenes with ``captions`` captions, as often as Zipf's law has it; and its subsets."""
    rng = np.random.default_rng(11)
    scenes: dict[str, Scene] = {}
    while len(scenes) < captions:
        scene = world.drawn_scene(rng, True)
        scenes.setdefault(caption(scene, rng), scene)
    weight = 1 / np.arange(1, captions + 1)
    drawn = np.concatenate([np.arange(captions), rng.choice(captions, images - captions, p=weight / weight.sum())])
    words = list(scenes)
    made, own = [], []
    for i, number in enumerate(drawn.tolist()):
        like = scenes[words[number]]
        scene = Scene(like.things, like.background, like.relation, int(rng.integers(2**31)))
        image = world.picture(scene, SIDE)
        made.append((f"{i:08d}", image, words[number], {}))
        fresh = world.drawn_scene(rng, True)
        own.append((f"{i:08d}", world.picture(fresh, SIDE), caption(fresh, rng), {}))
    first = {row[2]: row for row in reversed(made)}
    subsets = {
        "all": made,
        "one": sorted(first.values()),
        "random": sorted(made[i] for i in rng.permutation(images)[:captions]),
        "own": own,
    }
    for name, rows in subsets.items():
        (root / name).mkdir()
        write_shard(str(root / name / "train-000000.tar"), rows)
