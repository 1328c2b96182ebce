"""Domain tuning of a retrieval model: LoRA, replay of what it knew, and learning without forgetting.

Half of each batch comes from the old shards (replay), and on all of the batch the rows of similarities between images
and captions must stay near those that the model gave before (learning without forgetting, Li and Hoiem 2017, arXiv
1606.09282, with the batch's captions as its classes). What is written is a folder in open_clip's format with the
adapters added to its weights, and the adapters alone beside it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from .. import lora, settings, towers
from ..distributed import ALONE, World
from ..dual_stream import Rows
from ..evaluation import evaluate
from ..loop import Loop, Tokenize
from ..retrieval import RetrievalConfig, fit
from ..shards import find
from ..stream import DataConfig, Pairs, PairStream, loader
from ..towers import ModelConfig
from ..train_retrieval import OPENAI_MEAN, OPENAI_STD, square


@dataclass(frozen=True)
class DomainConfig:
    """What is tuned and what holds it."""

    adapters: bool = True
    """LoRA; false tunes all weights."""
    replay: float = 0.5
    """Share of each batch that comes from the old shards, where those are given."""
    keep: float = 1.0
    """Weight of learning without forgetting, on the old pairs where there is replay; 0 leaves it out."""


@dataclass(frozen=True)
class TuningData(DataConfig):
    """A domain is smaller than what a model is trained on, so the defaults are, too."""

    batch: int = 128


@dataclass(frozen=True)
class TuningConfig(RetrievalConfig):
    """Likewise."""

    steps: int = 300
    warmup: int = 20


SECTIONS: dict[str, type[Any]] = {
    "domain": DomainConfig,
    "lora": lora.LoraConfig,
    "data": TuningData,
    "train": TuningConfig,
}


def keeping(weight: float, before: nn.Module | None, replayed: int = 0) -> type[Loop]:
    """A loop with learning without forgetting of ``weight``; ``before`` is the old model, None the model itself with
    its adapters switched off.

    The last ``replayed`` pairs of a batch are old ones. Where there are any, what the old model says of them alone is
    kept: what it says of the new ones is what is to be changed.
    """

    class Keeping(Loop):
        @torch.no_grad()
        def _slow(self, given: dict[str, Tensor]) -> Rows:
            model: Any = before or self.stream.model
            with nullcontext() if before is not None else lora.switched_off(model):
                image = model.encode_image(given["pixels"], normalize=True)
                text = model.encode_text(given["tokens"], normalize=True)
            rows = {"before_image": image.float(), "before_text": text.float()}
            return rows | {"before_scale": model.logit_scale.exp().expand(len(image))}

        def objective(self, rows: Rows, groups: dict[str, Tensor]) -> dict[str, Tensor]:
            losses = super().objective(rows, groups)
            scale, held = rows["before_scale"][0], slice(-replayed, None)
            was = scale * rows["before_image"][held] @ rows["before_text"][held].T
            now = scale * rows["image"][held] @ rows["text"][held].T
            kept = (lora.kept_choices(now, was) + lora.kept_choices(now.T, was.T)) / 2
            return losses | {"keep": kept, "loss": losses["loss"] + weight * kept}

    return Keeping


def mixed(new: Iterable[Pairs], old: Iterable[Pairs] | None) -> Iterator[Pairs]:
    """Batches of the domain, each with old pairs after its own."""
    if old is None:
        yield from new
        return
    for one, other in zip(new, old, strict=False):
        yield Pairs(
            torch.cat([one.images, other.images]),
            one.captions + other.captions,
            None,
            one.keys + other.keys,
            one.position,
            one.unusable + other.unusable,
        )


def adapt(
    model: nn.Module,
    tokenize: Tokenize,
    batches: Iterable[Pairs],
    config: RetrievalConfig,
    domain: DomainConfig,
    adapters: lora.LoraConfig,
    *,
    log: Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
    world: World = ALONE,
    save_to: Path | None = None,
    replayed: int = 0,
) -> list[dict[str, Any]]:
    """Tune ``model`` in place on mixed batches; its layout is the same afterwards. ``save_to`` gets the adapters.

    ``replayed`` says how many pairs at the end of each batch of this rank are old ones.
    """
    before = None
    if domain.adapters:
        lora.attach(model, adapters, config.seed)
    elif domain.keep:
        before = lora.frozen_copy(model).to(world.device)
    make = keeping(domain.keep, before, replayed) if domain.keep else Loop
    records = fit(model, tokenize, batches, config, log, world=world, tell=tell, make=make)
    if domain.adapters:
        if save_to is not None:
            lora.save(model, save_to)
        lora.merge(model)
    return records


def tune(
    given: Sequence[str],
    model: Path,
    out: Path,
    replay: Sequence[str] = (),
    test: Sequence[str] = (),
    old: Sequence[str] = (),
    config: Path | None = None,
    sets: Sequence[str] = (),
    fresh: bool = False,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Tune the open_clip folder ``model`` to the shards ``given`` and write the folder ``out``.

    ``replay`` are shards of what it knew; ``test`` and ``old`` are shards on which both models are measured. Returns
    what was done.
    """
    parts = settings.read(SECTIONS, config, sets)
    domain, data, trained = parts["domain"], parts["data"], parts["train"]
    if not (model / towers.CONFIG).is_file():
        raise UsageError(f"--model {model} is no folder in open_clip's format ({towers.CONFIG})")
    if out.resolve() == model.resolve():
        raise UsageError("give another folder than the model's own with -o")
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; give an empty or new folder, or --fresh")
    found, before = find(given), find(replay) if replay else None
    towers.prepare(ModelConfig(start=str(model)), out, [])
    tuned, tokenizer, preprocess = towers.build(out, trained.seed, str(model))
    trained = dataclasses.replace(
        trained,
        mean=tuple(preprocess.get("mean", OPENAI_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_STD)),
    )
    side = square(tuned)
    own, others = lora.shared(data.batch, domain.replay if before else 0.0)
    stream = loader(PairStream(found, dataclasses.replace(data, batch=own, negatives=0), side))
    past = None
    if before is not None and others:
        other = dataclasses.replace(data, batch=others, negatives=0, seed=data.seed + 1)
        past = loader(PairStream(before, other, side))
    records = adapt(
        tuned,
        tokenizer,
        mixed(stream, past),
        trained,
        domain,
        parts["lora"],
        log=out / "train.jsonl",
        tell=tell,
        save_to=out / "adapter",
        replayed=others if past else 0,
    )
    towers.save_weights(tuned, out)
    facts: dict[str, Any] = {
        "model": str(out),
        "from": str(model),
        "steps": trained.steps,
        "replayed": others if past else 0,
        "batch": data.batch,
        "last": records[-1] if records else {},
    }
    for name, shards in (("new", test), ("old", old)):
        if shards:
            facts[name] = {str(at): _recall(str(folder), shards) for at, folder in (("before", model), ("after", out))}
    told = {name: asdict(part) for name, part in parts.items()}
    (out / "domain.json").write_text(json.dumps({**facts, "settings": told}, indent=1) + "\n", "utf-8")
    return facts


def lines(told: dict[str, Any]) -> list[str]:
    """What ``tune`` did, for people."""
    share = "nothing was replayed: give --replay SHARDS of what the model knew, or expect it to forget more"
    if told["replayed"]:
        share = f"{told['replayed']} of {told['batch']} pairs of each batch replayed"
    made = [f"tuned {told['from']} for {told['steps']} steps: {told['model']}", share]
    for name in ("new", "old"):
        for way, before in (told.get(name, {}).get("before") or {}).items():
            after = told[name]["after"][way]
            made.append(f"{name} {way} R@1: {before['value']:.3f} before, {after['value']:.3f} after")
    return made


def _recall(model: str, shards: Sequence[str]) -> dict[str, Any]:
    """R@1 both ways, with intervals."""
    told = evaluate.plain(evaluate.evaluate(model, shards, "test", None, (), 0, "cpu", 64))
    return {way: told[way]["R@1"] for way in ("text to image", "image to text")}
