"""Scores against those of the libraries the weights belong to, and throughput against the bare model.

    python benchmarks/scorers.py parity
    python benchmarks/scorers.py speed [--threads 1] [--images 128] [--rounds 5] [--device cpu] [--precision fp32]

``parity`` makes small models on the spot, in open_clip's format and in Chinese-CLIP's, exports both to ONNX, and
compares the scores of tuwen's scorers with those that open_clip and transformers give when called plainly.
``speed`` times in turns, on prepared blocks of 32, the model called bare (``encode_image`` under inference mode, no
more) and tuwen's scorer around it; then the scorer from JPEG bytes on, where the next block is decoded while the
model works; and decoding and preparing alone. On a busy machine the CPU-seconds are those to read. The models:
the embedded one (64 pixels) and an open_clip ViT-S/16 of 224 pixels with random weights, whose arithmetic is that of
trained ones.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tuwen import __version__
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.blocks import encode_blocks
from tuwen.scoring.export_scorer import export_scorer
from tuwen.scoring.scorer import (
    EMBEDDED,
    TorchScorer,
    embedded_folder,
    import_open_clip,
    load_scorer,
    model_and_tokenizer,
)
from tuwen.trainers.embedded import save_tokenizer

BATCH = 32
CHARACTERS = "".join(chr(c) for c in range(0x4E00, 0x4E00 + 2000))


def drawn(n: int, side: int, seed: int = 0) -> tuple[list[bytes], list[str]]:
    """JPEGs of the sample world, of several shapes, and their captions."""
    rng = np.random.default_rng(seed)
    images, captions = [], []
    for i in range(n):
        scene = random_scene(rng)
        images.append(encode(render(scene, side)[: side - (i % 5) * side // 8], quality=85))
        captions.append(caption(scene, rng))
    return images, captions


def open_clip_model(folder: Path, size: int, patch: int, width: int, layers: int, text: int) -> Path:
    """A random two-tower model in open_clip's format."""
    folder.mkdir(parents=True)
    vocabulary = save_tokenizer(folder, CHARACTERS)
    words = {"context_length": 32, "vocab_size": vocabulary, "width": text, "heads": 4, "layers": layers}
    words |= {"hf_tokenizer_name": "local", "pool_type": "eos", "eos_id": 3, "pad_id": 0}
    vision = {"image_size": size, "layers": layers, "width": width, "head_width": 32, "patch_size": patch}
    config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": words}
    told = {"model_cfg": config, "preprocess_cfg": {"size": size}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    model = import_open_clip().CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder


def chinese_clip_model(folder: Path) -> Path:
    """A random small Chinese-CLIP in transformers' format."""
    import transformers as t

    folder.mkdir(parents=True)
    text = t.ChineseCLIPTextConfig(
        vocab_size=save_tokenizer(folder, CHARACTERS), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )  # fmt: skip
    vision = t.ChineseCLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16
    )
    torch.manual_seed(0)
    config = t.ChineseCLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    t.ChineseCLIPModel(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    t.ChineseCLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    return folder


def opened(images: list[bytes]) -> list[Image.Image]:
    """The pictures in RGB."""
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in images]


def unit(rows: torch.Tensor) -> torch.Tensor:
    """(n, d) rows of unit length."""
    return torch.nn.functional.normalize(rows, dim=-1)


def by_open_clip(folder: Path, images: list[bytes], captions: list[str]) -> np.ndarray[Any, Any]:
    """Scores as open_clip's README computes them."""
    open_clip = import_open_clip()
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(captions)
    with torch.inference_mode():
        pixels = torch.stack([prepare(image) for image in opened(images)])
        scores = unit(model.eval().encode_image(pixels)) @ unit(model.encode_text(tokens)).T
    return scores.numpy()


