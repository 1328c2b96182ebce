"""How fast the generation trainer is on a GPU, for a network of Stable Diffusion 1.5's shape with random weights.

    python benchmarks/gpu_generation.py                              images/s in training, s/image before and after
    torchrun --nproc-per-node 8 benchmarks/gpu_generation.py         the same training on 8 GPUs
    python benchmarks/gpu_generation.py --model tiny --batch 2 --precision fp32 --device cpu       a try

Training: the stage base (v-prediction, EMA, dropped captions) on images of 512 pixels through a VAE of the same family,
with a text tower of BERT-base's size. Sampling: one image at a time, guided, in ``--steps`` steps (before); then with
guidance in one pass, fewer layers, and 8, 4 and 2 steps. Seconds depend on shapes alone, so no weights are trained;
what the images are worth is measured by benchmarks/generation.py. Network passes stand beside the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from tuwen import __version__
from tuwen.trainers import distributed
from tuwen.trainers.generation import base, guidance, loop, model, prune
from tuwen.trainers.generation.model import TextToImage
from tuwen.trainers.generation.sampling import evaluations, sample
from tuwen.trainers.loop import DTYPES
from tuwen.trainers.stream import Pairs

SHAPES: dict[str, dict[str, Any]] = {
    "sd15": {
        "unet": {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
            "norm_num_groups": 32,
        },
        "text": {"context_length": 77, "width": 768, "heads": 12, "layers": 12},
        "vae": {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
        },
    },
    "tiny": {
        "unet": {"sample_size": 8, "block_out_channels": (8, 16), "cross_attention_dim": 16, "norm_num_groups": 4},
        "text": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
        "vae": {
            "block_out_channels": (8, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 4,
            "latent_channels": 4,
        },
    },
}
"""sd15: Rombach et al. 2022, as published with Stable Diffusion 1.5: a UNet of 860 M parameters."""
REMOVED = {"sd15": ("middle", "level-0", "level-1", "level-2"), "tiny": ("middle",)}
"""What is taken out for the pruned network; BK-SDM's small form has one layer a level and no middle block too."""
CAPTIONS = [f"第{i}张照片里有一只红色的猫在草地上" for i in range(64)]


def made(name: str, device: torch.device) -> TextToImage:
    """A model of random weights."""
    shape = SHAPES[name]
    channels = {"in_channels": 4, "out_channels": 4}
    whole = model.new({**shape["unet"], **channels}, CAPTIONS, shape["text"])
    vae = AutoencoderKL(**shape["vae"]).requires_grad_(False)
    return TextToImage(whole.unet, whole.scheduler, whole.text_encoder, whole.tokenizer, whole.adapter, vae).to(device)


def training(given: argparse.Namespace, place: distributed.World) -> dict[str, float]:
    """Images per second over all ranks, milliseconds a step, GiB."""
    whole = made(given.model, place.device)
    config = loop.TrainConfig(
        steps=10**9, precision=given.precision, checkpointing=given.checkpointing, micro_batch=given.micro_batch
    )
    if given.checkpointing:
        whole.unet.enable_gradient_checkpointing()
    trainer = loop.Loop(base.Base(whole, base.DiffusionConfig()), config, place)
    draw = torch.Generator().manual_seed(place.rank)
    images = torch.randint(256, (given.batch, 3, whole.side, whole.side), generator=draw).to(torch.uint8)
    batch = [Pairs(images.to(place.device), (CAPTIONS * given.batch)[: given.batch])]
    if place.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place.device)
    trainer.step(batch)
    taken = _seconds(lambda: trainer.step(batch), given.rounds, place.device)
    memory = torch.cuda.max_memory_allocated(place.device) / 2**30 if place.device.type == "cuda" else 0.0
    return {
        "parameters": float(model.parameters(whole)),
        "images per second": given.batch * place.ranks / taken,
        "ms per step": 1000 * taken,
        "memory GiB": memory,
    }


def sampling(given: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Seconds of an image, before and after each move; arms interleaved, medians."""
    whole = made(given.model, device)
    one_pass = guidance.student(whole, guidance.GuidanceConfig()).to(device)
    small = prune.smaller(whole, REMOVED[given.model])
    both = guidance.student(small, guidance.GuidanceConfig()).to(device)
    arms = [("before", whole, given.steps), ("guidance", one_pass, given.steps), ("pruning", small, given.steps)]
    arms += [("guidance and steps", one_pass, n) for n in (8, 4, 2)]
    arms += [("guidance, steps and pruning", both, n) for n in (8, 4, 2)]
    taken: list[list[float]] = [[] for _ in arms]
    with torch.autocast(device.type, DTYPES[given.precision], enabled=given.precision != "fp32"):
        for _, one, _ in arms:
            sample(one, CAPTIONS[:1], 1, 1.0)
        for _ in range(given.rounds):
            for held, (_, one, n) in zip(taken, arms, strict=True):
                held.append(_seconds(lambda m=one, k=n: sample(m, CAPTIONS[:1], k, 1.0), 1, device))  # type: ignore[misc]
    return [
        {
            "arm": name,
            "steps": n,
            "passes": evaluations(one, n, 1.0),
            "parameters": model.parameters(one, "unet"),
            "s per image": float(np.median(held)),
        }
        for held, (name, one, n) in zip(taken, arms, strict=True)
    ]


def _seconds(run: Callable[[], Any], rounds: int, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        run()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=SHAPES, default="sd15")
    parser.add_argument("--batch", type=int, default=32, help="images per rank")
    parser.add_argument("--micro-batch", type=int, default=0, help="images at once; 0: all")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--steps", type=int, default=25, help="of sampling, before")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    place = distributed.start(given.device)
    told: dict[str, Any] = {"training": training(given, place)}
    if place.ranks == 1:
        told["sampling"] = sampling(given, place.device)
    distributed.stop()
    if not place.first:
        return
    if given.json:
        print(json.dumps(told))
        return
    device = torch.cuda.get_device_name(place.device) if place.device.type == "cuda" else platform.machine()
    print(
        f"tuwen {__version__}, {place.ranks} x {device}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, torch {torch.__version__}; {given.model}, {given.precision}"
    )
    row = told["training"]
    print(
        f"training: {row['parameters'] / 1e6:.0f} M parameters, {given.batch} images a rank: "
        f"{row['images per second']:.1f} images/s, {row['ms per step']:.0f} ms a step, {row['memory GiB']:.1f} GiB"
    )
    rows = told.get("sampling", ())
    for row in rows:
        print(
            f"{row['arm']:<28} {row['steps']:3d} steps {row['passes']:3d} passes  {row['parameters'] / 1e6:7.1f} M  "
            f"{row['s per image']:8.3f} s/image  {rows[0]['s per image'] / row['s per image']:6.2f}x"
        )


if __name__ == "__main__":
    main()
