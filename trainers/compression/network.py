"""Networks of units, and their folder: ``network.json`` (units, sizes, choices, bits) and ``network.safetensors``.

A unit has one or more branches of which one is chosen. A residual unit adds it to what came in, and may choose none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import InputError, nearest
from .branches import HEADS, KINDS, Branch

DESCRIPTION, WEIGHTS = "network.json", "network.safetensors"
NONE = "none"
"""The choice of a residual unit that is left out."""


class Unit(nn.Module):
    """One place of a network.

    ``branches`` are {kind: {"sizes": ..., "fixed": ..., "int8": [...]}}; ``act`` is applied to the sum.
    """

    branches: Mapping[str, Branch]

    def __init__(
        self,
        name: str,
        branches: Mapping[str, Mapping[str, Any]],
        chosen: str,
        residual: bool = False,
        act: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.chosen, self.residual, self.act = name, chosen, residual, act
        made = {}
        for kind, told in branches.items():
            if kind not in KINDS:
                raise InputError(f"unit {name}: branch {kind!r} is unknown; {nearest(kind, KINDS)}")
            made[kind] = KINDS[kind](told["sizes"], **told.get("fixed", {}))
            made[kind].set_bits(told.get("int8", [False] * len(made[kind].sites)))
        self.branches = nn.ModuleDict(made)  # type: ignore[assignment]
        self.every = False
        """All branches are computed: while the dependency graph is traced."""
        self.inputs: Tensor | None = None
        self.keep_inputs = False

    @property
    def options(self) -> tuple[str, ...]:
        """What may be chosen, the first branch being the original."""
        return (*self.branches, NONE) if self.residual else (*self.branches,)

    @property
    def head(self) -> bool:
        """Whether it ends the network."""
        return next(iter(self.branches)) in HEADS

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        if self.keep_inputs:
            self.inputs = x.detach()
        if self.head:
            found: Tensor = next(iter(self.branches.values()))(x, given)
            return found
        if self.every:
            y = sum(branch(x) for branch in self.branches.values())
        elif self.chosen == NONE:
            return x
        else:
            y = self.branches[self.chosen](x)
        y = x + y if self.residual else y
        return F.relu(y) if self.act else y

    def keep_chosen(self) -> None:
        """Drop all other branches."""
        kept = {k: b for k, b in self.branches.items() if k == self.chosen}
        self.branches = nn.ModuleDict(kept)  # type: ignore[assignment]

    def describe(self) -> dict[str, Any]:
        """What makes this unit again."""
        branches = {
            kind: {"sizes": b.sizes(), "fixed": b.fixed, "int8": list(b.bits())} for kind, b in self.branches.items()
        }
        told = {"name": self.name, "branches": branches, "chosen": self.chosen}
        return {**told, "residual": self.residual, "act": self.act}


class Network(nn.Module):
    """Units in a row."""

    def __init__(self, units: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(**told) for told in units)

    def forward(self, given: Tensor) -> Tensor:
        x = given
        for unit in self.units:
            x = unit(x, given)
        return x

    def every(self) -> list[Unit]:
        """The units, typed."""
        return list(self.units)  # type: ignore[arg-type]

    def describe(self) -> list[dict[str, Any]]:
        """What makes this network again."""
        return [unit.describe() for unit in self.every()]

    def drop_unused(self) -> None:
        """Leave only what is computed: chosen branches, and no units that chose none."""
        kept = [unit for unit in self.every() if unit.chosen != NONE]
        for unit in kept:
            unit.keep_chosen()
        self.units = nn.ModuleList(kept)


def save(network: Network, folder: Path, told: Mapping[str, Any]) -> None:
    """Write a network; ``told`` (task, input, name) stands beside its units in the description."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().clone().contiguous() for k, v in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    described = {**told, "units": network.describe()}
    (folder / DESCRIPTION).write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n", "utf-8")


def load(folder: Path) -> tuple[Network, dict[str, Any]]:
    """A network and what its description says besides; ``InputError`` names what does not hold."""
    from safetensors.torch import load_file

    path = folder / DESCRIPTION
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        network = Network(told.pop("units"))
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no network: {type(error).__name__}: {error}") from None
    except RuntimeError as error:
        raise InputError(f"{folder / WEIGHTS} does not fit {DESCRIPTION}: {str(error).splitlines()[-1]}") from None
    return network.eval(), told
