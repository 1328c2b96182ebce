"""How fast the retrieval trainer is on a GPU: images per second, memory, model FLOP use, with and without loading data.

    python benchmarks/gpu_retrieval.py                                    ViT-B/16 and BERT-base, bf16, largest batch
    torchrun --nproc-per-node 8 benchmarks/gpu_retrieval.py --batch 1024  the same on 8 GPUs, 1024 pairs on each
    python benchmarks/gpu_retrieval.py --model tiny --batch 8 --precision fp32 --steps 2      a try on a CPU

The same steps are timed twice: on tensors that lie on the device already, and on shards that are read, decoded and
cropped by ``--workers`` processes. Their difference is what loading costs. Shards are drawn for the occasion where none
are named. FLOPs are counted by torch over one step of small size, forward and backward (recomputed activations are
not counted: model FLOPs, as Chowdhery et al. 2022, arXiv 2204.02311, appendix B, define them); the peak is the dense
figure of the precision from the maker's data sheet, or ``--peak``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tuwen import __version__
from tuwen.pipeline.errors import RunError
from tuwen.sample_data import shards as world
from tuwen.trainers import distributed, shards, towers
from tuwen.trainers.loop import Loop
from tuwen.trainers.retrieval import RetrievalConfig
from tuwen.trainers.stream import DataConfig, Pairs, PairStream, loader
from tuwen.trainers.towers import ModelConfig

PEAK = {
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "A800": 312,
    "H20": 148,
    "L40S": 362,
    "L4": 121,
    "4090": 165,
    "V100": 125,
}
"""TFLOP/s of dense bf16 or fp16 matrix products, from the makers' data sheets; a name is looked for in the device's."""
SIDE = 320
"""Pixels of the drawn pictures, so that decoding and cropping have something to do."""


def prepared(name: str, folder: Path) -> Path:
    """The model's folder: a preset, or ``bert``: CLIP's ViT-B/16 with a BERT-base of transformers, random weights."""
    if name != "bert":
        towers.prepare(ModelConfig(start=name), folder / "model", ())
        return folder / "model"
    from transformers import BertConfig

    bert = folder / "bert"
    vocabulary = towers.save_tokenizer(bert, towers.gbk())
    BertConfig(vocab_size=vocabulary).save_pretrained(bert)
    text = {"hf_model_name": str(bert), "hf_tokenizer_name": "local", "context_length": 52}
    described = {**towers.PRESETS["vit-b-16-bert"], "text_cfg": text, "custom_text": True}
    (folder / "start.json").write_text(json.dumps(described))
    towers.prepare(ModelConfig(start=str(folder / "start.json")), folder / "model", ())
    return folder / "model"


def made(size: int, side: int, seed: int) -> Pairs:
    """A batch of noise, with captions of the usual length."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, side, side), generator=draw).to(torch.uint8)
    return Pairs(images, [f"第{i}张照片里有一只红色的猫在草地上" for i in range(size)])


def flops_per_pair(loop: Loop, side: int) -> float:
    """Model FLOPs of one pair, forward and backward, from a step of four pairs."""
    config = loop.config
    loop.config = replace(config, micro_batch=0)
    with FlopCounterMode(display=False) as counter:
        loop.backward(made(4, side, 0))
    loop.config = config
    loop.optimiser.zero_grad(set_to_none=True)
    return counter.get_total_flops() / 4


def timed(loop: Loop, batches: Iterator[Pairs], steps: int, warm: int) -> tuple[float, float]:
    """(seconds of a step, share of them spent waiting for data), after ``warm`` steps."""
    waiting = 0.0
    for i in range(warm + steps):
        if i == warm:
            _wait(loop.world)
            started, waiting = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        loop.step(batch)
    _wait(loop.world)
    passed = time.perf_counter() - started
    return passed / steps, waiting / passed


def _wait(place: distributed.World) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)


