"""``curate train compression``: a trained model and shards in; a smaller ONNX model, its network and a report out.

OUT/onnx/              model.onnx; of a dual stream a folder that ``curate evaluate`` and ``curate search`` take
OUT/network/           network.json and network.safetensors, to train or compress further
OUT/compression.json   targets, measurements, every refresh     OUT/report.html     the same for people
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import __version__
from ...pipeline.errors import InputError, RunError, UsageError
from .. import settings, shards
from ..edge.student import parameters
from ..shards import Shards
from ..stream import DataConfig, Pairs, PairStream, crop, loader
from . import network as networks
from . import report, targets
from .agent import RemoteDevice
from .costs import METRICS
from .export import CALIBRATE, outputs
from .measure import Measuring
from .models import Model, open_model
from .profiler import Device, LocalDevice
from .search import CompressConfig, Result, compress
from .table import Table, default_path
from .tasks import Batch, Run, stream

TOLD = "compression.json"
HELD = 1000
"""Held-out samples that quality is measured on at most."""


@dataclass(frozen=True)
class MeasureConfig:
    """Where and how models are measured."""

    device: str = "local"
    """local, or the address of an agent, as in http://host:8571."""
    token: str = ""
    """What the agent wants to hear."""
    batch: int = 1
    """Inputs of one run, on the local device."""
    table: str = ""
    """File of measured blocks; by default one for each device in the user's cache."""


SECTIONS: dict[str, type[Any]] = {"compress": CompressConfig, "data": DataConfig, "measure": MeasureConfig}


def train(
    model: str,
    given: Sequence[str],
    out: Path,
    wanted: Sequence[str],
    tower: str = "image",
    held: Sequence[str] = (),
    config: Path | None = None,
    sets: Sequence[str] = (),
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Compress ``model`` (a folder) on shards; what ``compression.json`` says.
    Raises ``RunError`` where a target is missed.

    Quality is measured on ``held``; without it the last of several shards is kept out of the training for that.
    """
    asked = targets.parse(wanted)
    parts = settings.read(SECTIONS, config, sets)
    if out.exists() and any(out.iterdir()) and not (out / TOLD).is_file():
        raise UsageError(f"{out} is not empty and holds no compression; give an empty or new folder")
    found, apart, note = split(shards.find(given), held)
    opened = open_model(model, tower, (found, apart))
    data: DataConfig = parts["data"]
    config_: CompressConfig = parts["compress"]
    device = device_of(parts["measure"])
    tests = held_batches(opened, apart, data.batch)
    calibrate = torch.cat([b.inputs for b in held_batches(opened, found, 64, CALIBRATE)])[:CALIBRATE]
    measuring = Measuring(device, opened.whole, calibrate)
    budgets = targets.absolute(asked, measuring.reference)
    path = Path(parts["measure"].table) if parts["measure"].table else default_path(device)
    note_blocks = (lambda words: tell({"note": words})) if tell else None
    table = Table(device, path, note_blocks, targets.timed(budgets))
    pairs = loader(PairStream(found, replace(data, seed=data.seed + config_.seed), opened.side))

    def judge(run: Run) -> float:
        return opened.task.quality(run, tests)

    with contextlib.closing(stream(opened.task, pairs, opened.teacher)) as batches:
        result = compress(opened.network, opened.task, batches, measuring, table, budgets, config_, tell, judge)
    quality = {
        "uncompressed": judge(opened.teacher),
        "compressed": judge(lambda x: outputs(result.model, x)),
    }
    told = {
        "model": opened.name,
        "metric": opened.task.metric,
        "quality": quality,
        "quality_on": note,
        "held_out": sum(len(b.inputs) for b in tests),
        **facts(result),
        "removed_parameters": [parameters(opened.whole), parameters(result.network)],
        "device": device.name,
        "energy": "not told by this machine" if "energy_mj" not in measuring.reference else "RAPL",
        "missed": targets.missed(budgets, result.measured),
        "settings": {name: _public(part) for name, part in parts.items()},
        "versions": {n: version(n) for n in ("torch", "onnxruntime", "onnx", "torch-pruning")}
        | {"tuwen": __version__, "python": platform.python_version()},
    }
    _write(out, opened, result, told)
    if told["missed"]:
        raise RunError(
            f"a target was missed: {'; '.join(told['missed'])}. What was made is in {out}; give more steps, or a "
            "target that the blocks of this model can reach"
        )
    return told


def split(found: Shards, held: Sequence[str]) -> tuple[Shards, Shards, str]:
    """Shards to train on, shards to measure on, and in words which."""
    if held:
        return found, shards.find(held, "test"), "shards given for it"
    if len(found.paths) > 1:
        apart = Shards(found.paths[-1:], found.counts[-1:])
        return Shards(found.paths[:-1], found.counts[:-1]), apart, "the last shard, kept out of training"
    return found, found, "training samples: there was but one shard, so this says little"


def device_of(config: MeasureConfig) -> Device:
    """The device that a configuration names."""
    if config.batch < 1:
        raise UsageError(f"measure.batch {config.batch}: must be 1 or more")
    return LocalDevice(config.batch) if config.device == "local" else RemoteDevice(config.device, config.token)


def held_batches(opened: Model, found: Shards, size: int, most: int = HELD) -> list[Batch]:
    """Whole images of the first ``most`` samples, in batches."""

    def usable() -> Iterator[tuple[Any, Any]]:
        for sample in shards.every(found):
            picture = crop(sample.image, opened.side, 1.0, np.random.default_rng(0))
            if picture is not None:
                yield sample, picture

    made, rows = [], usable()
    left = most
    while left > 0 and (chunk := list(islice(rows, min(size, left)))):
        left -= len(chunk)
        images = torch.from_numpy(np.stack([p.transpose(2, 0, 1) for _, p in chunk]))
        pairs = Pairs(images, [s.caption for s, _ in chunk], keys=tuple(s.key for s, _ in chunk))
        batch = opened.task.batch(pairs, None)
        if len(batch.inputs):
            made.append(batch)
    if not made:
        raise InputError(f"{found.paths[0]}: no sample there can be used for this model")
    return made


def facts(result: Result) -> dict[str, Any]:
    """A result as JSON says it."""
    told = asdict(replace(result, network=None, model=b""))  # type: ignore[arg-type]
    del told["network"], told["model"]
    return {**told, "shares": {m: result.measured[m] / result.reference[m] for m in METRICS if m in result.measured}}


def _public(part: Any) -> dict[str, Any]:
    return {k: "given" if k == "token" and v else v for k, v in asdict(part).items()}


def _write(out: Path, opened: Model, result: Result, told: dict[str, Any]) -> None:
    """Everything, made beside ``out`` and moved when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tuwen-", dir=out.parent) as held:
        made = Path(held) / "made"
        made.mkdir()
        opened.write(made / "onnx", result.model)
        networks.save(result.network, made / "network", opened.described)
        (made / TOLD).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (made / "report.html").write_text(report.page(told), "utf-8")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(out)
        made.replace(out)
