"""Tuning a model to a domain without forgetting: LoRA, learning without forgetting, replay.

Nothing here knows what the model does: the generation trainer and the retrieval trainer use the same parts.

LoRA (Hu et al. 2022, arXiv 2106.09685) is peft's, put into the model in place. With the adapters switched off the
model is the one that was tuned, so learning without forgetting (Li and Hoiem 2017, arXiv 1606.09282: keep the old
outputs on the new data) needs no second copy of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pipeline.errors import InputError, UsageError

ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoraConfig:
    """How large the adapters are and where they sit."""

    rank: int = 16
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Ends of the names of modules that get an adapter; empty: all linear, convolutional and embedding ones."""


def attach(model: nn.Module, config: LoraConfig, seed: int = 0) -> list[nn.Parameter]:
    """Freeze ``model`` and put adapters into it; returns their parameters. The outputs are the same until trained."""
    peft = _peft()
    names = [n for n in _adaptable(model) if _chosen(n, config.targets)]
    if not names:
        raise UsageError(f"no layer that can have an adapter is named {' or '.join(config.targets) or 'anything'}")
    torch.manual_seed(seed)  # of the A matrices
    model.requires_grad_(False)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=names)
    peft.inject_adapter_in_model(settings, model)
    return [p for p in model.parameters() if p.requires_grad]


def fits(model: nn.Module, config: LoraConfig) -> bool:
    """Whether any layer of ``model`` would get an adapter."""
    return any(_chosen(n, config.targets) for n in _adaptable(model))


def merge(model: nn.Module) -> None:
    """Add the adapters to the weights they sit on and take them out: the layout is that of the model before."""
    layer = _layer()
    for name, module in list(model.named_modules()):
        if isinstance(module, layer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
    model.requires_grad_(True)
    for name in ("peft_config", "_hf_peft_config_loaded"):  # diffusers and transformers look for these
        vars(model).pop(name, None)


@contextmanager
def switched_off(*models: nn.Module) -> Iterator[None]:
    """Within it the models are what they were before ``attach``."""
    layer = _layer()
    found = [m for model in models for m in model.modules() if isinstance(m, layer)]
    for module in found:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for module in found:
            module.enable_adapters(True)


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now, not to be trained: the teacher where the weights themselves are tuned."""
    held = copy.deepcopy(model).eval()
    held.requires_grad_(False)
    return held


def save(model: nn.Module, folder: Path) -> Path:
    """Write the adapters alone, under peft's names."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = _peft().get_peft_model_state_dict(model)
    path = folder / ADAPTER
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, path, metadata={"format": "pt"})
    return path


def load(model: nn.Module, folder: Path) -> None:
    """Set the adapters of ``model``, which ``attach`` put there, to those that ``save`` wrote."""
    from safetensors.torch import load_file

    path = folder / ADAPTER
    if not path.is_file():
        raise InputError(f"{folder} holds no {ADAPTER}; give a folder that a tuning with LoRA wrote")
    told = _peft().set_peft_model_state_dict(model, load_file(path))
    if told.unexpected_keys:
        raise InputError(f"{path} belongs to another model: it has {told.unexpected_keys[0]}")


def kept_outputs(now: Tensor, before: Tensor) -> Tensor:
    """Learning without forgetting for a regression: the mean squared distance to the outputs before."""
    return F.mse_loss(now.float(), before.detach().float())


def kept_choices(now: Tensor, before: Tensor, temperature: float = 2.0) -> Tensor:
    """Learning without forgetting for logits (n, classes), or for similarities of rows with a bank of old captions.

    Cross-entropy with the softened choices before, times the square of the temperature so that its gradient keeps its
    size (Hinton et al. 2015, section 2.1); Li and Hoiem take a temperature of 2.
    """
    soft = (before.detach().float() / temperature).softmax(-1)
    return -(soft * (now.float() / temperature).log_softmax(-1)).sum(-1).mean() * temperature**2


def shared(batch: int, share: float, ranks: int = 1) -> tuple[int, int]:
    """How a batch over all ranks is shared by (new, replayed) samples, a ``share`` of them replayed."""
    if not 0 <= share < 1:
        raise UsageError(f"a share of {share} replayed samples is none; give 0 or more and less than 1")
    old = round(batch * share / ranks) * ranks
    return batch - old, old


def _adaptable(model: nn.Module) -> list[str]:
    """Names of layers; none within torch's own attention.

    That reads its layers' weights without calling them. peft can adapt it by adding to the weights in each pass and
    taking away again, which moves them by rounding, so that the frozen model would not be the old one any more.
    """
    named = dict(model.named_modules())
    attention = tuple(f"{n}." for n, m in named.items() if isinstance(m, nn.MultiheadAttention))
    kinds = nn.Linear | nn.Conv2d | nn.Embedding
    return [n for n, m in named.items() if isinstance(m, kinds) and not n.startswith(attention)]


def _chosen(name: str, ends: Sequence[str]) -> bool:
    return not ends or any(name == end or name.endswith(f".{end}") for end in ends)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"LoRA needs the package peft ({error}): pip install 'tuwen[generation]'") from None
    return peft


def _layer() -> Any:
    _peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer
