"""What each candidate block costs on a device: measured on a grid of sizes, read between its points.

A cell is one branch of one unit at given sizes and bits, exported and run by itself; what an empty session takes is
taken off. Latency is measured; operations, weights and activations are counted. Measurements are kept between runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .branches import Branch
from .export import export, weight_bytes
from .leaves import SelfAttention, TokenEmbedding
from .network import Network, Unit
from .profiler import Device, Measured, digest, identity

CELL = ("latency_ms", "mflops", "size_mb", "memory_mb")
"""Of a cell; its memory is that of the activations alive at once."""
CELL_SESSIONS = 4
COPIES = 4
"""A residual branch is measured so many times in a row: what a model pays once, where blocked layouts or integers
begin and end, is then not charged to every block."""
Bits = tuple[bool, ...]


class Place(NamedTuple):
    """Where a unit stands: its name and what comes in, (1, ...) with the channels at full width."""

    unit: Unit
    shape: tuple[int, ...]
    ids: int
    """Rows of the table where ids come in, else 0."""


class Table:
    """Measured cells of a device, kept in ``path`` where one is given.

    Without ``timed`` latencies are left at zero, which is enough for targets that are counted.
    """

    def __init__(
        self,
        device: Device,
        path: Path | None = None,
        tell: Callable[[str], None] | None = None,
        timed: bool = True,
    ) -> None:
        self.device, self._path, self._tell, self.timed = device, path, tell, timed
        self.cells: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            told = json.loads(path.read_text("utf-8"))
            self.cells = told["cells"] if told.get("device") == device.name else {}
        self.idle_ms = 0.0
        self.measured_now = 0

    def fill(self, network: Network, example: Tensor, grids: Callable[[Unit, str], list[list[int]]]) -> None:
        """Measure what is missing of the cells of all branches of a network."""
        self.idle_ms = self.device.latency(identity()).value if self.timed else 0.0
        for place in places(network, example):
            for kind in place.unit.branches:
                for sizes in product(*grids(place.unit, kind)):
                    for bits in combinations(place.unit.branches[kind]):
                        self.cell(place, kind, sizes, bits)
        self.store()

    def cell(self, place: Place, kind: str, sizes: Sequence[int], bits: Bits) -> NDArray[np.float64]:
        """(4,) ``CELL`` of a branch at sizes, in the order of its ends."""
        told = _told(place, kind, sizes, bits)
        key = digest([told, self.timed])
        if key not in self.cells:
            made, given = alone(place, kind, sizes, bits)
            copies = len(made)
            each = [0.0, 0.0, 0.0]
            if self.timed:
                found = self.device.latency(export(made, given), CELL_SESSIONS)
                each = [max(1e-5, (ms - self.idle_ms) / copies) for ms in found]
            macs, live = work(made, given[:1])
            cost = [2e-6 * macs / copies, weight_bytes(made) / 1e6 / copies, 4e-6 * live]
            self.cells[key] = {**told, "latency_ms": each, "counted": cost}
            self.measured_now += 1
            if self.measured_now % 20 == 0:
                self.store()
                if self._tell:
                    self._tell(f"{self.measured_now} blocks measured")
        kept = self.cells[key]
        return np.array([kept["latency_ms"][0], *kept["counted"]])

    def store(self) -> None:
        """Write the file."""
        if self._path is not None and self.measured_now:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps({"device": self.device.name, "cells": self.cells}) + "\n", "utf-8")
            partial.replace(self._path)


def default_path(device: Device) -> Path:
    """In the user's cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tuwen" / f"blocks-{digest(device.name)}.json"


def places(network: Network, example: Tensor) -> list[Place]:
    """The units with the shapes that come into them."""
    found = []
    x = given = example[:1]
    with torch.no_grad():
        for unit in network.every():
            rows = next(iter(unit.branches.values()))
            ids = getattr(getattr(rows, "embed", None), "width_in", 0) if x.dtype == torch.int64 else 0
            found.append(Place(unit, tuple(x.shape), ids))
            x = unit(x, given)
    return found


def combinations(branch: Branch) -> list[Bits]:
    """All choices of bits of a branch's sites, fp32 first."""
    return [*product((False, True), repeat=len(branch.sites))]


def alone(place: Place, kind: str, sizes: Sequence[int], bits: Bits) -> tuple[Alone, Tensor]:
    """A branch of other sizes as a network by itself, and two inputs for it."""
    unit = place.unit
    branch = unit.branches[kind]
    chosen = dict(zip(free(branch), sizes, strict=True))
    if unit.residual:
        chosen["out"] = chosen["in"]
    told = {**unit.describe(), "chosen": kind}
    told["branches"] = {kind: {"sizes": chosen, "fixed": branch.fixed, "int8": list(bits)}}
    shape = (2, *place.shape[1:])
    if place.ids:
        return Alone([Unit(**told)]).eval(), torch.randint(place.ids, shape)
    if "in" in chosen:
        shape = (2, chosen["in"], *shape[2:]) if len(shape) == 4 else (*shape[:-1], chosen["in"])
    made = Alone([Unit(**told) for _ in range(COPIES if unit.residual else 1)])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.train()(x)  # ranges for the int8 layers
    return made.eval(), x


def free(branch: Branch) -> list[str]:
    """The names of the sizes that a branch has by itself: the output of a residual branch follows its input."""
    ends = branch.ends()
    return [n for n in ends if not (n == "out" and "hidden" in ends)]


def work(module: nn.Module, example: Tensor) -> tuple[float, float]:
    """Multiply-adds of one input, and numbers alive at once at most (inputs and outputs of one layer)."""
    macs, live = 0.0, float(example.numel())

    def count(layer: nn.Module, given: tuple[Tensor, ...], found: Any) -> None:
        nonlocal macs, live
        x, y = given[0], found[0] if isinstance(found, tuple) else found
        live = max(live, float(x.numel() + y.numel()))
        if isinstance(layer, nn.Conv2d):
            macs += y.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            macs += y.numel() * layer.in_features
        elif isinstance(layer, nn.LSTM):
            macs += x.shape[1] * 4 * layer.hidden_size * (layer.input_size + layer.hidden_size)
        elif isinstance(layer, SelfAttention):
            macs += 2 * layer.inner * layer.head_width * x.shape[1] ** 2

    kinds = (nn.Conv2d, nn.Linear, nn.LSTM, SelfAttention, TokenEmbedding)
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return macs, live


class Alone(nn.Module):
    """Units in a row. What came into the network is not known here: three colours of their own input stand for it."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def __len__(self) -> int:
        return len(self.units)

    def forward(self, x: Tensor) -> Tensor:
        given = x[:, :3] if x.ndim == 4 else torch.zeros(x.shape[0], x.shape[1], dtype=torch.int64)
        for unit in self.units:
            x = unit(x, given)
        return x


def _told(place: Place, kind: str, sizes: Sequence[int], bits: Bits) -> dict[str, Any]:
    unit, branch = place.unit, place.unit.branches[kind]
    shape = list(place.shape)
    if "in" in branch.ends():  # channels stand among the sizes
        shape[1 if len(shape) == 4 else -1] = 0
    named = dict(zip(free(branch), sizes, strict=True))
    told: dict[str, Any] = {"kind": kind, "sizes": named, "int8": [int(b) for b in bits], "fixed": branch.fixed}
    return {**told, "residual": unit.residual, "act": unit.act, "shape": shape}


def interval(cell: Mapping[str, Any]) -> Measured:
    """The measured latency of a cell as stored."""
    return Measured(*cell["latency_ms"])