def by_transformers(folder: Path, images: list[bytes], captions: list[str], processor: str) -> np.ndarray[Any, Any]:
    """Scores as transformers' documentation computes them: one forward pass of ``ChineseCLIPModel``."""
    import transformers as t

    model = t.ChineseCLIPModel.from_pretrained(folder).eval()
    pixels = getattr(t, processor).from_pretrained(folder)(images=opened(images), return_tensors="pt")
    ids = t.AutoTokenizer.from_pretrained(folder)(captions, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = model(pixel_values=pixels["pixel_values"], **{k: ids[k] for k in ("input_ids", "attention_mask")})
    return (out.image_embeds @ out.text_embeds.T).numpy()


def parity() -> None:
    """Print the greatest differences of scores over all images and captions."""
    images, captions = drawn(24, 200)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        plain = open_clip_model(root / "open_clip", 64, 16, 64, 2, 64)
        chinese = chinese_clip_model(root / "chinese_clip")
        references = [
            ("embedded", embedded_folder(), EMBEDDED, [("open_clip", by_open_clip)]),
            ("open_clip folder", plain, str(plain), [("open_clip", by_open_clip)]),
            (
                "Chinese-CLIP folder",
                chinese,
                str(chinese),
                [
                    ("transformers (Pillow processor)", _processor("ChineseCLIPImageProcessorPil")),
                    ("transformers (torchvision processor)", _processor("ChineseCLIPImageProcessor")),
                ],
            ),
        ]
        print(f"{len(images)} images by {len(captions)} captions; greatest difference of a score, and spread of scores")
        for name, folder, spec, libraries in references:
            out = root / f"{folder.name}-onnx"
            export_scorer(spec, out)
            ours = {name: scores(spec, images, captions), f"{name}, as ONNX": scores(str(out), images, captions)}
            for library, reference in libraries:
                theirs = reference(folder, images, captions)
                for what, found in ours.items():
                    told = f"{np.abs(found - theirs).max():.2e}  ({theirs.min():.2f} to {theirs.max():.2f})"
                    print(f"  {what:<28} against {library:<38} {told}")


def _processor(name: str) -> Callable[[Path, list[bytes], list[str]], np.ndarray[Any, Any]]:
    return lambda folder, images, captions: by_transformers(folder, images, captions, name)


def scores(spec: str, images: list[bytes], captions: list[str]) -> np.ndarray[Any, Any]:
    """(images, captions) scores by tuwen's scorer."""
    scorer = load_scorer(spec, "cpu", BATCH)
    return scorer.embed_images(images) @ scorer.embed_texts(captions).T


def speed(given: argparse.Namespace) -> None:
    """Print throughputs in turns, so that what else the machine does falls on all alike."""
    torch.set_num_threads(given.threads)
    images, captions = drawn(given.images, 448)
    with tempfile.TemporaryDirectory() as scratch:
        small = open_clip_model(Path(scratch) / "vit-s-16", 224, 16, 384, 12, 384)
        for name, spec, folder in (
            ("embedded, 64 px", EMBEDDED, embedded_folder()),
            ("ViT-S/16, 224 px", str(small), small),
        ):
            told = measure(spec, folder, images, captions, given)
            print(f"{name}: {given.images} images and captions a round, median of {given.rounds} rounds")
            print(f"  {'':<34}{'per second':>11}  {'of bare':>7} {'per CPU-second':>15}  {'of bare':>7}")
            for what, rates in told.items():
                base = told[f"bare model, prepared {what.rsplit(' ', 1)[1]}"]
                shares = [f"{rate:11.1f}  {rate / of:7.3f}" for rate, of in zip(rates, base, strict=True)]
                print(f"  {what:<34}{shares[0]} {shares[1]:>24}")


def measure(
    spec: str, folder: Path, images: list[bytes], captions: list[str], given: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Medians of values per second, and per CPU-second of all threads, by what was timed."""
    scorer = load_scorer(spec, given.device, BATCH, given.threads, given.precision)
    assert isinstance(scorer, TorchScorer)
    model, _, tokenizer = model_and_tokenizer(folder, given.device)
    blocks = [scorer.pixels(images[i : i + BATCH]).to(given.device) for i in range(0, len(images), BATCH)]
    tokens = [tokenizer(captions[i : i + BATCH]).to(given.device) for i in range(0, len(captions), BATCH)]
    kind = torch.device(given.device).type

    def bare(encode: Callable[[Any], Any], prepared: list[Any]) -> None:
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=given.precision == "bf16"):
            for block in prepared:
                encode(block)
        if kind == "cuda":
            torch.cuda.synchronize()

    def ours(encode: Callable[[Any], Any], prepared: list[Any]) -> None:
        flat = [row for block in prepared for row in block]
        encode_blocks(flat, BATCH, torch.stack, lambda block: scorer.forward(encode, block), ahead=False)

    timed: dict[str, Callable[[], object]] = {
        "bare model, prepared images": lambda: bare(model.encode_image, blocks),
        "scorer, prepared images": lambda: ours(scorer._images, blocks),
        "scorer, from bytes images": lambda: scorer.embed_images(images),
        "decode and prepare alone images": lambda: scorer.pixels(images),
        "bare model, prepared captions": lambda: bare(model.encode_text, tokens),
        "scorer, from bytes captions": lambda: scorer.embed_texts(captions),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for turn in range(given.rounds + 1):
        for name, work in timed.items():
            started = time.perf_counter(), time.process_time()
            work()
            if turn:  # the first warms up
                seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    wall, busy = ({n: len(images) / statistics.median(r[i] for r in s) for n, s in seconds.items()} for i in (0, 1))
    return {name: (wall[name], busy[name]) for name in timed}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="what", required=True)
    kinds.add_parser("parity")
    timing = kinds.add_parser("speed")
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--images", type=int, default=128)
    timing.add_argument("--rounds", type=int, default=5)
    timing.add_argument("--device", default="cpu")
    timing.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    given = parser.parse_args()
    versions = ", ".join(
        f"{n} {version(n)}" for n in ("torch", "open_clip_torch", "transformers", "onnxruntime", "pillow")
    )
    print(f"tuwen {__version__}, {platform.machine()} with {os.cpu_count()} cores, Python {platform.python_version()}")
    print(versions)
    if given.what == "parity":
        from transformers.utils import logging

        logging.disable_progress_bar()
        parity()
    else:
        print(
            f"{given.device}, {given.precision}, blocks of {BATCH}, {given.threads} threads for the model and one "
            "that prepares"
        )
        speed(given)


if __name__ == "__main__":
    main()
