"""From an English text tower of a retrieval model to a Chinese one, on parallel captions and without images.

After AltCLIP (Chen et al. 2022, arXiv 2211.06679, stage one): image tower and English tower are frozen, and the Chinese
tower learns to give a caption the embedding that the English tower gives its translation. The result is a model in
open_clip's format whose image tower is the English model's, to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..pipeline.errors import InputError, UsageError
from . import settings, shards, towers
from .loop import rate
from .stream import DataConfig, Pairs, PairStream, loader


@dataclass(frozen=True)
class AlignConfig:
    """How the Chinese tower is trained."""

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 50
    seed: int = 0


SECTIONS: dict[str, type[Any]] = {"align": AlignConfig, "data": DataConfig}


def train_from_shards(
    given: Sequence[str],
    out: Path,
    source: str,
    config: Path | None = None,
    sets: Sequence[str] = (),
    device: str = "auto",
) -> dict[str, Any]:
    """``chinese`` and ``fit`` on WebDataset shards whose JSON holds English captions (``data.parallel``).

    Writes a folder in open_clip's format; returns what ``align.json`` there says.
    """
    parts = settings.read(SECTIONS, config, sets)
    data, told = parts["data"], parts["align"]
    if not data.parallel:
        raise UsageError(
            "alignment needs parallel captions: set data.parallel to the field that holds them, as caption_en"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = shards.find(given)
    english, tokenize_english, _ = towers.build(Path(source), told.seed, source)
    model, tokenize = chinese(Path(source), out, (s.caption for s in shards.every(found)), told.seed)
    side: Any = model.visual.image_size  # type: ignore[union-attr]
    side = side if isinstance(side, int) else side[0]
    batches = loader(PairStream(found, data, int(side)))
    losses = fit(model, tokenize, english, tokenize_english, batches, told, device)
    towers.save_weights(model, out)
    record = {
        "model": str(out),
        "source": source,
        "settings": {"align": asdict(told), "data": asdict(data)},
        "first": losses[0],
        "last": losses[-1],
    }
    (out / "align.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return record


def chinese(source: Path, out: Path, captions: Iterable[str], seed: int = 0) -> tuple[nn.Module, Any]:
    """(model, tokenizer) with the image tower of ``source`` and a new text tower over the characters of ``captions``.

    ``out`` gets the description and the tokenizer; ``towers.save_weights`` completes it.
    """
    try:
        told = json.loads((source / towers.CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} is no model in open_clip's format ({error})") from None
    text = told["model_cfg"]["text_cfg"]
    if "hf_model_name" in text:
        raise UsageError(f"{source} reads text with {text['hf_model_name']}; only open_clip's own towers are made anew")
    out.mkdir(parents=True, exist_ok=True)
    text |= {"hf_tokenizer_name": "local", "no_causal_mask": True, "pool_type": "first", "pad_id": 0, "eos_id": 3}
    text["vocab_size"] = towers.save_tokenizer(out, "".join(captions))
    told["model_cfg"]["custom_text"] = True
    (out / towers.CONFIG).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    model, tokenizer, _ = towers.build(out, seed)
    from safetensors.torch import load_file

    weights = {k: v.float() for k, v in load_file(source / towers.WEIGHTS).items()}
    own = {k: v for k, v in weights.items() if k.startswith("visual.") or k in ("logit_scale", "logit_bias")}
    missing = model.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys and all(k.startswith("text.") for k in missing.missing_keys)
    return model, tokenizer


def fit(
    model: Any,
    tokenize: Callable[[Sequence[str]], Tensor],
    english: Any,
    tokenize_english: Callable[[Sequence[str]], Tensor],
    batches: Iterable[Pairs],
    config: AlignConfig,
    device: str = "cpu",
) -> list[float]:
    """Train the text tower of ``model`` on ``captions`` and ``parallel`` of the batches; the losses.

    The loss is one minus the cosine of both embeddings, and their mean squared distance.
    """
    torch.manual_seed(config.seed)
    english.requires_grad_(False).eval().to(device)
    model.requires_grad_(False).to(device)
    model.text.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(model.text.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step, batch in zip(range(config.steps), batches, strict=False):
        if batch.parallel is None:
            raise UsageError("parallel captions are needed: set data.parallel to the field that holds them")
        rows = [i for i, words in enumerate(batch.parallel) if words]
        if not rows:
            continue
        with torch.no_grad():
            wanted = english.encode_text(tokenize_english([batch.parallel[i] for i in rows]).to(device), normalize=True)
        found = model.encode_text(tokenize([batch.captions[i] for i in rows]).to(device), normalize=True)
        loss = (1 - (found * wanted).sum(1)).mean() + (found - wanted).pow(2).mean()
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(step, config)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    if len(losses) < config.steps:
        raise InputError(
            f"the batches ended, or had no parallel captions, in {config.steps - len(losses)} of {config.steps} steps"
        )
    model.eval()
    return losses
