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
    """2b: a retrieval model's English text tower to a Chinese one on parallel captions alone.

    Both arms at a sixth, a third and all of the steps: they are compared where parallel captions first have what is
    asked for, since with many steps both know all of so small a world.
    """
    folder, rng = bench.work / f"clip-{bench.seed}", np.random.default_rng(3)
    words = [placed.caption_en(p, rng) for p in placed.every() for _ in range(3)]
    sizes = {"layers": 2, "width": 64, "patch_size": 4, "image_size": SIDE, "head_width": 16}
    config = towers.ModelConfig(
        "tiny", "captions", 64, sizes, {"layers": 1, "width": 64, "heads": 4, "context_length": 48}
    )
    if not (folder / towers.WEIGHTS).is_file():
        towers.prepare(config, folder, words)
        clip, tokenize, _ = towers.build(folder, bench.seed)
        fit(clip, tokenize, bench.stream("train", 64, caption="caption_en"), plain(bench, 2 * bench.plan.towers))
        towers.save_weights(clip, folder)
    budgets = sorted({max(1, bench.plan.towers // part) for part in (6, 3, 1)})
    print(f"towers, seed {bench.seed}: steps of 64 captions in two languages, no images; R@1, text to image")
    chinese = [placed.caption(p, rng) for p in placed.every() for _ in range(3)]
    asked = [p for p in placed.every() if not p.held_out]
    pictures = torch.stack([picture(p, rng) for p in asked])
    english, tokenize, _ = towers.build(folder, bench.seed, str(folder))
    whole = recall(english, tokenize, pictures, [placed.caption_en(p) for p in asked])
    print(f"  {'English':<28}           {share(whole)}", flush=True)
    hits: dict[tuple[str, int], np.ndarray] = {}
    for steps in budgets:
        for arm in ("parallel captions", "as many pairs"):
            model, words_ = align_towers.chinese(folder, bench.work / f"tower-{bench.seed}", chinese, bench.seed)
            batches = bench.stream("train", 64, parallel="caption_en")
            if arm == "as many pairs":
                model.visual.requires_grad_(False)
                model.logit_scale.requires_grad_(False)
                fit(model, words_, batches, plain(bench, steps))
            else:
                aligned = align_towers.AlignConfig(steps, 2e-3, min(20, steps), bench.seed)
                align_towers.fit(model, words_, english, tokenize, batches, aligned)
            hits[arm, steps] = found = recall(model, words_, pictures, [placed.caption(p) for p in asked])
            print(f"  Chinese, {arm:<19} {steps:4d} steps {share(found)}", flush=True)
    told = {f"{arm}, {steps} steps": float(h.mean()) for (arm, steps), h in hits.items()} | {"English": whole.mean()}
    valid = whole.mean() > 20 / len(asked)
    parts = {steps: hits["parallel captions", steps].mean() / max(1e-9, whole.mean()) for steps in budgets}
    bench.verdict(
        f"Chinese at {parts[budgets[-1]]:.1%} of English with no image (95 % asked)", parts[budgets[-1]] >= 0.95, valid
    )
    first = next((steps for steps in budgets if parts[steps] >= 0.95), budgets[-1])
    pairs = hits["as many pairs", first]
    gain = bootstrap.mean(hits["parallel captions", first] - pairs)
    room = valid and whole.mean() - pairs.mean() > 0.02
    bench.verdict(f"over as many image-text pairs by {gain}, at {first} steps", gain.low > 0, room)
    return told


def plain(bench: Bench, steps: int) -> RetrievalConfig:
    """The contrastive loss alone."""
    return RetrievalConfig(
        steps=steps, warmup=min(20, steps), threshold_weight=0.0, seed=bench.seed, learning_rate=2e-3
    )


@torch.no_grad()
def recall(clip: Any, tokenize: Any, pictures: Tensor, captions: list[str]) -> np.ndarray:
    """(n,) 1 where a caption's picture comes first."""
    clip.eval()
    images = clip.encode_image(pictures.float() / 127.5 - 1, normalize=True)
    found = clip.encode_text(tokenize(captions), normalize=True) @ images.T
    return (found.argmax(1) == torch.arange(len(captions))).numpy().astype(np.float64)
