"""Stage ``export``: a model as ONNX files that ``curate generate`` runs without torch, in integers where that pays.

OUT/text.onnx (ids to states), unet.onnx (one pass, the guidance weight inside), decoder.onnx (with a VAE),
tokenizer.json, generation.json (levels, steps, weights: what a sampler must know).
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...pipeline.errors import InputError, RunError, UsageError
from .model import Context, TextToImage, velocity
from .onnx_model import TOLD, OnnxModel, track
from .sampling import sample

OPSET = 17
LARGEST_DIFFERENCE = 2e-3
"""Of an image in [0, 1] between torch and onnxruntime."""
WORTH = 0.95
"""Integers are kept where a pass takes at most this share of the time."""
ASTRAY = 0.05
"""And where v is off by at most this share of its mean square."""
QUANTISED = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class ExportConfig:
    """How images are made by default, and whether integers are tried."""

    steps: int = 16
    weight: float = 1.0
    """Of guidance."""
    int8: str = "auto"
    """auto keeps integers where they pay, always keeps them, never does not try."""
    calibrate: int = 16
    """Prompts whose passes set the integers' scales; as many again judge them."""


def export(model: TextToImage, out: Path, config: ExportConfig, prompts: Sequence[str]) -> dict[str, Any]:
    """Write ``out``; ``prompts`` check it and calibrate integers. Returns what ``generation.json`` says."""
    if config.int8 not in ("auto", "always", "never"):
        raise UsageError(f"export.int8 {config.int8!r}: expected auto, always or never")
    prompts = list(dict.fromkeys(prompts))
    if len(prompts) < 4:
        raise InputError(f"{len(prompts)} different prompts to check the export with; at least 4 are needed")
    out.mkdir(parents=True, exist_ok=True)
    model = model.to("cpu")
    for part in model.modules_named().values():
        part.eval().requires_grad_(False)
    ids = model.ids(prompts[:2])
    context = model.encode_ids(ids)
    z = torch.randn(2, model.unet.config.in_channels, *[model.unet.config.sample_size] * 2)
    _onnx(_Text(model), (ids,), out / "text.onnx", ["ids"], ["states", "mask"])
    given: tuple[Tensor, ...] = (z, torch.tensor([5, 9]), context.states, context.mask)
    names = ["z", "steps", "states", "mask"]
    if model.takes_weight:
        given, names = (*given, torch.ones(2)), [*names, "weight"]
    _onnx(_Network(model), given, out / "unet.onnx", names, ["v"])
    if model.vae is not None:
        _onnx(_Decoder(model), (z,), out / "decoder.onnx", ["latents"], ["images"])
    _tokenizer(model.tokenizer, out)
    told: dict[str, Any] = {
        "format": 1,
        "levels": [float(x) for x in model.scheduler.alphas_cumprod],
        "channels": model.unet.config.in_channels,
        "size": model.unet.config.sample_size,
        "patch": model.patch,
        "length": ids.shape[1],
        "takes_weight": model.takes_weight,
        "latent": model.vae is not None,
        "steps": config.steps,
        "weight": config.weight,
    }
    (out / TOLD).write_text(json.dumps(told) + "\n", "utf-8")
    told["difference"] = _check(model, out, prompts[:4], config)
    told["bytes"] = {p.name: p.stat().st_size for p in sorted(out.glob("*.onnx"))}
    if config.int8 != "never":
        told["int8"] = _integers(out, config, prompts)
    (out / TOLD).write_text(json.dumps(told) + "\n", "utf-8")
    return told


class _Text(nn.Module):
    def __init__(self, model: TextToImage) -> None:
        super().__init__()
        self.held = model
        self.parts = nn.ModuleList([m for m in (model.text_encoder, model.adapter) if m is not None])

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        context = self.held.encode_ids(ids)
        return context.states, context.mask


