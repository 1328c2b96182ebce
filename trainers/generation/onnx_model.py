"""Images from an exported model, by onnxruntime on the CPU; neither torch nor diffusers is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import InputError

TOLD = "generation.json"
F32 = NDArray[np.float32]


def track(levels: int, steps: int) -> list[int]:
    """Noise levels of ``steps`` steps from pure noise to the clean image (−1), as diffusers' "trailing" has them."""
    return [*(round(levels - i * levels / steps) - 1 for i in range(steps)), -1]


class OnnxModel:
    """A folder that the stage ``export`` wrote."""

    def __init__(self, folder: Path, threads: int = 0, unet: Path | None = None) -> None:
        from tokenizers import Tokenizer

        try:
            self.told: dict[str, Any] = json.loads((folder / TOLD).read_text("utf-8"))
            pad = json.loads((folder / "padding.json").read_text("utf-8"))["id"]
            self.words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} is no exported text-to-image model ({str(error).splitlines()[0]}); "
                "`curate train generation --stage export` makes one"
            ) from None
        self.words.enable_padding(length=int(self.told["length"]), pad_id=pad)
        self.words.enable_truncation(int(self.told["length"]))
        self.levels = np.array(self.told["levels"], np.float64)
        self.shape = (int(self.told["channels"]), int(self.told["size"]), int(self.told["size"]))
        self.text, self.unet = (_session(p, threads) for p in (folder / "text.onnx", unet or folder / "unet.onnx"))
        self.decoder = _session(folder / "decoder.onnx", threads) if self.told["latent"] else None
        self._takes = {i.name for i in self.unet.get_inputs()}

    def encode(self, prompts: Sequence[str]) -> tuple[F32, NDArray[np.bool_]]:
        """States and mask of prompts."""
        ids = np.array([e.ids for e in self.words.encode_batch(list(prompts))], np.int64)
        states, mask = self.text.run(None, {"ids": ids})
        return states, mask

    def generate(
        self,
        prompts: Sequence[str],
        steps: int = 0,
        weight: float | None = None,
        seed: int = 0,
        noise: F32 | None = None,
    ) -> F32:
        """Images (n, 3, h, w) in [0, 1]; steps and weight of guidance are the export's where they are not given.

        Each image's noise depends on ``seed`` and its number alone; ``noise`` may stand in for it.
        """
        n, steps = len(prompts), steps or int(self.told["steps"])
        if not 1 <= steps <= len(self.levels):
            raise InputError(f"{steps} steps; give 1 to {len(self.levels)}")
        weight = float(self.told["weight"]) if weight is None else weight
        if noise is None:
            draws = [np.random.default_rng([seed, i]).standard_normal(self.shape) for i in range(n)]
            noise = np.stack(draws).astype(np.float32)
        z = noise
        states, mask = self.encode(prompts)
        two = bool(weight) and not self.told["takes_weight"]
        if two:
            empty = self.encode([""] * n)
            states, mask = np.concatenate([states, empty[0]]), np.concatenate([mask, empty[1]])
        way = track(len(self.levels), steps)
        for here, there in pairwise(way):
            v = self.run(self.inputs(np.concatenate([z, z]) if two else z, here, states, mask, weight))
            if two:
                v = v[:n] + np.float32(weight) * (v[:n] - v[n:])
            z = self.step(z, v, here, there)
        return self.decoded(z)

    def inputs(self, z: F32, here: int, states: F32, mask: NDArray[np.bool_], weight: float) -> dict[str, NDArray[Any]]:
        """What one pass is given."""
        n = len(z)
        given: dict[str, NDArray[Any]] = {"z": z, "steps": np.full(n, here, np.int64), "states": states, "mask": mask}
        given["weight"] = np.full(n, weight, np.float32)
        return {k: v for k, v in given.items() if k in self._takes}

    def run(self, given: dict[str, NDArray[Any]]) -> F32:
        """v of one pass."""
        out: F32 = self.unet.run(None, given)[0]
        return out

    def step(self, z: F32, v: F32, here: int, there: int) -> F32:
        """``objectives.ddim`` in NumPy."""
        (alpha, sigma), (alpha_to, sigma_to) = self._level(here), self._level(there)
        x = alpha * z - sigma * v
        noise = sigma * z + alpha * v
        if not self.told["latent"]:
            x = x.clip(-1, 1)
            noise = (z - alpha * x) / sigma
        return (alpha_to * x + sigma_to * noise).astype(np.float32)

    def decoded(self, z: F32) -> F32:
        """Latents, or squares of pixels, to images in [0, 1]."""
        if self.decoder is not None:
            images: F32 = self.decoder.run(None, {"latents": z})[0]
            return images
        n, c, h, w = z.shape
        p = int(self.told["patch"])
        whole = z.reshape(n, c // p**2, p, p, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // p**2, h * p, w * p)
        return (whole / 2 + 0.5).clip(0, 1).astype(np.float32)

    def _level(self, step: int) -> tuple[np.float32, np.float32]:
        squared = 1.0 if step < 0 else self.levels[step]
        return np.float32(squared**0.5), np.float32(max(1 - squared, 1e-8) ** 0.5)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common base
        raise InputError(f"{path} cannot be loaded by onnxruntime: {str(error).splitlines()[0]}") from None
