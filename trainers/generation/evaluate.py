"""Stage ``evaluate``: what a model draws, against real samples; every figure with a 95 % interval.

Attribute accuracy by a probe (where the shards' JSON has ``truth``), between chance and the probe's own accuracy on
real samples; Fréchet distance in the probe's and in a scorer's space, above its floor, the distance of one half of the
real samples from the other; mean cosine with the prompts; diversity; and what was forgotten against a model ``before``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...pipeline.errors import InputError
from ...scoring.scorer import load_scorer
from .. import bootstrap, shards
from ..bootstrap import Estimate
from ..stream import crop
from . import metrics, probe, sheet
from .model import TextToImage
from .probe import STEPS as PROBE_STEPS
from .sampling import evaluations


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and on how much."""

    samples: int = 256
    """Prompts from the shards, and as many held-out ones at most."""
    real: int = 2000
    """Real samples that the distances are taken from, at most."""
    steps: int = 32
    weight: float = 1.0
    """Of guidance."""
    seed: int = 0
    scorer: str = "embedded"
    """For Fréchet distance and cosine; empty: the probe alone."""
    probe: str = ""
    """Folder of a trained probe; empty: one is trained on ``train``."""
    train: tuple[str, ...] = ()
    """Shards with ``truth`` to train the probe on; not those that are evaluated."""
    probe_steps: int = PROBE_STEPS
    prompts: str = ""
    """A file of held-out prompts, one JSON object a line: caption, truth."""
    before: str = ""
    """The model before tuning: what was forgotten on these prompts is told."""


class Real(NamedTuple):
    """Real samples: images uint8 (n, 3, side, side), captions, what they show (empty where it is not told)."""

    images: Tensor
    captions: list[str]
    truths: list[dict[str, Any]]

    @property
    def known(self) -> bool:
        """Whether all say what they show."""
        return bool(self.truths) and all(self.truths)


def read(given: Sequence[str], side: int, most: int, split: str = "train", caption: str = "") -> Real:
    """The first ``most`` samples of shards; ``caption`` is the JSON's field that holds it."""
    images, captions, truths = [], [], []
    rng = np.random.default_rng(0)
    for one in itertools.islice(shards.every(shards.find(given, split)), most):
        picture = crop(one.image, side, 1.0, rng)
        if picture is not None:
            images.append(picture)
            captions.append(str(one.told.get(caption) or one.caption) if caption else one.caption)
            truths.append(dict(one.told.get("truth") or {}))
    if len(images) < 8:
        raise InputError(f"{len(images)} usable samples in {', '.join(given)}; at least 8 are needed to evaluate")
    return Real(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), captions, truths)


