"""``curate train retrieval``: shards in, a folder in open_clip's format out, with its log, curves and checkpoints."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..pipeline.errors import UsageError
from . import checkpoints, curves, settings, shards, towers
from .distributed import World, gather_objects, start, stop
from .journal import has_tensorboard
from .retrieval import RetrievalConfig, fit
from .shards import Shards
from .stream import DataConfig, PairStream, loader
from .towers import ModelConfig

SECTIONS: dict[str, type[Any]] = {"model": ModelConfig, "data": DataConfig, "train": RetrievalConfig}
OWN = frozenset({"train.log_every", "train.checkpoint_every"})
"""May differ between the two parts of an interrupted training."""
FROM_MODEL = ("mean", "std", "negatives")
CHARACTERS_FROM = 200_000
"""Captions that are read for their characters, with vocabulary: captions."""
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What open_clip normalises with where preprocess_cfg says nothing."""


def train(
    given: Sequence[str],
    out: Path,
    config: Path | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
    fresh: bool = False,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train on the shards that ``given`` names and write ``out``; goes on with what an interrupted training left there.

    Under torchrun every rank calls this. Returns what was done, for people and programs.
    """
    parts = settings.read(SECTIONS, config, sets)
    for name in FROM_MODEL:
        if any(s.startswith(f"train.{name}=") for s in sets):
            raise UsageError(
                f"train.{name} is not set here: it comes from {'data' if name == 'negatives' else 'the model'}"
            )
    found = shards.find(given)
    world = start(device)
    try:
        return _train(found, out, parts, world, fresh, tell)
    finally:
        stop()


def _train(
    found: Shards,
    out: Path,
    parts: dict[str, Any],
    world: World,
    fresh: bool,
    tell: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    model_config, data, config = parts["model"], parts["data"], parts["train"]
    told = {name: asdict(part) for name, part in parts.items()}
    kept = out / "checkpoints"
    if world.first:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        if not checkpoints.latest(kept):
            towers.prepare(model_config, out, _captions(found))
        (out / "settings.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    gather_objects(None)  # all wait for the files
    resume = checkpoints.latest(kept)
    positions, done = checkpoints.left(resume, told, world, OWN)
    model, tokenizer, preprocess = towers.build(out, config.seed, model_config.start)
    config = dataclasses.replace(
        config,
        mean=tuple(preprocess.get("mean", OPENAI_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_STD)),
        negatives=data.negatives,
    )
    stream = PairStream(found, data, square(model), world.rank, world.ranks, positions, done)
    board = out / "tensorboard"
    records = fit(
        model,
        tokenizer,
        loader(stream),
        config,
        out / "train.jsonl",
        world=world,
        folder=kept,
        resume=resume,
        board=board,
        tell=tell,
        described=told,
    )
    facts = {
        "model": str(out),
        "steps": config.steps,
        "pairs_seen": config.steps * data.batch,
        "shards": len(found.paths),
        "samples": found.samples,
        "ranks": world.ranks,
        "device": str(world.device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "resumed_at": done,
        "last": records[-1] if records else {},
        "tensorboard": str(board) if has_tensorboard() else "",
        "versions": {"tuwen": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    if world.first:
        towers.save_weights(model, out)
        (out / "training.json").write_text(json.dumps({**facts, "settings": told}, indent=1) + "\n", "utf-8")
        (out / "training.svg").write_text(curves.svg(records), "utf-8")
        shown = {k: v for k, v in facts.items() if k not in ("last", "versions")} | facts["versions"]
        (out / "report.html").write_text(curves.page(f"Training {out.name}", records, shown, told), "utf-8")
    return facts


def square(model: Any) -> int:
    """Pixels of the side of what the model sees."""
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if height != width:
        raise UsageError(f"the model takes images of {height} by {width}; only square ones are made here")
    return int(height)


def _captions(found: Shards) -> Iterator[str]:
    """Captions, original and synthetic, for the characters in them."""
    for sample in itertools.islice(shards.every(found), CHARACTERS_FROM):
        yield sample.caption
        yield str(sample.told.get("caption_synthetic") or "")
        yield from (caption for _, caption in sample.negatives())
