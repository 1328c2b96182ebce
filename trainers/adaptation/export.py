"""Writes the folders ``device`` and ``cloud`` (``DeviceModel``, ``server.load``) and holds them against torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import RunError
from ...scoring.export_scorer import OPSET
from ..value.model import LENGTH
from .device import DeviceModel
from .files import CLOUD, DEVICE, session
from .learn import Trained
from .light import Light
from .task import Vocabulary

TOLERANCE = 1e-3
"""Largest difference of an output that may come of another order of summation."""
SLACK = 4.0
"""Parameters may be so many times as large as the largest that the cloud made for its training devices."""


class _Device(nn.Module):
    """Statistics and encoder in one: frames to features."""

    def __init__(self, made: Trained) -> None:
        super().__init__()
        self.statistics, self.encoder = made.statistics, made.encoder

    def forward(self, frames: Tensor) -> Tensor:
        found: Tensor = self.encoder(self.statistics(frames))
        return found


class _Call(nn.Module):
    """A method of a model as a module of its own."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *given: Tensor) -> Tensor:
        found: Tensor = getattr(self.model, self.method)(*given)
        return found


def export(
    light: Light, made: Trained, words: Vocabulary, out: Path, policy: str, anchors: int, largest: float
) -> dict[str, Any]:
    """Write ``out``/device and ``out``/cloud; what device.json says, with ``difference``, the largest to torch.

    Raises ``RunError`` where an exported model answers otherwise than the one it was made of.
    """
    config = light.config
    device, cloud = out / "device", out / "cloud"
    for folder in (device, cloud):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(3, max(1, config.frames), 3, config.side, config.side, generator=draw) * 2 - 1
    parameters = 0.1 * torch.randn(1, light.dynamic, generator=draw)
    ids = torch.randint(1, len(words.characters), (3, LENGTH), generator=draw)
    ids[1, LENGTH // 2 :] = 0
    rows = torch.randn(3, config.embed, generator=draw)
    features = torch.rand(1, 5, made.config.features, generator=draw) * 2 - 1
    parts: list[tuple[Path, nn.Module, dict[str, Tensor], str]] = [
        (device / "frames.onnx", _Device(made), {"frames": frames[:, 0]}, ""),
        (device / "clip.onnx", _Call(light, "clip"), {"frames": frames, "parameters": parameters}, "parameters"),
        (device / "text.onnx", _Call(light, "text"), {"ids": ids}, ""),
        (cloud / "cloud.onnx", made.cloud, {"anchors": features}, ""),
    ]
    if light.answer is not None:
        parts += [
            (device / "question.onnx", light.questions, {"ids": ids}, ""),
            (device / "answer.onnx", _Call(light, "answers"), {"clips": rows, "questions": rows}, ""),
        ]
    difference = 0.0
    with tracing():
        for path, module, given, fixed in parts:
            difference = max(difference, _write(path, module.eval(), given, fixed))
    if difference > TOLERANCE:
        raise RunError(f"exported models differ from torch's by {difference:.2g}; nothing of {out} should be used")
    projection = made.selector.project.weight.detach().numpy()
    np.save(device / "anchors.npy", projection.astype(np.float32), allow_pickle=False)
    size = {"features": made.config.features, "anchors": anchors, "parameters": light.dynamic}
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(device.iterdir())))
    model = digest.hexdigest()[:16]
    told: dict[str, Any] = {
        "model": model,
        **size,
        "policy": policy,
        "largest": round(SLACK * largest, 4),
        "side": config.side,
        "frames": max(1, config.frames),
        "length": LENGTH,
        "characters": "".join(words.characters.ids),
        "answers": words.answers,
    }
    _json(device / DEVICE, told)
    _json(cloud / CLOUD, {"model": model, **size})
    DeviceModel(device)
    return {**told, "difference": difference}


def _write(path: Path, module: nn.Module, given: Mapping[str, Tensor], fixed: str) -> float:
    """One model; its first dimensions are free, but for that of ``fixed``, and the number of anchors. The largest
    difference to torch, on what it was traced with and on other sizes."""
    axes: dict[str, dict[int, str]] = {name: {0: "n"} for name in given if name != fixed}
    if "anchors" in given:
        axes = {"anchors": {1: "k"}}
    values = tuple(given.values())
    torch.onnx.export(
        module,
        values,
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=list(given),
        output_names=["out"],
        dynamic_axes={**axes, **({} if "anchors" in given else {"out": {0: "n"}})},
    )
    ran = session(path)
    worst = 0.0
    for size in (3, 1):
        cut = {k: v if k == fixed else v[:, :size] if k == "anchors" else v[:size] for k, v in given.items()}
        with torch.no_grad():
            wanted = module(*cut.values()).numpy()
        found = ran.run(None, {k: v.numpy() for k, v in cut.items()})[0]
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


@contextmanager
def tracing() -> Iterator[None]:
    """The fused attention of inference has no counterpart in ONNX, and the exporter warns of what is meant."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _json(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
