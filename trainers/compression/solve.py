"""The compression's Lagrangian over its decisions, and the dual steps of its multipliers.

    min over decisions  max over lambda >= 0   loss(decisions) + sum_k lambda_k (cost_k(decisions) / budget_k - 1)

``loss`` is a model of task and distillation loss around the present network (``saliency``): a table for each width,
branch
and layer. Given multipliers the least Lagrangian is found coordinate by coordinate; multipliers rise and fall with the
violation of the hard decisions (dual ascent, in the logarithm, so that no scale has to be set by hand).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .costs import F64, METRICS, Costs, Decisions
from .network import NONE

SWEEPS = 6
DUAL_STEPS = 60
DUAL_RATE = 0.5
START = 0.01
"""The first multiplier: a doubled budget costs this much loss."""
LEAST, MOST = 1e-9, 1e6
FILLS = 60
LEAST_GAIN = 1e-9


@dataclass
class Losses:
    """How much the loss rises: by gate and number of its width; by unit and option; by (unit, branch) and site of
    int8."""

    widths: dict[str, F64] = field(default_factory=dict)
    options: dict[str, dict[str, float]] = field(default_factory=dict)
    bits: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    def of(self, costs: Costs, decisions: Decisions) -> float:
        """Of all decisions together."""
        found = sum(self.options[u][c] for u, c in decisions.chosen.items())
        for u, c in decisions.chosen.items():
            if c != NONE:
                found += self.bits_of(u, c, decisions.bits[u, c])
        return float(found + sum(self.width(g, i, costs, decisions) for g, i in decisions.widths.items()))

    def bits_of(self, unit: str, kind: str, bits: tuple[bool, ...]) -> float:
        """Of the int8 layers of a branch."""
        return sum(loss for loss, on in zip(self.bits.get((unit, kind), ()), bits, strict=False) if on)

    def width(self, gate: str, index: int, costs: Costs, decisions: Decisions) -> float:
        """Of a width; nothing where no chosen branch uses it."""
        used = any(costs.uses(u, decisions.chosen[u], gate) for u in costs.users[gate])
        return float(self.widths[gate][index]) if used and gate in self.widths else 0.0


class Problem:
    """Decisions under budgets: ``budgets`` (4,) of ``METRICS``, infinite where there is none."""

    def __init__(self, costs: Costs, names: list[str]) -> None:
        self.costs, self.names = costs, names
        self.multipliers = dict.fromkeys(names, START)
        self._index = [METRICS.index(n) for n in names]

    def solve(self, losses: Losses, budgets: Mapping[str, float], start: Decisions) -> Decisions:
        """Dual steps to the budgets; the feasible decisions of least loss that were met, else the least violating."""
        bound = np.array([budgets[n] for n in self.names])
        best: tuple[tuple[bool, float], Decisions] | None = None
        made = start
        for i in range(DUAL_STEPS):
            made = self.least(losses, bound, made)
            violation = self.violation(made, bound)
            worst = float(violation.max())
            rank = (worst > 0.0, worst if worst > 0 else losses.of(self.costs, made))
            if best is None or rank < best[0]:
                best = (rank, made.copy())
            rate = DUAL_RATE / (1 + i / 20)
            for name, v in zip(self.names, violation, strict=True):
                step = self.multipliers[name] * float(np.exp(rate * np.clip(4 * v, -1, 1)))
                self.multipliers[name] = float(np.clip(step, LEAST, MOST))
        assert best is not None
        return self.filled(losses, bound, best[1])

    def filled(self, losses: Losses, bound: F64, start: Decisions) -> Decisions:
        """Single changes that lower the loss most for what they cost, as long as the budgets hold.

        Decisions are lumps, so that multipliers alone leave a part of a budget unused.
        """
        made, loss = start, losses.of(self.costs, start)
        if float(self.violation(made, bound).max()) > 0:
            return made
        for _ in range(FILLS):
            tight = float(self.violation(made, bound).max())
            found = []
            for move in changes(self.costs, made):
                gain = loss - losses.of(self.costs, move)
                if gain > LEAST_GAIN:
                    violation = float(self.violation(move, bound).max())
                    if violation <= 0:
                        found.append((gain / max(1e-6, violation - tight), gain, move))
            if not found:
                break
            _, gain, made = max(found, key=lambda f: f[0])
            loss -= gain
        return made

    def violation(self, decisions: Decisions, bound: F64) -> F64:
        """(k,) by which share each budget is passed."""
        found: F64 = self.costs.total(decisions)[self._index] / bound - 1
        return found

    def least(self, losses: Losses, bound: F64, start: Decisions, scale: float = 1.0) -> Decisions:
        """Coordinate descent on the Lagrangian; ``scale`` multiplies all multipliers, which moves one threshold for
        all."""
        costs, made = self.costs, start.copy()
        each = {u: costs.of(u, made) for u in made.chosen}
        price = np.zeros(len(METRICS))
        prices = np.array([scale * self.multipliers[n] for n in self.names]) / bound
        price[self._index] = prices * costs.correction[self._index]

        def lagrangian(changed: Mapping[str, F64]) -> float:
            return float(price @ costs.raw({**each, **changed}))

        for _ in range(SWEEPS):
            before = made.key()
            for unit in made.chosen:
                self._unit(unit, made, each, losses, lagrangian)
            for gate in made.widths:
                self._width(gate, made, each, losses, lagrangian)
            if made.key() == before:
                break
        return made

    def _unit(self, unit: str, made: Decisions, each: dict[str, F64], losses: Losses, lagrangian: Any) -> None:
        """The best branch and bits of a unit."""
        costs = self.costs
        found: list[tuple[float, str, tuple[bool, ...] | None]] = []
        present = made.chosen[unit], made.bits.get((unit, made.chosen[unit]))
        for option, loss in losses.options[unit].items():
            bits = [*costs.parts[unit, option].costs] if option != NONE else [None]
            for one in bits:
                made.chosen[unit] = option
                if one is not None:
                    held, made.bits[unit, option] = made.bits[unit, option], one
                    loss_bits = losses.bits_of(unit, option, one)
                    value = loss + loss_bits + lagrangian({unit: costs.of(unit, made)})
                    made.bits[unit, option] = held
                else:
                    value = loss + lagrangian({unit: costs.of(unit, made)})
                # Ties stay as they are.
                found.append((value - 1e-12 * ((option, one) == present), option, one))
        _, made.chosen[unit], chosen_bits = min(found, key=lambda f: f[0])
        if chosen_bits is not None:
            made.bits[unit, made.chosen[unit]] = chosen_bits
        each[unit] = costs.of(unit, made)

    def _width(self, gate: str, made: Decisions, each: dict[str, F64], losses: Losses, lagrangian: Any) -> None:
        costs = self.costs
        users = [u for u in costs.users[gate] if costs.uses(u, made.chosen[u], gate)]
        if not users:
            return
        found = []
        for index in range(len(costs.allowed[gate])):
            made.widths[gate] = index
            changed = {u: costs.of(u, made) for u in users}
            found.append((losses.width(gate, index, costs, made) + lagrangian(changed), index))
        made.widths[gate] = min(found)[1]
        each |= {u: costs.of(u, made) for u in users}


def changes(costs: Costs, decisions: Decisions) -> Iterator[Decisions]:
    """Decisions that differ in one width by one step, in the bits of one layer, or in one branch."""
    for gate, index in decisions.widths.items():
        if any(costs.uses(u, decisions.chosen[u], gate) for u in costs.users[gate]):
            for other in (index - 1, index + 1):
                if 0 <= other < len(costs.allowed[gate]):
                    made = decisions.copy()
                    made.widths[gate] = other
                    yield made
    for unit, chosen in decisions.chosen.items():
        for bits in costs.parts[unit, chosen].costs if chosen != NONE else ():
            if sum(a != b for a, b in zip(bits, decisions.bits[unit, chosen], strict=True)) == 1:
                made = decisions.copy()
                made.bits[unit, chosen] = bits
                yield made
        for option in costs.options[unit]:
            if option != chosen:
                made = decisions.copy()
                made.chosen[unit] = option
                yield made
