"""What adaptation is held against: fine-tuning on the device with labels, and one model for all devices."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .cloud import CloudConfig
from .devices import Device
from .learn import Texts, batches_loss, draws, encoded, minimise
from .light import Light
from .measure import Gallery, mean
from .task import Task

PARTS = ("dynamic", "all", "norm")
"""What is fine-tuned: the dynamic layers' parameters, all of the tower that sees, or scale and shift of its norms."""


ONE_FOR_ALL_RATE = 2e-3
"""Learning rate of the model that all devices share."""


@dataclass(frozen=True)
class RivalsConfig:
    """How the rivals are tuned: each part with each of its rates and numbers of steps, on the validation devices."""

    rates: tuple[float, ...] = (0.008, 0.03, 0.1)
    """For the dynamic layers' parameters and for the norms."""
    rates_all: tuple[float, ...] = (0.0003, 0.001, 0.003)
    """For all weights."""
    steps: tuple[int, ...] = (20, 60, 140)
    batch: int = 24
    """Labelled photos in a step on the device."""


class Tuning(NamedTuple):
    """One setting of fine-tuning."""

    part: str
    rate: float
    steps: int


class Tuned(NamedTuple):
    """What came of fine-tuning one device: measures after so many steps, and what it cost there."""

    measures: dict[int, dict[str, float]]
    seconds: dict[int, float]


def fine_tune(
    light: Light,
    task: Task,
    device: Device,
    gallery: Gallery,
    part: str,
    rate: float,
    stops: Sequence[int],
    size: int,
    seed: int,
    texts: Texts,
) -> Tuned:
    """Fine-tune a copy on the device's labelled photos; measured at each of ``stops`` steps. A step is one backward
    pass. ``texts`` are the task's captions and questions: their towers stay as they are."""
    own = copy.deepcopy(light)
    parameters = own.static().requires_grad_(part == "dynamic")
    parts: dict[str, list[Tensor]] = {"dynamic": [parameters], "norm": [*own.norms.parameters()], "all": seeing(own)}
    trained = parts[part]
    own.requires_grad_(False)
    for p in trained:
        p.requires_grad_(True)
    rng = np.random.default_rng([seed, 3])
    pixels = device.camera(task.clips.frames[torch.from_numpy(device.photos)])
    optimiser = torch.optim.Adam(trained, rate)
    measures, seconds, passed = {}, {}, 0.0
    for step in range(1, max(stops) + 1):
        started = time.perf_counter()
        chosen = rng.choice(len(pixels), min(size, len(pixels)), replace=False)
        batch = task.batch(device.photos[chosen], pixels[torch.from_numpy(chosen)])
        loss = batches_loss(own, [batch], parameters, texts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        passed += time.perf_counter() - started
        if step in stops:
            measures[step], seconds[step] = gallery.measure(own, parameters), passed
    return Tuned(measures, seconds)


def seeing(light: Light) -> list[Tensor]:
    """All weights but those of the towers that read."""
    modules = [light.convolutions, light.norms, light.frame, light.time, light.answer]
    return [p for module in modules if module is not None for p in module.parameters()]


def tune(
    light: Light,
    task: Task,
    devices: Sequence[Device],
    galleries: Sequence[Gallery],
    config: RivalsConfig,
    seed: int,
    texts: Texts,
) -> dict[str, dict[str, tuple[Tuning, float]]]:
    """For each part and measure the setting that was best on the validation devices, and what it came to there."""
    best: dict[str, dict[str, tuple[Tuning, float]]] = {part: {} for part in PARTS}
    for part in PARTS:
        for rate in config.rates_all if part == "all" else config.rates:
            made = [
                fine_tune(light, task, d, g, part, rate, config.steps, config.batch, seed, texts)
                for d, g in zip(devices, galleries, strict=True)
            ]
            for steps in config.steps:
                for name, value in mean([one.measures[steps] for one in made]).items():
                    if name not in best[part] or value > best[part][name][1]:
                        best[part][name] = (Tuning(part, rate, steps), value)
    return best


def one_for_all(light: Light, task: Task, devices: Sequence[Device], config: CloudConfig, seed: int) -> Light:
    """The whole tower that sees, trained further on the devices' labelled photos: as many steps as the cloud's."""
    model, texts = copy.deepcopy(light), encoded(light, task)
    trained = seeing(model)
    rng = np.random.default_rng([seed, 2])

    def losses() -> Iterable[Tensor]:
        while True:
            _, batches = draws(task, devices, config, rng)
            yield batches_loss(model, batches, model.static(), texts)

    minimise(trained, losses(), config.steps, ONE_FOR_ALL_RATE, None, "")
    return model
