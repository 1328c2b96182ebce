"""One training of everything, and what it is worth on unseen devices beside its rivals, controls and ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...pipeline.errors import InputError
from . import devices as simulated
from .cloud import CloudConfig, moments
from .devices import Device, DevicesConfig
from .learn import BaseConfig, Tell, Trained, encoded, features_of, statistics_of, train_base, train_cloud
from .light import Light, LightConfig, answer_words
from .measure import Gallery, blind, galleries, mean
from .pick import POLICIES, pick
from .rivals import RivalsConfig, fine_tune, one_for_all, tune
from .samples import Clips
from .task import I64, Task, Vocabulary, vocabulary

KS = (1, 2, 4, 8, 16)
"""Numbers of anchors in the table of policies."""
Found = list[dict[str, float]]
"""Measures of each device."""


@dataclass(frozen=True)
class Parts:
    """All settings, by section."""

    model: LightConfig = field(default_factory=LightConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    rivals: RivalsConfig = field(default_factory=RivalsConfig)


class World(NamedTuple):
    """Tasks and devices: those learned from, those that settings are chosen on, unseen ones, and ones whose cameras
    lie beyond all that were learned from."""

    words: Vocabulary
    train: Task
    test: Task
    learning: list[Device]
    validation: list[Device]
    unseen: list[Device]
    beyond: list[Device]


class Made(NamedTuple):
    """What was trained."""

    light: Light
    trained: Trained
    world: World
    policy: str
    largest: float
    """The largest parameter that the cloud made for a device it learned from."""


def build(
    train: Clips, test: Clips, parts: Parts, seed: int, tell: Tell | None = None, keep: Path | None = None
) -> Made:
    """Train the light model, draw the devices, train the cloud, choose how anchors are picked.

    What is trained is written to ``keep``, and what an interrupted call with the same settings left there is taken.
    """
    torch.manual_seed(seed)
    words = vocabulary(train, answer_words([q.answer for asked in train.questions for q in asked]))
    task, held = Task(train, words), Task(test, words)
    light = Light(replace(parts.model, frames=train.frames.shape[1]), len(words.characters), len(words.answers))
    if not restored(keep, "base", {"light": light}):
        train_base(light, task, replace(parts.base, seed=parts.base.seed + seed), tell)
        save(keep, "base", {"light": light})
    light.eval()
    world = _world(light, words, task, held, parts.devices, seed)
    trained = Trained(light, parts.cloud, seed)
    if not restored(keep, "cloud", trained.modules()):
        train_cloud(trained, light, task, world.learning, seed, tell)
        save(keep, "cloud", trained.modules())
    policy = parts.cloud.policy if parts.cloud.policy != "auto" else choose(light, trained, world)
    with torch.no_grad():
        made = [generated(trained, held, d, policy, parts.cloud.anchors) for d in world.validation]
        made += [generated(trained, task, d, policy, parts.cloud.anchors) for d in world.learning[:64]]
    return Made(light, trained, world, policy, float(torch.cat(made).abs().max()))


def save(folder: Path | None, name: str, modules: Mapping[str, nn.Module]) -> None:
    """Weights of some modules as one file of safetensors."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    flat = {f"{m}/{k}": v.detach().clone() for m, module in modules.items() for k, v in module.state_dict().items()}
    save_file(flat, folder / f".{name}")
    (folder / f".{name}").replace(folder / f"{name}.safetensors")


