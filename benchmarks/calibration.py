"""Calibration on real captions: a small scorer trained on one part of Flickr8k-CN, calibrated on the rest.

    python benchmarks/calibration.py --data FOLDER [-o OUT] [--steps 200] [--threads 1]

FOLDER holds ``captions.jsonl`` (``image``, ``zh``: a list of captions, ``has_image``) and ``images_224/``. A model of
two small towers is trained with ``trainers/retrieval.py`` on four fifths of the photos; ``curate calibrate`` then looks
at photos that it never saw, and, to show why that matters, at those that it was trained on. The third line is the
embedded scorer on the sample crawl. The commands are those a user would give; OUT gets what they write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from tuwen import __version__
from tuwen.sample_data.generate import write_sample
from tuwen.scoring.scorer import import_open_clip
from tuwen.trainers.embedded import save_tokenizer
from tuwen.trainers.retrieval import Batch, RetrievalConfig, fit

SIZE, MARGIN = 64, 8
CONTEXT = 32
HELD_OUT = 5
"""Every fifth photo is held out."""


def photos(data: Path) -> list[dict[str, Any]]:
    """The photos that are there, with their captions, in the file's order."""
    with (data / "captions.jsonl").open(encoding="utf-8") as handle:
        return [row for row in map(json.loads, handle) if row["has_image"]]


def load(data: Path, rows: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """(photos, side, side, 3), a margin larger than what the model sees."""
    side = SIZE + MARGIN
    opened = (Image.open(data / "images_224" / row["image"]).convert("RGB") for row in rows)
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in opened])


def batches(pictures: NDArray[np.uint8], rows: list[dict[str, Any]], size: int, seed: int) -> Iterator[Batch]:
    """Endless batches: one caption of each photo, cut out at another place, mirrored, in another light."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            chosen = order[start : start + size]
            y, x = rng.integers(0, MARGIN + 1, 2)
            images = pictures[chosen, y : y + SIZE, x : x + SIZE].astype(np.float32)
            mirrored = rng.random(size) < 0.5
            images[mirrored] = images[mirrored, :, ::-1]
            images *= rng.uniform(0.7, 1.3, (size, 1, 1, 1)) * rng.uniform(0.9, 1.1, (size, 1, 1, 3))
            pixels = torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
            yield pixels, [str(rng.choice(rows[i]["zh"])) for i in chosen]


def train(folder: Path, data: Path, rows: list[dict[str, Any]], given: argparse.Namespace) -> float:
    """Write a scorer in open_clip's format to ``folder``; seconds of training."""
    open_clip = import_open_clip()
    folder.mkdir(parents=True)
    vocabulary = save_tokenizer(folder, "".join(c for row in rows for c in row["zh"]))
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 128, "heads": 4, "layers": 2}
    text |= {"hf_tokenizer_name": "local", "pool_type": "eos", "eos_id": 3, "pad_id": 0}
    vision = {"image_size": SIZE, "layers": [1, 1, 2, 1], "width": 24, "head_width": 24}
    config = {"embed_dim": 96, "vision_cfg": vision, "text_cfg": text}
    prepare = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": prepare}))
    torch.manual_seed(given.seed)
    model = open_clip.CLIP(**config, output_dict=True)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.absolute()}")
    settings = RetrievalConfig(steps=given.steps, warmup=given.steps // 10, weight_decay=0.2, seed=given.seed)
    started = time.perf_counter()
    told = fit(model, tokenizer, batches(load(data, rows), rows, given.batch, given.seed), settings)
    weights = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    print(f"trained on {len(rows)} photos: loss {told[0]['loss']:.3f} at first, {told[-1]['loss']:.3f} at last")
    return time.perf_counter() - started


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A jsonl of all pairs of ``rows``."""
    pairs = [{"image": row["image"], "caption": c} for row in rows for c in row["zh"]]
    path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), encoding="utf-8")
    return path


def calibrate(what: str, words: list[str | Path], precision: float, given: argparse.Namespace) -> None:
    """Run ``curate calibrate`` and print what it found."""
    out = given.out / what.replace(" ", "-")
    command = [sys.executable, "-m", "tuwen.pipeline.cli", "calibrate", *map(str, words), "-o", str(out), "--json"]
    shares = ["--precision", str(precision), "--mismatched", str(given.mismatched)]
    done = subprocess.run([*command, *shares], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{what}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    low, high = told["auc_interval"]
    print(f"{what}: {told['pairs']} pairs, {told['images']} images, {told['shuffled']} shuffled; {told['scorer']}")
    print(f"  AUC {told['auc']:.3f} ({low:.3f} to {high:.3f})")
    if told["threshold"] is None:
        print(f"  no threshold for a precision of {told['wanted']}")
    else:
        ends = " to ".join("?" if t is None else f"{t:.3f}" for t in told["threshold_interval"])
        kept = f"keeps {told['keep']:.1%} of true and {told['false_keep']:.1%} of shuffled pairs"
        print(f"  threshold {told['threshold']:.3f} ({ends}) for a precision of {told['wanted']}: {kept}")
        print(f"  {told['recipe_line']}")
    for warning in told["warnings"]:
        print(f"  warning: {warning}")
    print(f"  picture: {out / 'calibration.svg'}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with captions.jsonl and images_224/")
    parser.add_argument("-o", "--out", type=Path, default=Path(tempfile.gettempdir()) / "tuwen-calibration")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--precision", type=float, default=0.7, help="for the photos; 0.95 is beyond a model of 480 of them"
    )
    parser.add_argument("--mismatched", type=float, default=0.5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    print(
        f"tuwen {__version__}, {platform.machine()} with {os.cpu_count()} cores, {given.threads} used; Python "
        f"{platform.python_version()}, torch {torch.__version__}, polars {pl.__version__}; seed {given.seed}"
    )
    rows = photos(given.data)
    held = [row for i, row in enumerate(rows) if i % HELD_OUT == 0]
    seen = [row for i, row in enumerate(rows) if i % HELD_OUT]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        seconds = train(root / "scorer", given.data, seen, given)
        print(f"{seconds:.0f} s for {given.steps} steps of {given.batch} pairs")
        options = ["-r", "photos", "--input", f"images={(given.data / 'images_224').absolute()}"]
        options += ["--scorer", str(root / "scorer")]
        for what, some in (("held out photos", held), ("photos trained on", seen)):
            calibrate(what, [table(root / f"{what.replace(' ', '-')}.jsonl", some), *options], given.precision, given)
        write_sample(root / "sample", seed=given.seed)
        calibrate("embedded sample", [root / "sample"], 0.95, given)


if __name__ == "__main__":
    main()
