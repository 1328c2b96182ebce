"""``curate train generation``: one stage from shards and a model to a folder in diffusers' layout, with log and report.

OUT/unet, scheduler, text_encoder, tokenizer, adapter, vae, model_index.json    the model
OUT/train.jsonl, training.svg, report.html, training.json                      how it was made
OUT/checkpoints/                                                               from which an interrupted stage goes on
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...pipeline.errors import UsageError, nearest
from .. import checkpoints, curves, settings, shards
from ..distributed import World, gather_objects, start, stop
from ..lora import shared
from ..shards import DataConfig, PairStream, Shards
from . import align, base, domain, evaluate, export, guidance, model, prune, sheet, steps
from .loop import Objective, TrainConfig, fit
from .model import TextToImage

STAGES = ("base", "align", "domain", "prune", "guidance", "steps")
LAST = ("export", "evaluate")
"""Stages that train nothing."""
OWN = frozenset({"train.log_every", "train.checkpoint_every"})
"""May differ between the two parts of an interrupted training."""
PROMPTS = 16
"""Captions whose images the report shows."""
CHARACTERS_FROM = 200_000


@dataclass(frozen=True)
class GenerationData(DataConfig):
    """What is read from the shards: as for retrieval, but whole images, since captions say where things are."""

    batch: int = 64
    crop: float = 1.0
    synthetic: float = 0.5
    more_captions: tuple[str, ...] = ()
    """Shards whose captions give words to a new vocabulary too, as those of a domain that comes later."""


@dataclass(frozen=True)
class ModelConfig:
    """What ``base`` begins with; other stages take the model that is given."""

    unet: dict[str, Any] = field(default_factory=dict)
    """Changes to the small network's description (diffusers' UNet2DConditionModel)."""
    text: dict[str, Any] = field(default_factory=dict)
    """Changes to the small text tower's (open_clip's text_cfg)."""
    tower: str = ""
    """Folder of a model of ``curate train retrieval`` whose text tower is taken."""
    train_text: bool = True
    vae: str = ""
    """Folder of an AutoencoderKL of diffusers: the network then works on its latents."""


SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "data": GenerationData,
    "train": TrainConfig,
    "diffusion": base.DiffusionConfig,
    "align": align.AlignConfig,
    "domain": domain.DomainConfig,
    "prune": prune.PruneConfig,
    "guidance": guidance.GuidanceConfig,
    "steps": steps.StepsConfig,
    "export": export.ExportConfig,
    "evaluate": evaluate.EvaluateConfig,
}


def train(
    given: Sequence[str],
    out: Path,
    stage: str,
    begin: str = "",
    config: Path | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
    fresh: bool = False,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run one stage on the shards ``given`` and write ``out``; goes on with what an interrupted one left there.

    ``begin`` is the model to start from: needed by all stages but base, which makes a new one without. Under torchrun
    every rank calls this.
    """
    if stage not in (*STAGES, *LAST):
        raise UsageError(f"stage {stage!r} is not known; {nearest(stage, (*STAGES, *LAST))}")
    if not begin and stage != "base":
        raise UsageError(f"stage {stage} begins with a model: give --start FOLDER")
    parts = settings.read(SECTIONS, config, sets)
    if stage == "export":
        prompts = evaluate.read(given, 8, 4 * PROMPTS, caption=parts["data"].caption).captions
        return export.export(model.load(begin), out, parts["export"], prompts)
    if stage == "evaluate":
        return _evaluated(given, out, model.load(begin), parts)
    found = shards.find(given)
    world = start(device)
    try:
        if fresh and world.first:
            shutil.rmtree(out, ignore_errors=True)
        gather_objects(None)
        run = _Run(found, stage, parts, world, tell)
        if stage != "steps":
            return run.stage(out, _opened(begin, world))
        told: dict[str, Any] = {}
        now = begin
        for target in parts["steps"].targets:
            folder = out / f"steps-{target}"
            told = _done(folder) or run.stage(folder, _opened(now, world), target)
            now = str(folder)
        if world.first:
            shutil.copytree(now, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoints"))
        gather_objects(None)
        return {**told, "model": str(out)}
    finally:
        stop()


def _evaluated(given: Sequence[str], out: Path, made: TextToImage, parts: dict[str, Any]) -> dict[str, Any]:
    """The figures of a model on the shards' test split, in OUT/evaluation.json, with a contact sheet."""
    config: evaluate.EvaluateConfig = parts["evaluate"]
    out.mkdir(parents=True, exist_ok=True)
    real = evaluate.read(given, made.side, config.real, "test", parts["data"].caption)
    judge = evaluate.judge_for(config, made.side, out / "probe")
    held_out = evaluate.prompts_of(Path(config.prompts)) if config.prompts else None
    before = model.load(config.before) if config.before else None
    told = evaluate.evaluate(made, real, config, judge, held_out, before)
    images = sheet.pixels(told["images"][: 4 * PROMPTS])
    (out / "samples.png").write_bytes(sheet.png(sheet.grid(images)))
    page = sheet.figures(images, real.captions[: len(images)])
    (out / "samples.html").write_text(f'<!doctype html><meta charset="utf-8"><title>{out.name}</title>{page}', "utf-8")
    text = json.dumps(evaluate.plain(told), ensure_ascii=False, indent=1)
    (out / "evaluation.json").write_text(text + "\n", "utf-8")
    return told


def _opened(folder: str, world: World) -> TextToImage | None:
    return model.load(folder).to(world.device) if folder else None


def _done(folder: Path) -> dict[str, Any]:
    path = folder / "training.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


@dataclass
class _Run:
    """What the steps of one stage share."""

    found: Shards
    name: str
    parts: dict[str, Any]
    world: World
    tell: Callable[[dict[str, Any]], None] | None

    def stage(self, out: Path, begin: TextToImage | None, target: int = 0) -> dict[str, Any]:
        config: TrainConfig = self.parts["train"]
        told = {"stage": {"name": self.name, "steps": target}, **{n: asdict(p) for n, p in self.parts.items()}}
        if self.world.first:
            out.mkdir(parents=True, exist_ok=True)
            (out / "settings.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
        gather_objects(None)
        resume = checkpoints.latest(out / "checkpoints")
        positions, done = _left(resume, told, self.world)
        objective, made, facts = self.objective(begin, target, out)
        made.to(self.world.device)
        for held in getattr(objective, "held", ()):
            held.to(self.world.device)
        if config.checkpointing:
            made.unet.enable_gradient_checkpointing()
        records = fit(
            objective,
            self.streams(made.side, positions, done),
            config,
            out / "train.jsonl",
            world=self.world,
            folder=out / "checkpoints",
            resume=resume,
            board=out / "tensorboard",
            tell=self.tell,
            described=told,
        )
        if isinstance(objective, domain.Domain):
            objective.finish()
        trained = sum(p.numel() for p in objective.trained.parameters() if p.requires_grad)
        facts = {
            "model": str(out),
            "stage": self.name,
            "steps": config.steps,
            "images_seen": config.steps * self.parts["data"].batch,
            "samples": self.found.samples,
            "ranks": self.world.ranks,
            "device": str(self.world.device),
            "parameters": model.parameters(made),
            "trained": facts.pop("trained", trained),
            "resumed_at": done,
            "last": records[-1] if records else {},
            **facts,
            "versions": {"tuwen": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        }
        if self.world.first:
            self.write(out, made, facts, records, told, target)
        gather_objects(None)
        return facts

    def objective(
        self, begin: TextToImage | None, target: int, out: Path
    ) -> tuple[Objective, TextToImage, dict[str, Any]]:
        """What the stage minimises, the model that comes of it, and facts for its record."""
        parts, seed = self.parts, self.parts["train"].seed
        diffusion, weights = parts["diffusion"], parts["guidance"]
        if self.name == "base" or begin is None:
            told: ModelConfig = parts["model"]
            made = begin or model.new(told.unet, self.captions(), told.text, told.tower, told.vae, seed)
            return base.Base(made, diffusion, told.train_text), made, {}
        if self.name == "align":
            made = align.chinese(begin, parts["align"], self.captions(), seed)
            objective: Objective = align.Align(made, begin, parts["align"], diffusion)
        elif self.name == "domain":
            made = begin
            objective = domain.Domain(made, parts["domain"], diffusion, seed)
            return objective, made, {"trained": sum(p.numel() for p in objective.parameters() if p.requires_grad)}
        elif self.name == "prune":
            removed, table = list(parts["prune"].remove), list[dict[str, Any]]()
            if self.world.first and not removed:
                removed, table = prune.chosen(begin, self.sample(begin.side), parts["prune"])
            removed, table = gather_objects((removed, table))[0]
            made = prune.smaller(begin, removed)
            objective = prune.Prune(made, begin, parts["prune"], diffusion, weights)
            return objective, made, {"removed": removed, "sensitivity": table}
        elif self.name == "guidance":
            made = guidance.student(begin, weights)
            objective = guidance.Guidance(made, begin, weights)
        else:
            made = model.copied(begin)
            objective = steps.Steps(made, begin, target, parts["steps"], weights)
        return objective, made, {}

    def streams(self, side: int, positions: list[list[int]], done: int) -> list[Any]:
        """Batches of the shards, and of the old ones where a domain is tuned with them."""
        data, tuned = self.parts["data"], self.parts["domain"]
        found = [(self.found, data)]
        if self.name == "domain" and tuned.old:
            new, old = shared(data.batch, tuned.replay or 0.5, self.world.ranks)
            found = [
                (self.found, dataclasses.replace(data, batch=new if tuned.replay else data.batch)),
                (shards.find(tuned.old), dataclasses.replace(data, batch=old, seed=data.seed + 1, negatives=0)),
            ]
        places = positions or [[] for _ in found]
        return [
            shards.loader(PairStream(f, d, side, self.world.rank, self.world.ranks, at, done))
            for (f, d), at in zip(found, places, strict=True)
        ]

    def sample(self, side: int) -> shards.Pairs:
        """One batch to measure on."""
        data = dataclasses.replace(self.parts["data"], workers=0, seed=self.parts["data"].seed + 7)
        return next(iter(PairStream(self.found, data, side)))

    def captions(self) -> Iterator[str]:
        """Captions, original and synthetic, for the words in them."""
        data: GenerationData = self.parts["data"]
        more = [shards.find(data.more_captions)] if data.more_captions else []
        for one in itertools.islice(itertools.chain(*map(shards.every, (self.found, *more))), CHARACTERS_FROM):
            yield str(one.told.get(data.caption) or "") if data.caption else one.caption
            if not data.caption:
                yield str(one.told.get("caption_synthetic") or "")

    def write(
        self, out: Path, made: TextToImage, facts: dict[str, Any], records: list[dict[str, Any]], told: Any, target: int
    ) -> None:
        """The model and its report."""
        model.save(made, out)
        data: GenerationData = self.parts["data"]
        samples = itertools.islice(shards.every(self.found), 4 * PROMPTS)
        captions = list(dict.fromkeys(str(s.told.get(data.caption) or s.caption) for s in samples))[:PROMPTS]
        images = sheet.pixels(made(captions, target or 16, 1.0))
        (out / "samples.png").write_bytes(sheet.png(sheet.grid(images)))
        (out / "training.json").write_text(json.dumps({**facts, "settings": told}, indent=1, ensure_ascii=False) + "\n")
        (out / "training.svg").write_text(curves.svg(records), "utf-8")
        shown = {k: v for k, v in facts.items() if k not in ("last", "versions", "sensitivity")} | facts["versions"]
        page = curves.page(f"Training {out.name} ({self.name})", records, shown, told)
        drawn = f"<h2>Samples</h2>{sheet.figures(images, captions)}"
        (out / "report.html").write_text(page.replace("<h2>Settings</h2>", f"{drawn}<h2>Settings</h2>"), "utf-8")


def _left(resume: Path | None, told: dict[str, Any], world: World) -> tuple[list[list[int]], int]:
    """What an interrupted stage had read on this rank, by stream, and its steps; ([], 0) where there was none."""
    if resume is None:
        return [], 0
    before = checkpoints.describe(resume)
    changed = settings.differences(before["settings"], json.loads(json.dumps(told)))
    changed = [d for d in changed if d.split(":")[0] not in OWN]
    if changed or len(before["positions"]) != world.ranks:
        why = "; ".join(changed) + ": there, here" if changed else f"{len(before['positions'])} ranks, {world.ranks}"
        raise UsageError(
            f"{resume.parent.parent} holds a training with other settings ({why}). Give the same, another -o, or "
            "--fresh"
        )
    return before["positions"][world.rank], int(before["step"])