def restored(folder: Path | None, name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the weights that ``save`` wrote were there and are now in ``modules``."""
    path = folder / f"{name}.safetensors" if folder else None
    if path is None or not path.is_file():
        return False
    flat = load_file(path)
    try:
        for m, module in modules.items():
            prefix = f"{m}/"
            module.load_state_dict({k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise InputError(f"{path} was made by other settings ({str(error).splitlines()[0]}); use --fresh") from None
    return True


def _world(light: Light, words: Vocabulary, task: Task, held: Task, config: DevicesConfig, seed: int) -> World:
    labels, centres = simulated.clusters(features_of(light, task.clips.frames), config.clusters, seed)
    own = simulated.nearest(features_of(light, held.clips.frames), centres)
    # A quarter of the held-out samples is for validation: no unseen device has any of those.
    aside = np.arange(len(own)) % 4 == 0
    learning = simulated.draw(labels, config, config.train, [seed, 1], 0)
    validation = _among(own, np.flatnonzero(aside), config, config.validation, [seed, 2])
    rest = np.flatnonzero(~aside)
    unseen = _among(own, rest, config, config.test, [seed, 3])
    beyond = _among(own, rest, config, config.test // 2, [seed, 4], True) if config.hue else []
    return World(words, task, held, learning, validation, unseen, beyond)


def _among(
    labels: I64, rows: I64, config: DevicesConfig, count: int, seed: Sequence[int], outside: bool = False
) -> list[Device]:
    drawn = simulated.draw(labels[rows], config, count, seed, config.gallery, outside)
    return [d._replace(photos=rows[d.photos], gallery=rows[d.gallery]) for d in drawn]


def roll(trained: Trained, task: Task, device: Device) -> Tensor:
    """(N, f) features of all frames of a device, as they would be uploaded."""
    with torch.no_grad():
        found: Tensor = trained.encoder(statistics_of(trained.statistics, task, device))
    return found


def generated(trained: Trained, task: Task, device: Device, policy: str, k: int, seed: int = 0) -> Tensor:
    """(1, p) parameters for a device from ``k`` anchors."""
    features = roll(trained, task, device)
    chosen = pick(policy, features.numpy(), k, trained.selector.project.weight.detach().numpy(), seed)
    with torch.no_grad():
        made: Tensor = trained.cloud(features[chosen][None])
    return made.half().float()


def choose(light: Light, trained: Trained, world: World) -> str:
    """The best policy on the validation devices, over all numbers of anchors; the simplest of those that are equal."""
    seen = galleries(light, world.test, world.validation)
    total = {}
    for policy in ("uniform", "herding", "learned"):
        found = [
            gallery.measure(light, generated(trained, world.test, device, policy, k))
            for k in KS
            for gallery, device in zip(seen, world.validation, strict=True)
        ]
        total[policy] = sum(mean(found).values())
    return max(total, key=lambda policy: total[policy])


def compare(made: Made, parts: Parts, seed: int) -> dict[str, Any]:
    """Measures of each unseen device: ``rows`` by name, ``beyond`` likewise, ``tuning`` and ``costs`` of the rivals."""
    light, world, k = made.light, made.world, parts.cloud.anchors
    task, static = world.test, made.light.static()
    here = galleries(light, task, world.unseen)
    parameters = [generated(made.trained, task, d, made.policy, k) for d in world.unseen]
    rows: dict[str, Found] = {"none": [g.measure(light, static) for g in here]}
    rows["adapted"] = [g.measure(light, p) for g, p in zip(here, parameters, strict=True)]
    rows["another device's"] = swapped(light, here, parameters)
    together = one_for_all(light, world.train, world.learning, parts.cloud, seed)
    rows["one for all"] = [g.measure(together, static) for g in galleries(together, task, world.unseen)]
    rows["no camera"] = [g.measure(light, static) for g in galleries(light, task, world.unseen, plain=True)]
    if blinded := blind(world.train, here):
        rows["blind"] = blinded
    tuned = _labelled(made, here, parts, seed)
    rows |= tuned.pop("rows")
    beyond: dict[str, Found] = {}
    if world.beyond:
        there = galleries(light, task, world.beyond)
        far = [generated(made.trained, task, d, made.policy, k) for d in world.beyond]
        beyond["none"] = [g.measure(light, static) for g in there]
        beyond["adapted"] = [g.measure(light, p) for g, p in zip(there, far, strict=True)]
        beyond["one for all"] = [g.measure(together, static) for g in galleries(together, task, world.beyond)]
    return {"rows": rows, "beyond": beyond, **tuned}


def swapped(light: Light, here: Sequence[Gallery], parameters: Sequence[Tensor]) -> Found:
    """Measures of each device with the parameters of others, mean over all of those."""
    return [
        mean([gallery.measure(light, other) for j, other in enumerate(parameters) if j != i])
        for i, gallery in enumerate(here)
    ]


def _labelled(made: Made, here: Sequence[Gallery], parts: Parts, seed: int) -> dict[str, Any]:
    """Fine-tuning with labels: each part at the setting that validation chose for each measure, and the best part."""
    light, world, config = made.light, made.world, parts.rivals
    task, texts = world.test, encoded(made.light, world.test)
    aside = galleries(light, task, world.validation)
    chosen = tune(light, task, world.validation, aside, config, seed, texts)
    rows: dict[str, Found] = {}
    costs: dict[str, dict[str, Any]] = {}
    for part, by_measure in chosen.items():
        found: Found = [{} for _ in world.unseen]
        for setting in dict.fromkeys(s for s, _ in by_measure.values()):
            wanted = [name for name, (s, _) in by_measure.items() if s == setting]
            passed = []
            for i, (device, gallery) in enumerate(zip(world.unseen, here, strict=True)):
                told = fine_tune(
                    light, task, device, gallery, part, setting.rate, (setting.steps,), config.batch, seed, texts
                )
                found[i] |= {name: told.measures[setting.steps][name] for name in wanted}
                passed.append(told.seconds[setting.steps])
            for name in wanted:
                seconds = round(float(np.mean(passed)), 3)
                costs[f"{part} {name}"] = {**setting._asdict(), "backward_passes": setting.steps, "seconds": seconds}
        rows[f"labelled, {part}"] = found
    best = {name: max(chosen, key=lambda part: chosen[part][name][1]) for name in rows["labelled, all"][0]}
    rows["labelled"] = [
        {name: rows[f"labelled, {part}"][i][name] for name, part in best.items()} for i in range(len(here))
    ]
    return {"rows": rows, "costs": costs, "best_part": best}


def anchors(made: Made, parts: Parts, draws: int = 3) -> dict[str, dict[int, Found]]:
    """Measures of each unseen device by policy and number of anchors; ``random`` is the mean of ``draws``.

    ``all`` uploads every frame.
    """
    light, world = made.light, made.world
    task, here = world.test, galleries(made.light, world.test, world.unseen)
    rolls = [roll(made.trained, task, d).numpy() for d in world.unseen]
    projection = made.trained.selector.project.weight.detach().numpy()

    def measured(gallery: Gallery, features: Any) -> dict[str, float]:
        with torch.no_grad():
            return gallery.measure(light, made.trained.cloud(torch.from_numpy(features)[None]).half().float())

    table: dict[str, dict[int, Found]] = {}
    for policy in POLICIES:
        table[policy] = {}
        for k in (k for k in KS if k <= parts.cloud.anchors):
            table[policy][k] = [
                mean(
                    [
                        measured(gallery, features[pick(policy, features, k, projection, 97 * i + seed)])
                        for seed in range(draws if policy == "random" else 1)
                    ]
                )
                for i, (gallery, features) in enumerate(zip(here, rolls, strict=True))
            ]
    table["all"] = {0: [measured(g, f) for g, f in zip(here, rolls, strict=True)]}
    return table


def reasoned(made: Made, parts: Parts) -> dict[int, dict[str, float]]:
    """How far the reasoned mean and deviation are from those of all frames, beside the anchors' own, by k (uniform).

    Root mean square over features and devices.
    """
    rolls = [roll(made.trained, made.world.test, d) for d in made.world.unseen]
    told = {}
    for k in (k for k in KS if k <= parts.cloud.anchors):
        errors: dict[str, list[float]] = {}
        for features in rolls:
            chosen = features[pick("uniform", features.numpy(), k)][None]
            true = moments(features)
            with torch.no_grad():
                seen = made.trained.cloud.reasoner(chosen)
            own = moments(chosen)
            for name, found, right in (
                ("anchors' mean", own[0], true[0]),
                ("reasoned mean", seen.mean, true[0]),
                ("anchors' deviation", own[1], true[1]),
                ("reasoned deviation", seen.deviation, true[1]),
            ):
                errors.setdefault(name, []).append(float((found[0] - right).square().mean().sqrt()))
        told[k] = {name: round(float(np.mean(values)), 4) for name, values in errors.items()}
    return told


def recovered(rows: Mapping[str, Found], name: str) -> float:
    """Share of labelled fine-tuning's gain that adaptation has, from means over devices; nan where there is no gain."""
    none, labelled, adapted = (mean(rows[row])[name] for row in ("none", "labelled", "adapted"))
    return (adapted - none) / (labelled - none) if labelled > none else float("nan")
