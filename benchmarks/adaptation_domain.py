"""``adaptation.py domain``: what tuning a retrieval model to new colours gains there, and what it loses elsewhere.

A small open_clip model learns scenes without three of the eight colours. The domain is scenes in those three alone; it
is tuned to them for few steps by each way, from the same weights and, where they are replayed, the same old pairs.
Scores are R@1, mean of both ways, on scenes that nothing has seen: 400 in the new colours, 400 in the old. The ceiling
is a model that learned all colours from the start, as many steps as the base and the tuning together.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tuwen.sample_data.draw import render
from tuwen.sample_data.shards import drawn_scene
from tuwen.sample_data.world import caption
from tuwen.trainers import bootstrap, lora, towers
from tuwen.trainers.adaptation import domain as tuning
from tuwen.trainers.adaptation.measure import recall
from tuwen.trainers.retrieval import RetrievalConfig, caption_group, fit, normalise
from tuwen.trainers.stream import Pairs
from tuwen.trainers.towers import ModelConfig

NEW = frozenset(("紫色", "橙色", "黑色"))
SIDE, BATCH = 32, 96
BASE, TUNED = 300, 60
"""Steps."""
SMALL = ({"layers": 2}, {"layers": 1})
"""Changes to the preset tiny."""
ADAPTERS = lora.LoraConfig(rank=16, alpha=32.0)
ARMS = {
    "fine-tuning": (tuning.DomainConfig(False, 0.0, 0.0), 1e-3),
    "LoRA": (tuning.DomainConfig(True, 0.0, 0.0), 4e-3),
    "LoRA, keep": (tuning.DomainConfig(True, 0.0, 1.0), 4e-3),
    "LoRA, replay": (tuning.DomainConfig(True, 0.5, 0.0), 4e-3),
    "LoRA, replay, keep": (tuning.DomainConfig(True, 0.5, 1.0), 4e-3),
}
"""``keep`` is learning without forgetting. The last is the default of ``curate train adaptation --task domain``."""


class Scenes(NamedTuple):
    """Images (n, 3, side, side) uint8 with their captions."""

    images: torch.Tensor
    captions: list[str]

    def batches(self, size: int, seed: int) -> Iterator[Pairs]:
        """Endless batches."""
        rng = np.random.default_rng(seed)
        while True:
            rows = rng.integers(len(self.captions), size=size)
            yield Pairs(self.images[torch.from_numpy(rows)], [self.captions[i] for i in rows])


def scenes(n: int, seed: int, new: bool) -> Scenes:
    """``n`` scenes of one kind of thing, in the new colours alone or without them."""
    rng = np.random.default_rng([seed, int(new)])
    images, captions = np.empty((n, SIDE, SIDE, 3), np.uint8), []
    while len(captions) < n:
        scene = drawn_scene(rng, True)
        if (scene.things[0].colour in NEW) == new:
            large = render(scene, 2 * SIDE).reshape(SIDE, 2, SIDE, 2, 3)
            images[len(captions)] = large.mean((1, 3)).round()
            captions.append(caption(scene, rng))
    return Scenes(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), captions)


@torch.no_grad()
def score(model: Any, tokenize: Any, held: Scenes) -> float:
    """R@1, mean of both ways."""
    model.eval()
    image = model.encode_image(normalise(held.images, RetrievalConfig()), normalize=True)
    cosines = image @ model.encode_text(tokenize(held.captions), normalize=True).T
    return recall(cosines, torch.tensor([caption_group(c) for c in held.captions]))


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """New and old scores of every arm."""
    old, new = scenes(2400, seed, False), scenes(900, seed, True)
    held = {"new": scenes(400, seed + 500, True), "old": scenes(400, seed + 500, False)}
    both = Scenes(torch.cat([old.images, new.images]), old.captions + new.captions)
    with tempfile.TemporaryDirectory() as folder:
        config = ModelConfig(vocabulary="captions", vision_cfg=SMALL[0], text_cfg=SMALL[1])
        towers.prepare(config, Path(folder), both.captions)
        base, tokenize, _ = towers.build(Path(folder), seed)
    whole = copy.deepcopy(base)
    plain = RetrievalConfig(steps=BASE, learning_rate=2e-3, warmup=40, seed=seed, threshold_weight=0.0)

    def both_scores(model: Any) -> dict[str, float]:
        return {name: score(model, tokenize, one) for name, one in held.items()}

    fit(base, tokenize, old.batches(BATCH, seed), plain)
    found = {"none": both_scores(base)}
    fit(whole, tokenize, both.batches(BATCH, seed), RetrievalConfig(**{**plain.__dict__, "steps": BASE + TUNED}))
    found["all colours from the start"] = both_scores(whole)
    for name, (way, rate) in ARMS.items():
        model = copy.deepcopy(base)
        own, others = lora.shared(BATCH, way.replay)
        stream = tuning.mixed(new.batches(own, seed + 1), old.batches(others, seed + 2) if others else None)
        train = RetrievalConfig(steps=TUNED, learning_rate=rate, warmup=10, seed=seed, threshold_weight=0.0)
        tuning.adapt(model, tokenize, stream, train, way, ADAPTERS, replayed=others)
        found[name] = both_scores(model)
    return found


def domain(given: argparse.Namespace, work: Path) -> None:
    """Gain and loss of every way."""
    found = []
    for seed in range(given.first, given.first + given.seeds):
        path = work / f"domain-{seed}.json"
        if not path.is_file():
            path.write_text(json.dumps(one_seed(seed)), "utf-8")
        found.append(json.loads(path.read_text("utf-8")))
    print(f"base {BASE} steps, tuning {TUNED} of {BATCH} pairs; R@1 in new and old colours, 400 scenes each")
    print(f"  {'':28s}{'new':>7s}{'gain, 95 %':>27s}{'old':>9s}{'change, 95 %':>27s}")
    for name in found[0]:
        line = f"  {name:28s}"
        for which in ("new", "old"):
            line += f"{np.mean([one[name][which] for one in found]):{7 if which == 'new' else 9}.3f}"
            less = bootstrap.over_seeds([one[name][which] - one["none"][which] for one in found])
            line += f"{less if name != 'none' else ''!s:>27s}"
        print(line)
    mean = {n: {w: float(np.mean([one[n][w] for one in found])) for w in ("new", "old")} for n in found[0]}
    room = mean["all colours from the start"]["new"] - mean["none"]["new"]
    if room < 0.05:
        print(f"  INVALID: a model that learned all colours is only {room:.3f} better on the new ones")
        return
    ours, plain = mean["LoRA, replay, keep"], mean["fine-tuning"]
    gained = (ours["new"] - mean["none"]["new"]) / (plain["new"] - mean["none"]["new"])
    lost = mean["none"]["old"] - ours["old"]
    limits = ("at least 75 %", gained >= 0.75), ("at most 5 points", lost <= 0.05)
    held = [f"{words}: {'yes' if right else 'no'}" for words, right in limits]
    print(f"  the default has {gained:.0%} of that gain ({held[0]}), forgets {100 * lost:.1f} points ({held[1]})")
