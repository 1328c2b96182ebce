"""Checkpoints: weights, momentum copy and optimiser state in safetensors, the rest as JSON. No pickles.

A checkpoint is a folder ``step-00001000``; it takes that name when it is complete. Random numbers need no state: they
are made from seed, step and rank.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..pipeline.errors import InputError, UsageError
from .distributed import World
from .settings import differences

_NAME = re.compile(r"step-(\d+)$")


class Loop(Protocol):
    """What is kept of a loop: modules in training, their slow copy, the optimiser with its parameters' names."""

    done: int
    names: list[str]
    scaler: torch.amp.GradScaler
    world: World

    @property
    def stream(self) -> nn.Module:
        """All that is trained."""

    @property
    def teacher(self) -> nn.Module | None:
        """Its slow copy, where there is one."""

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """The optimiser, whose state is kept by the names of its parameters."""


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies."""
    return folder / f"step-{step:08d}"


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in ``folder``; None where there is none."""
    found = [p for p in folder.glob("step-*") if _NAME.search(p.name)] if folder.is_dir() else []
    return max(found, default=None)


def save(loop: Loop, folder: Path, positions: list[Any], settings: dict[str, Any], keep: int = 2) -> Path:
    """Write the state after ``loop.done`` steps; the ``keep`` newest checkpoints stay. One rank calls this.

    ``positions`` are, for each rank, the samples that each of its workers had taken.
    """
    target = path_of(folder, loop.done)
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_flat(loop.stream.state_dict()), partial / "model.safetensors")
    if loop.teacher is not None:
        save_file(_flat(loop.teacher.state_dict()), partial / "momentum.safetensors")
    moments = {f"{name}/{kind}": value for name, state in _states(loop) for kind, value in state.items()}
    save_file(_flat(moments), partial / "optimizer.safetensors")
    told = {"step": loop.done, "positions": positions, "scaler": loop.scaler.state_dict(), "settings": settings}
    (partial / "state.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    complete = sorted(p for p in folder.glob("step-*") if _NAME.search(p.name))
    for old in complete[:-keep]:
        shutil.rmtree(old)
    return target


def describe(checkpoint: Path) -> dict[str, Any]:
    """Step, positions and settings of a checkpoint."""
    try:
        told: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{checkpoint} is no complete checkpoint ({error}); remove it, or name another") from None
    return told


def left(
    checkpoint: Path | None, told: Mapping[str, Any], world: World, free: frozenset[str] = frozenset()
) -> tuple[list[Any], int]:
    """The positions of this rank and the steps that an interrupted training had done; ([], 0) where there was none.

    ``told`` are the settings of the training that would go on. ``UsageError`` where they differ from the checkpoint's
    in more than what ``free`` names, or where the ranks do.
    """
    if checkpoint is None:
        return [], 0
    before = describe(checkpoint)
    # Through JSON, as the checkpoint's own: tuples are lists there.
    changed = differences(before["settings"], json.loads(json.dumps(told)))
    changed = [difference for difference in changed if difference.split(":")[0] not in free]
    if changed:
        raise UsageError(
            f"{checkpoint.parent} is of a training with other settings ({'; '.join(changed)}: there, here). "
            "Give the same, another -o, or --fresh to begin again"
        )
    if len(before["positions"]) != world.ranks:
        raise UsageError(
            f"the checkpoint was made by {len(before['positions'])} ranks and {world.ranks} are here, which would read "
            "in another order. Start as many, or give another -o, or --fresh to begin again"
        )
    return before["positions"][world.rank], int(before["step"])


def load(loop: Loop, checkpoint: Path) -> None:
    """Set ``loop`` to the state of ``checkpoint``."""
    told = describe(checkpoint)
    try:
        loop.stream.load_state_dict(load_file(checkpoint / "model.safetensors"))
        if loop.teacher is not None:
            loop.teacher.load_state_dict(load_file(checkpoint / "momentum.safetensors"))
        moments = load_file(checkpoint / "optimizer.safetensors", device=str(loop.world.device))
    except (OSError, RuntimeError) as error:
        words = str(error).splitlines()[0]
        raise InputError(f"{checkpoint} does not fit this model and its settings ({words}); use another -o") from None
    parameters = dict(loop.stream.named_parameters())
    for key, value in moments.items():
        name, _, kind = key.rpartition("/")
        # AdamW counts its steps on the CPU.
        loop.optimiser.state[parameters[name]][kind] = value.cpu() if kind == "step" else value
    if told["scaler"]:
        loop.scaler.load_state_dict(told["scaler"])
    loop.done = int(told["step"])


def _states(loop: Loop) -> list[tuple[str, dict[str, Any]]]:
    parameters = dict(loop.stream.named_parameters())
    return [(name, loop.optimiser.state[parameters[name]]) for name in loop.names]


def _flat(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {k: torch.as_tensor(v).detach().clone().contiguous() for k, v in tensors.items()}
