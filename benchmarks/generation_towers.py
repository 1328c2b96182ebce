"""An English text tower to a Chinese one on captions alone: ``python benchmarks/generation.py towers``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from generation_common import SIDE, Bench, picture, share
from torch import Tensor

from tuwen.sample_data import placed
from tuwen.trainers import align_towers, bootstrap, towers
from tuwen.trainers.retrieval import RetrievalConfig, fit


def part_towers(bench: Bench) -> dict[str, float]:
    """2b: a retrieval model's English text tower to a Chinese one on parallel captions alone."""
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
    asked = [p for p in placed.every() if not p.held_out]
    pictures = torch.stack([picture(p, rng) for p in asked])
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