class _Network(nn.Module):
    def __init__(self, model: TextToImage) -> None:
        super().__init__()
        self.held, self.unet = model, model.unet

    def forward(self, z: Tensor, steps: Tensor, states: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
        return velocity(self.held, z, steps, Context(states, mask), weight)


class _Decoder(nn.Module):
    def __init__(self, model: TextToImage) -> None:
        super().__init__()
        self.held, self.vae = model, model.vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.held.decoded(latents)


def _onnx(module: nn.Module, given: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str]) -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused attention of inference has no counterpart in ONNX
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                given,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _tokenizer(words: Any, out: Path) -> None:
    """tokenizer.json, which the package tokenizers reads; slow tokenizers are converted by transformers."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    core = words.backend_tokenizer if isinstance(words, PreTrainedTokenizerFast) else None
    core = core or getattr(words, "_tokenizer", None) or convert_slow_tokenizer(words)
    core.save(str(out / "tokenizer.json"))
    (out / "padding.json").write_text(json.dumps({"id": int(words.pad_token_id or 0)}) + "\n", "utf-8")


def _check(model: TextToImage, out: Path, prompts: Sequence[str], config: ExportConfig) -> float:
    made = OnnxModel(out)
    steps = min(4, config.steps)
    mine = sample(model, prompts, steps, config.weight, 0).numpy()
    theirs = made.generate(prompts, steps, config.weight, 0, noise=model_noise(model, len(prompts), 0))
    apart = float(np.abs(mine - theirs).max())
    if apart > LARGEST_DIFFERENCE:
        raise RunError(f"the exported model's images differ from torch's by {apart:.4f}; please report this model")
    return apart


def model_noise(model: TextToImage, n: int, seed: int) -> NDArray[np.float32]:
    """The noise that ``sampling.sample`` begins with."""
    shape = (model.unet.config.in_channels, *[model.unet.config.sample_size] * 2)
    draws = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(n)]
    return torch.stack([torch.randn(shape, generator=g) for g in draws]).numpy()


def _integers(out: Path, config: ExportConfig, prompts: Sequence[str]) -> dict[str, Any]:
    """Try unet.onnx in integers; what it came to, and whether it was kept."""
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise UsageError(f"integers need the package onnx ({error}): pip install 'tuwen[edge]'") from None
    whole = OnnxModel(out)
    seen = list(_passes(whole, prompts[: config.calibrate], 0))
    held = list(_passes(whole, prompts[-config.calibrate :], 1))[::3]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(seen)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory(dir=out) as scratch:
        ready, small = Path(scratch) / "ready.onnx", Path(scratch) / "unet.onnx"
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantization.shape_inference.quant_pre_process(out / "unet.onnx", ready, skip_symbolic_shape=True)
            quantization.quantize_static(
                ready,
                small,
                Reader(),
                op_types_to_quantize=[*QUANTISED],
                per_channel=True,
                extra_options={"MatMulConstBOnly": True},
            )
        integers = OnnxModel(out, unet=small)
        apart = float(
            np.mean([np.mean((integers.run(g) - whole.run(g)) ** 2) / np.mean(whole.run(g) ** 2) for g in held])
        )
        times = [(_seconds(whole, held[0]), _seconds(integers, held[0])) for _ in range(31)]
        before, after = np.median(np.array(times), axis=0).tolist()
        pays = after <= WORTH * before and apart <= ASTRAY
        kept = config.int8 == "always" or pays
        told = {
            "bytes": small.stat().st_size,
            "error": apart,
            "milliseconds": [1000 * before, 1000 * after],
            "pays": bool(pays),
            "kept": bool(kept),
        }
        if kept:
            shutil.move(small, out / "unet.onnx")
    return told


def _passes(model: OnnxModel, prompts: Sequence[str], seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    """What the network is given while images of prompts are made, one image at a time."""
    for i, prompt in enumerate(prompts):
        steps = track(len(model.levels), int(model.told["steps"]))
        states, mask = model.encode([prompt])
        z = np.random.default_rng([seed, i]).standard_normal((1, *model.shape)).astype(np.float32)
        for here, there in pairwise(steps):
            given = model.inputs(z, here, states, mask, float(model.told["weight"]))
            yield given
            z = model.step(z, model.run(given), here, there)


def _seconds(model: OnnxModel, given: dict[str, NDArray[Any]]) -> float:
    started = time.perf_counter()
    model.run(given)
    return time.perf_counter() - started
