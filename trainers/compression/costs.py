"""What a set of decisions costs: sums over the table, corrected by whole models that were measured.

Decisions are hard at all times: whole widths that may be exported, one branch or none, 8 bits or 32. What is
constrained is therefore what will ship, not an expectation over gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gates import Gate, Gates
from .network import NONE, Network, Unit
from .table import CELL, Bits, Place, Table, combinations, free, places

F64 = NDArray[np.float64]
METRICS = (*CELL, "energy_mj")
"""Of a whole model. Energy follows latency until it has been measured."""
AGEING = 0.8
"""What a whole model that was measured counts for once another has been."""
RIDGE = 0.02
"""How strongly fp32 and int8 are held to one common factor, in squared shares of a measurement."""


@dataclass
class Decisions:
    """``widths``: gate to the number of its allowed width; ``chosen``: unit to branch or none; ``bits`` by branch."""

    widths: dict[str, int]
    chosen: dict[str, str]
    bits: dict[tuple[str, str], Bits]
    changed: tuple[str, ...] = ()
    """Units whose costs may differ from those of the decisions that these were copied from."""

    def copy(self, changed: Sequence[str] = ()) -> Decisions:
        """Another that may be changed."""
        return Decisions(dict(self.widths), dict(self.chosen), dict(self.bits), tuple(changed))

    def key(self) -> str:
        """Equal for equal decisions."""
        used = {u: (c, self.bits.get((u, c))) for u, c in self.chosen.items()}
        return repr((sorted(self.widths.items()), sorted(used.items())))


@dataclass
class Part:
    """One branch of a unit: the gates of its free sizes, and costs by bits and by the numbers of its widths."""

    axes: list[str]
    costs: dict[Bits, F64] = field(default_factory=dict)
    """(widths of the first axis, ..., 4)"""


class Costs:
    """Costs of a network's decisions on a device."""

    def __init__(self, network: Network, gates: Gates, table: Table, example: Tensor) -> None:
        self.network, self.gates, self.table = network, gates, table
        self.allowed = {name: gate.allowed() for name, gate in gates.gates.items()}
        table.fill(network, example, self._grids)
        self.parts: dict[tuple[str, str], Part] = {}
        for place in places(network, example):
            for kind in place.unit.branches:
                self.parts[place.unit.name, kind] = self._part(place, kind)
        self.options = {unit.name: unit.options for unit in network.every()}
        self.correction, self.offset = np.ones(len(METRICS)), np.zeros(len(METRICS))
        """What whole models come to beside the sum of their parts: a factor for energy, and for sizes what a file or
        a session takes by itself."""
        self.factors = np.ones(2)
        """Of the table's latencies: branches in fp32, branches with int8 layers. Blocked layouts do not add up
        alike."""
        self.users: dict[str, list[str]] = {name: [] for name in self.allowed}
        for (unit, _), part in self.parts.items():
            for axis in part.axes:
                if axis and unit not in self.users[axis]:
                    self.users[axis].append(unit)
        self.seen: list[dict[str, Any]] = []
        self._latencies: list[tuple[F64, float]] = []

    def whole(self) -> Decisions:
        """The uncompressed network."""
        units = self.network.every()
        bits = {(u.name, kind): (False,) * len(b.sites) for u in units for kind, b in u.branches.items()}
        return Decisions({n: len(a) - 1 for n, a in self.allowed.items()}, {u.name: u.options[0] for u in units}, bits)

    def of(self, unit: str, decisions: Decisions) -> F64:
        """(5,) cost of one unit as the table has it: latency in fp32, latency with int8, and the rest of ``CELL``."""
        kind = decisions.chosen[unit]
        if kind == NONE:
            return np.zeros(len(CELL) + 1)
        bits = decisions.bits[unit, kind]
        latency, *others = self.parts[unit, kind].costs[bits][self.at(unit, kind, decisions)]
        return np.array([0.0, latency, *others] if any(bits) else [latency, 0.0, *others])

    def at(self, unit: str, kind: str, decisions: Decisions) -> tuple[int, ...]:
        """Where the present widths stand in the costs of a branch."""
        return tuple(decisions.widths[a] if a else 0 for a in self.parts[unit, kind].axes)

    def raw(self, each: Mapping[str, F64]) -> F64:
        """Totals from the units' costs: memory is all weights and the largest activations."""
        rows = np.array([*each.values()])
        total = rows.sum(0)
        latency = self.table.idle_ms + float(self.factors @ total[:2])
        found: F64 = np.array([latency, total[2], total[3], total[3] + rows[:, 4].max(), latency])
        return found

    def uses(self, unit: str, option: str, gate: str) -> bool:
        """Whether a unit that chose ``option`` has the width of ``gate``."""
        return option != NONE and gate in self.parts[unit, option].axes

    def total(self, decisions: Decisions) -> F64:
        """(5,) corrected ``METRICS``."""
        return self.corrected({u: self.of(u, decisions) for u in decisions.chosen})

    def corrected(self, each: Mapping[str, F64]) -> F64:
        """Likewise, from the units' costs."""
        found: F64 = self.raw(each) * self.correction + self.offset
        return found

    def correct(self, decisions: Decisions, measured: Mapping[str, float], step: int) -> None:
        """Learn from a whole model that was measured."""
        each = {u: self.of(u, decisions) for u in decisions.chosen}
        predicted = self.corrected(each)
        for i, name in enumerate(METRICS):
            if name in measured and (self.table.timed or name != "latency_ms"):
                self.seen.append(
                    {"step": step, "metric": name, "measured": measured[name], "predicted": float(predicted[i])}
                )
        if self.table.timed:
            parts = np.array([*each.values()])[:, :2].sum(0)
            self._latencies.append((parts, measured["latency_ms"]))
            self.factors = self._fitted()
        raw = self.raw(each)
        for i, name in enumerate(METRICS):
            if name in measured and name in ("size_mb", "memory_mb"):
                self.offset[i] = measured[name] - raw[i]
            elif name in measured and name == "energy_mj":
                self.correction[i] = measured[name] / max(1e-9, raw[i])

    def _fitted(self) -> F64:
        """Factors of fp32 and int8 latencies by ridge regression, the newest measurement weighing most."""
        whole, ms = self._latencies[0]
        prior = np.full(2, max(0.05, (ms - self.table.idle_ms) / max(1e-9, whole.sum())))
        left, right = RIDGE * np.eye(2), RIDGE * prior
        for age, (parts, ms) in enumerate(reversed(self._latencies)):
            row = parts / ms  # errors count as shares
            left = left + AGEING**age * np.outer(row, row)
            right = right + AGEING**age * row * (ms - self.table.idle_ms) / ms
        return np.clip(np.linalg.solve(left, right), 0.05, 20.0)

    def apply(self, decisions: Decisions, order: Mapping[str, Tensor]) -> None:
        """Put the decisions into the network; of a gate the channels that come first in ``order`` stay."""
        masks = {}
        for name, gate in self.gates.gates.items():
            mask = torch.zeros(gate.size)
            mask[order[name][: self.allowed[name][decisions.widths[name]]]] = 1
            masks[name] = mask
        self.gates.set(masks)
        for unit in self.network.every():
            unit.chosen = decisions.chosen[unit.name]
            for kind, branch in unit.branches.items():
                branch.set_bits(decisions.bits[unit.name, kind])

    def _gates(self, unit: Unit, kind: str) -> list[Gate | None]:
        branch = unit.branches[kind]
        ends = branch.ends()
        return [self.gates.at(*ends[name]) for name in free(branch)]

    def _grids(self, unit: Unit, kind: str) -> list[list[int]]:
        branch = unit.branches[kind]
        sizes = branch.sizes()
        gates = self._gates(unit, kind)
        return [
            _grid(gate.allowed()) if gate else [sizes[name]] for name, gate in zip(free(branch), gates, strict=True)
        ]

    def _part(self, place: Place, kind: str) -> Part:
        gates = self._gates(place.unit, kind)
        part = Part([gate.name if gate else "" for gate in gates])
        grids = self._grids(place.unit, kind)
        for bits in combinations(place.unit.branches[kind]):
            values = np.array(
                [
                    [self.table.cell(place, kind, (*_at(grids, i),), bits) for i in range(_count(grids))],
                ]
            ).reshape(*(len(g) for g in grids), len(CELL))
            for axis, (gate, grid) in enumerate(zip(gates, grids, strict=True)):
                values = _between(values, axis, grid, gate.allowed() if gate else grid)
            part.costs[bits] = values
        return part


