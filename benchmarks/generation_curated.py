"""Curated shards against raw ones at equal compute: ``python benchmarks/generation.py curated``."""

from __future__ import annotations

import numpy as np
from generation_common import Bench, share
from retrieval_common import curate

from tuwen.export.shards import write_index, write_shard
from tuwen.sample_data import placed
from tuwen.trainers import bootstrap, shards
from tuwen.trainers.generation import base, model
from tuwen.trainers.generation.model import TextToImage

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


def part_curated(bench: Bench) -> dict[str, float]:
    """5: curated shards against raw ones, and against the clean part of them, at equal compute."""
    run, clean = bench.work / "curated", bench.work / "clean"
    if not any(run.glob("shards/*.tar")):
        recipe = bench.work / "placed.yaml"
        recipe.write_text(RECIPE, "utf-8")
        curate(["run", str(bench.work / "raw"), "-o", str(run), "-r", str(recipe), "-j", "1"])
    if not (clean / "index.json").is_file():
        part = [s for s in shards.every(shards.find([str(bench.work / "raw")])) if not s.told["mismatched"]]
        clean.mkdir(exist_ok=True)
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
