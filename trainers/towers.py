"""The models that are trained: open_clip's, described by a preset, a file or a folder in its format.

A preset is an image tower (ViT) and a text tower that reads in both directions and is pooled at [CLS], as BERT does;
with ``text_cfg.hf_model_name`` a real BERT takes its place. What is trained is written in open_clip's format, so
it opens there and in everything that takes such a folder.
"""

from __future__ import annotations

import json
import logging
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..pipeline.errors import InputError, UsageError, nearest
from ..scoring.scorer import import_open_clip

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TEXT = {
    "hf_tokenizer_name": "local",
    "no_causal_mask": True,
    "pool_type": "first",
    "pad_id": 0,
    "eos_id": 3,
    "vocab_size": 0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 96, "head_width": 24, "patch_size": 8},
        "text_cfg": {**_TEXT, "context_length": 36, "width": 96, "heads": 4, "layers": 2},
    },
    "small": {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 112, "layers": 6, "width": 256, "head_width": 64, "patch_size": 16},
        "text_cfg": {**_TEXT, "context_length": 52, "width": 256, "heads": 4, "layers": 4},
    },
    "vit-b-16-bert": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
        "text_cfg": {**_TEXT, "context_length": 52, "width": 768, "heads": 12, "layers": 12},
    },
}
"""tiny: minutes on a CPU; small: hours; vit-b-16-bert: CLIP's ViT-B/16 beside a text tower of BERT-base's size."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained, and from which weights."""

    start: str = "tiny"
    """A preset, a JSON file in open_clip's format, or a folder in it, whose weights are then trained further."""
    vocabulary: str = "gbk"
    """gbk: all characters of that standard (21,886 signs, both scripts); captions: those of the training captions."""
    embed_dim: int = 0
    """Size of the embedding; 0: the preset's."""
    vision_cfg: dict[str, Any] = field(default_factory=dict)
    """Changes to open_clip's vision_cfg."""
    text_cfg: dict[str, Any] = field(default_factory=dict)
    """Changes to open_clip's text_cfg; hf_model_name takes a BERT of transformers from a folder."""


def prepare(config: ModelConfig, folder: Path, captions: Iterable[str]) -> None:
    """Write the model's description and tokenizer to ``folder``; ``captions`` are read only for their characters."""
    folder.mkdir(parents=True, exist_ok=True)
    described = _described(config)
    text = described["model_cfg"]["text_cfg"]
    start = Path(config.start)
    if start.is_dir():
        for path in start.iterdir():
            if path.suffix in (".json", ".txt", ".model") and not path.name.startswith(("training", "calibration")):
                shutil.copyfile(path, folder / path.name)
    elif "hf_model_name" in text:
        _bert(Path(text["hf_model_name"]), folder, text)
    elif text.get("hf_tokenizer_name") == "local":
        characters = gbk() if config.vocabulary == "gbk" else "".join(captions)
        if config.vocabulary not in ("gbk", "captions"):
            raise UsageError(
                f"model.vocabulary {config.vocabulary!r}: {nearest(config.vocabulary, ('gbk', 'captions'))}"
            )
        text["vocab_size"] = save_tokenizer(folder, characters)
    (folder / CONFIG).write_text(json.dumps(described, indent=1) + "\n", "utf-8")


def build(folder: Path, seed: int, start: str = "") -> tuple[nn.Module, Any, dict[str, Any]]:
    """(model, tokenizer, preprocess_cfg) of what ``prepare`` wrote; weights from ``start`` where that is a folder."""
    open_clip = import_open_clip()
    name = f"local-dir:{folder.absolute()}"
    told = json.loads((folder / CONFIG).read_text("utf-8"))
    torch.manual_seed(seed)
    hf = told["model_cfg"]["text_cfg"].get("hf_model_name")
    pretrained = bool(hf) and any(Path(hf).glob("*.safetensors"))
    try:
        with _quiet():
            model = open_clip.create_model(name, load_weights=False, pretrained_text=pretrained)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"open_clip cannot build this model: {error}. Look at model.vision_cfg and model.text_cfg"
        ) from None
    if start and Path(start).is_dir():
        load_weights(model, Path(start))
    return model, open_clip.get_tokenizer(name), dict(told.get("preprocess_cfg") or {})


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns that there are no weights yet, which is how it should be."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def load_weights(model: nn.Module, folder: Path) -> None:
    """The weights of a folder in open_clip's format, in any precision, into ``model``."""
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder} holds no {WEIGHTS}; give a folder in open_clip's format")
    try:
        model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit this model: {str(error).splitlines()[-1].strip()}") from None


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the weights beside the description; ``folder`` is then complete."""
    from safetensors.torch import save_file

    weights = {k: v.detach().float().cpu().clone().contiguous() for k, v in model.state_dict().items()}
    partial = folder / f".{WEIGHTS}"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / WEIGHTS)


def gbk() -> str:
    """All characters of GBK, with ASCII."""
    pairs = (bytes((a, b)) for a in range(0x81, 0xFF) for b in range(0x40, 0xFF) if b != 0x7F)
    return "".join(map(chr, range(33, 127))) + "".join(p.decode("gbk", "ignore") for p in pairs)


def save_tokenizer(folder: Path, characters: str) -> int:
    """Write a tokenizer of single characters in transformers' format; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folded = unicodedata.normalize("NFKC", characters).lower()
    vocabulary = {t: i for i, t in enumerate((*SPECIAL, *sorted(set(folded))))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="[CLS]", eos_token="[SEP]", **names).save_pretrained(
        folder
    )
    return len(vocabulary)


def _described(config: ModelConfig) -> dict[str, Any]:
    """What open_clip_config.json will say."""
    path = Path(config.start)
    if config.start in PRESETS:
        told: dict[str, Any] = {"model_cfg": json.loads(json.dumps(PRESETS[config.start])), "preprocess_cfg": {}}
        told["model_cfg"]["custom_text"] = True
        told["preprocess_cfg"] = {"size": told["model_cfg"]["vision_cfg"]["image_size"], "resize_mode": "squash"}
    elif path.is_dir() or path.suffix == ".json":
        source = path / CONFIG if path.is_dir() else path
        try:
            told = json.loads(source.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{source} cannot be read: {error}") from None
        told = told if "model_cfg" in told else {"model_cfg": told, "preprocess_cfg": {}}
    else:
        raise UsageError(
            f"model.start {config.start!r} is no JSON file and no folder in open_clip's format; "
            + nearest(config.start, PRESETS)
        )
    model = told["model_cfg"]
    if path.is_dir() and (config.vision_cfg or config.text_cfg or config.embed_dim):
        raise UsageError("a folder's weights fit its own description only: leave out embed_dim, vision_cfg, text_cfg")
    model["vision_cfg"] = _merged(model["vision_cfg"], config.vision_cfg)
    model["text_cfg"] = _merged(model["text_cfg"], config.text_cfg)
    model["embed_dim"] = config.embed_dim or model["embed_dim"]
    if "image_size" in config.vision_cfg:
        told["preprocess_cfg"]["size"] = config.vision_cfg["image_size"]
    return told


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, **changes}


def _bert(source: Path, folder: Path, text: dict[str, Any]) -> None:
    """A BERT's description goes with the model, so that the folder needs nothing beside itself."""
    from transformers import AutoTokenizer

    if not (source / "config.json").is_file():
        raise InputError(f"text_cfg.hf_model_name {source} is no folder with transformers' config.json")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    text.setdefault("hf_pooler_type", "cls_last_hidden_state_pooler")
    text.setdefault("hf_proj_type", "linear")
    text["hf_model_name"] = str(source.absolute())