def prompts_of(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Captions and truths of a list of prompts."""
    try:
        told = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return [str(t["caption"]) for t in told], [dict(t.get("truth") or {}) for t in told]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path}: {error}; expected a JSON object a line, as {{"caption": "…", "truth": {{…}}}}'
        ) from None


def accuracy(judge: probe.Probe, images: Tensor, truths: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """Share of images that show what was asked for, by attribute, and with all of them right."""
    return {name: bootstrap.mean(values) for name, values in judge.right(images, truths).items()}


def chance(truths: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """The accuracy of images that were made for other prompts of the same list."""
    shares = {}
    for name in names:
        _, counts = np.unique([str(t[name]) for t in truths], return_counts=True)
        shares[name] = float(((counts / len(truths)) ** 2).sum())
    return {**shares, "all": float(np.prod(list(shares.values())))}


def evaluate(
    model: TextToImage,
    real: Real,
    config: EvaluateConfig,
    judge: probe.Probe | None = None,
    held_out: tuple[list[str], list[dict[str, Any]]] | None = None,
    before: TextToImage | None = None,
) -> dict[str, Any]:
    """All figures of one model; ``images`` among them are what was drawn for the shards' prompts."""
    n = min(config.samples, len(real.captions))
    made = model(real.captions[:n], config.steps, config.weight, config.seed)
    real_images = real.images.float() / 255
    told: dict[str, Any] = {
        "prompts": n,
        "evaluations": evaluations(model, config.steps, config.weight),
        "images": made,
    }
    if judge is not None and real.known:
        names = [c for c in judge.classes if all(c in t for t in real.truths)]
        told["attributes"] = accuracy(judge, made, real.truths[:n])
        told["ceiling"] = accuracy(judge, real_images, real.truths)
        told["chance"] = chance(real.truths[:n], names)
        if held_out:
            captions, truths = held_out[0][: config.samples], held_out[1][: config.samples]
            drawn = model(captions, config.steps, config.weight, config.seed + 1)
            told["held out"] = accuracy(judge, drawn, truths)
            told["held-out prompts"] = len(captions)
    if judge is not None:
        rows, wanted = judge.look(made)[0], judge.look(real_images)[0]
        told["frechet"] = {"probe": distance(rows, wanted)}
        told["diversity"] = {"made": metrics.diversity(rows), "real": metrics.diversity(wanted[:n])}
    if config.scorer:
        scorer = load_scorer(config.scorer, "cpu", 64)
        rows, wanted = (embedded(scorer, i) for i in (made, real_images))
        told.setdefault("frechet", {})["scorer"] = distance(rows, wanted)
        texts = np.asarray(scorer.embed_texts(real.captions[:n]), np.float64)
        told["cosine"] = {"made": metrics.contrastive(rows, texts), "real": metrics.contrastive(wanted[:n], texts)}
        told["cosine"]["other prompts"] = metrics.contrastive(rows, np.roll(texts, 1, axis=0))
        told.setdefault("diversity", {"made": metrics.diversity(rows), "real": metrics.diversity(wanted[:n])})
    if before is not None and judge is not None and real.known:
        was = judge.right(before(real.captions[:n], config.steps, config.weight, config.seed), real.truths[:n])
        now = judge.right(made, real.truths[:n])
        told["forgotten"] = {name: bootstrap.mean(was[name] - now[name]) for name in now}
    return told


def distance(made: NDArray[np.float64], real: NDArray[np.float64]) -> dict[str, Estimate | float]:
    """The Fréchet distance, and its floor: as many real rows against the others."""
    n = min(len(made), len(real) // 2)
    return {"distance": metrics.frechet_estimate(made, real), "floor": metrics.frechet(real[:n], real[n:])}


def embedded(scorer: Any, images: Tensor) -> NDArray[np.float64]:
    """Unit rows of a scorer."""
    files = [bytes(cv2.imencode(".png", one[..., ::-1])[1]) for one in sheet.pixels(images)]
    rows = [np.asarray(scorer.embed_images(files[i : i + 256]), np.float64) for i in range(0, len(files), 256)]
    return np.concatenate(rows)


def judge_for(config: EvaluateConfig, side: int, out: Path | None = None) -> probe.Probe | None:
    """The probe that the settings name or ask to train, None where they do neither."""
    if config.probe:
        return probe.Probe.load(Path(config.probe))
    if not config.train:
        return None
    real = read(config.train, side, 10**6)
    if not real.known:
        raise InputError(f"{', '.join(config.train)}: the JSON of samples has no truth, which a probe learns from")
    judge = probe.trained(real.images, real.truths, config.seed, config.probe_steps)
    if out is not None:
        judge.save(out)
    return judge


def lines(told: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """For people."""
    for name, value in told.items():
        if isinstance(value, dict):
            yield from lines(value, f"{prefix}{name} / ")
        elif not isinstance(value, Tensor):
            yield f"{prefix}{name:<24} {f'{value:.4f}' if isinstance(value, float) else value}"


def plain(told: Any) -> Any:
    """For JSON; without the images."""
    if isinstance(told, dict):
        return {k: plain(v) for k, v in told.items() if not isinstance(v, Tensor)}
    return told.describe() if isinstance(told, Estimate) else told