def _count(grids: list[list[int]]) -> int:
    return int(np.prod([len(g) for g in grids]))


def _at(grids: list[list[int]], i: int) -> list[int]:
    """The i-th point of a grid, last axis fastest."""
    index = np.unravel_index(i, [len(g) for g in grids]) if grids else ()
    return [g[int(k)] for g, k in zip(grids, index, strict=True)]


def _grid(allowed: list[int]) -> list[int]:
    """Widths that are measured: near a quarter, a half, and all of it."""
    if len(allowed) <= 3:
        return allowed
    full = allowed[-1]
    near = {min(allowed, key=lambda w, share=share: abs(w - share * full)) for share in (0.25, 0.5)}  # type: ignore[misc]
    return sorted({*near, full})


def _between(values: F64, axis: int, grid: list[int], wanted: list[int]) -> F64:
    """Linear between the points of an axis, and beyond its ends, but not under a fifth of the least."""
    if grid == wanted:
        return values
    moved = np.moveaxis(values, axis, 0)
    rows = []
    for w in wanted:
        k = int(np.clip(np.searchsorted(grid, w), 1, len(grid) - 1))
        share = (w - grid[k - 1]) / (grid[k] - grid[k - 1])
        rows.append(np.maximum(moved[k - 1] * (1 - share) + moved[k] * share, 0.2 * moved[0]))
    return np.moveaxis(np.array(rows), 0, axis)