def largest(folder: Path, config: RetrievalConfig, place: distributed.World, side: int, limit: int) -> int:
    """The most pairs, a multiple of 32, of which a step fits on the device."""

    def fits(size: int) -> bool:
        loop = Loop(*towers.build(folder, 0)[:2], config, place)
        try:
            for _ in range(2):  # the second has the optimiser's state
                loop.step(made(size, side, 0))
            return True
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            del loop
            gc.collect()
            torch.cuda.empty_cache()

    low, high = 0, 32
    while high <= limit and fits(high):
        low, high = high, 2 * high
    while high - low > max(32, low // 8):
        middle = (low + high) // 64 * 32
        low, high = (middle, high) if fits(middle) else (low, middle)
    if not low:
        raise RunError("not even 32 pairs fit; give --batch, --checkpointing or a smaller --model")
    return low


def peak_of(device: torch.device, precision: str, given: float) -> float:
    """TFLOP/s that the device could do; 0 where it is not known."""
    if given or device.type != "cuda" or precision == "fp32":
        return given
    name = torch.cuda.get_device_name(device)
    return float(next((rate for part, rate in PEAK.items() if part in name), 0))


def report(given: argparse.Namespace, place: distributed.World, root: Path) -> dict[str, Any]:
    """Measure and return all figures, per rank and together."""
    folder = root / "model"
    if place.first:
        prepared(given.model, root)
    distributed.gather_objects(None)
    config = RetrievalConfig(
        precision=given.precision, micro_batch=given.micro_batch, checkpointing=given.checkpointing, steps=10**9
    )
    model, tokenizer, _ = towers.build(folder, 0)
    side = int(np.max(model.visual.image_size))  # type: ignore[arg-type,union-attr]
    size = given.batch or largest(folder, config, distributed.World(device=place.device), side, given.limit)
    size = min(distributed.gather_objects(size))
    if given.shards:
        found = shards.find(given.shards)
    else:
        if place.first:
            world.write_shards(root / "shards", given.samples, seed=0, per_shard=max(1, given.samples // 8), side=SIDE)
        distributed.gather_objects(None)
        found = shards.find([str(root / "shards")])
    loop = Loop(model, tokenizer, config, place)
    flops = flops_per_pair(Loop(*towers.build(folder, 0)[:2], replace(config, checkpointing=False)), side)
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
    still = made(size, side, place.rank)
    still = still._replace(images=still.images.to(place.device))
    told: dict[str, Any] = {}
    told["synthetic"] = timed(loop, iter(lambda: still, None), given.steps, given.warm)  # type: ignore[arg-type]
    data = DataConfig(batch=size * place.ranks, workers=given.workers, shuffle=given.samples)
    stream = iter(loader(PairStream(found, data, side, place.rank, place.ranks)))
    told["shards"] = timed(loop, stream, given.steps, given.warm)
    memory = torch.cuda.max_memory_allocated(place.device) / 2**30 if place.device.type == "cuda" else 0.0
    peak = peak_of(place.device, given.precision, given.peak)
    return {
        "batch per rank": size,
        "ranks": place.ranks,
        "parameters": sum(p.numel() for p in model.parameters()),
        "GFLOP per pair": flops / 1e9,
        "memory GiB": memory,
        "arms": {
            name: {
                "ms per step": 1000 * seconds,
                "images per second": size * place.ranks / seconds,
                "waiting for data": waited,
                "model FLOP use": flops * size / seconds / (peak * 1e12) if peak else None,
            }
            for name, (seconds, waited) in told.items()
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="bert", help=f"bert (ViT-B/16 and BERT-base) or {', '.join(towers.PRESETS)}")
    parser.add_argument("--batch", type=int, default=0, help="pairs per rank; 0: the most that fit")
    parser.add_argument("--limit", type=int, default=16384, help="most pairs that are tried for that")
    parser.add_argument("--micro-batch", type=int, default=0, help="pairs encoded at once; 0: all")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=5, help="steps before the clock starts")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="reading processes per rank")
    parser.add_argument("--shards", nargs="*", help="what to read; drawn where none are named")
    parser.add_argument("--samples", type=int, default=2048, help="pictures to draw for that")
    parser.add_argument("--peak", type=float, default=0, help="TFLOP/s of the device in this precision")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    place = distributed.start(given.device)
    if given.batch == 0 and place.device.type != "cuda":
        parser.error("the largest batch that fits is found on a GPU only; give --batch")
    with tempfile.TemporaryDirectory() as scratch:
        told = report(given, place, Path(distributed.gather_objects(scratch)[0]))
        distributed.gather_objects(None)
    distributed.stop()
    if not place.first:
        return
    if given.json:
        print(json.dumps(told))
        return
    device = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else platform.machine()
    print(
        f"tuwen {__version__}, {told['ranks']} x {device}, {os.cpu_count()} cores, {given.workers} workers a rank; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(
        f"{given.model}: {told['parameters'] / 1e6:.0f} M parameters, {told['GFLOP per pair']:.1f} GFLOP a pair; "
        f"{given.precision}, {told['batch per rank']} pairs a rank in parts of {given.micro_batch or 'all'}, "
        f"checkpointing {'on' if given.checkpointing else 'off'}; peak memory {told['memory GiB']:.1f} GiB"
    )
    for name, arm in told["arms"].items():
        use = "unknown (give --peak)" if arm["model FLOP use"] is None else f"{arm['model FLOP use']:.1%}"
        print(
            f"{name:<10} {arm['ms per step']:9.1f} ms a step  {arm['images per second']:9.1f} images/s  "
            f"model FLOP use {use}  waiting for data {arm['waiting for data']:.1%}"
        )


if __name__ == "__main__":
    main()
