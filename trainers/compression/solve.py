"""The compression's Lagrangian over its decisions, and the dual steps of its multipliers.

    min over decisions  max over lambda >= 0   loss(decisions) + sum_k lambda_k (cost_k(decisions) / budget_k - 1)

``loss`` is a model of task and distillation loss around the present network (``saliency``): a table for each width,
branch
and layer. Given multipliers the least Lagrangian is found coordinate by coordinate; multipliers rise and fall with the
violation of the hard decisions (dual ascent, in the logarithm, so that no scale has to be set by hand).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .costs import F64, METRICS, Costs, Decisions
from .network import NONE

SWEEPS = 6
DUAL_STEPS = 40
DUAL_RATE = 0.5
START = 0.01
"""The first multiplier: a doubled budget costs this much loss."""
LEAST, MOST = 1e-9, 1e6
FILLS = 40
"""Single changes at most after the multipliers have had their say."""
RAISES = 40
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
        self.pinned: frozenset[str] = frozenset()
        """Units whose branch stays as it is."""
        self._index = [METRICS.index(n) for n in names]

    def solve(self, losses: Losses, budgets: Mapping[str, float], start: Decisions) -> Decisions:
        """Dual steps to the budgets; the feasible decisions of least loss that were met, else the least violating."""
        bound = np.array([budgets[n] for n in self.names])
        best: tuple[tuple[bool, float], Decisions, dict[str, float]] | None = None
        made = start
        for i in range(DUAL_STEPS + RAISES):
            made = self.least(losses, bound, made)
            violation = self.violation(made, bound)
            worst = float(violation.max())
            rank = (worst > 0.0, worst if worst > 0 else losses.of(self.costs, made))
            if best is None or rank < best[0]:
                best = (rank, made.copy(), dict(self.multipliers))
            if i >= DUAL_STEPS and not best[0][0]:
                break
            # What is still too dear after the dual steps is priced up until it is not.
            rate = (
                DUAL_RATE / (1 + i / 10) * np.clip(4 * violation, -1, 1) if i < DUAL_STEPS else 0.25 * (violation > 0)
            )
            for name, r in zip(self.names, rate, strict=True):
                self.multipliers[name] = float(np.clip(self.multipliers[name] * np.exp(r), LEAST, MOST))
        assert best is not None
        self.multipliers = best[2]
        return self.filled(losses, bound, best[1])

    def step(self, losses: Losses, budgets: Mapping[str, float], start: Decisions) -> Decisions:
        """``solve``, with at most one unit changing its branch: the one that gives up the least loss.

        What a branch is worth was tried with all others in place; two that can each be spared are often one another's
        replacement. The next refresh sees the network without the first.
        """
        self.pinned = frozenset()
        multipliers = dict(self.multipliers)
        made = self.solve(losses, budgets, start)
        changed = [u for u, option in made.chosen.items() if option != start.chosen[u]]
        if len(changed) <= 1:
            return made
        cheapest = min(changed, key=lambda u: losses.options[u][made.chosen[u]] - losses.options[u][start.chosen[u]])
        self.pinned, self.multipliers = frozenset(start.chosen) - {cheapest}, multipliers
        return self.solve(losses, budgets, start)

    def filled(self, losses: Losses, bound: F64, start: Decisions) -> Decisions:
        """Single changes that lower the loss most for what they cost, as long as the budgets hold.

        Decisions are lumps, so that multipliers alone leave a part of a budget unused.
        """
        costs, made, loss = self.costs, start, losses.of(self.costs, start)
        if float(self.violation(made, bound).max()) > 0:
            return made
        for _ in range(FILLS):
            each = {u: costs.of(u, made) for u in made.chosen}
            tight = float(self._excess(each, bound).max())
            found = []
            for move in changes(costs, made, self.pinned):
                gain = loss - losses.of(costs, move)
                if gain > LEAST_GAIN:
                    changed = {u: costs.of(u, move) for u in move.changed}
                    violation = float(self._excess({**each, **changed}, bound).max())
                    if violation <= 0:
                        found.append((gain / max(1e-6, violation - tight), gain, move))
            if not found:
                break
            _, gain, made = max(found, key=lambda f: f[0])
            loss -= gain
        return made

    def violation(self, decisions: Decisions, bound: F64) -> F64:
        """(k,) by which share each budget is passed."""
        return self._excess({u: self.costs.of(u, decisions) for u in decisions.chosen}, bound)

    def _excess(self, each: Mapping[str, F64], bound: F64) -> F64:
        found: F64 = self.costs.corrected(each)[self._index] / bound - 1
        return found

    def least(self, losses: Losses, bound: F64, start: Decisions, scale: float = 1.0) -> Decisions:
        """Coordinate descent on the Lagrangian; ``scale`` multiplies all multipliers: one threshold for all
        decisions."""
        made = start.copy()
        priced = self._priced(bound, scale, made)
        for _ in range(SWEEPS):
            before = made.key()
            for unit in made.chosen:
                self._unit(unit, made, losses, priced)
            for gate in made.widths:
                self._width(gate, made, losses, priced)
            if made.key() == before:
                break
        return made

    def _priced(self, bound: F64, scale: float, decisions: Decisions) -> dict[tuple[str, str], dict[Any, F64]]:
        """The costs of all branches in units of loss. Of memory's largest activations the present place alone is
        priced."""
        costs = self.costs
        price = np.zeros(len(METRICS))
        price[self._index] = np.array([scale * self.multipliers[n] for n in self.names]) / bound
        latency, mflops, size, memory, energy = price * costs.correction
        largest = max(decisions.chosen, key=lambda u: costs.of(u, decisions)[4])
        found = {}
        for (unit, kind), part in costs.parts.items():
            live = memory if unit == largest else 0.0
            found[unit, kind] = {
                bits: values
                @ np.array([(latency + energy) * costs.factors[int(any(bits))], mflops, size + memory, live])
                for bits, values in part.costs.items()
            }
        return found

    def _unit(self, unit: str, made: Decisions, losses: Losses, priced: Mapping[tuple[str, str], Any]) -> None:
        """The best branch and bits of a unit."""
        present = made.chosen[unit]
        found: list[tuple[float, str, Any]] = []
        for option, loss in losses.options[unit].items():
            if unit in self.pinned and option != present:
                continue
            if option == NONE:
                found.append((loss, option, None))
                continue
            at = self.costs.at(unit, option, made)
            for bits, values in priced[unit, option].items():
                value = loss + losses.bits_of(unit, option, bits) + float(values[at])
                # Ties stay as they are.
                same = option == present and bits == made.bits[unit, option]
                found.append((value - 1e-12 * same, option, bits))
        _, made.chosen[unit], bits = min(found, key=lambda f: f[0])
        if bits is not None:
            made.bits[unit, made.chosen[unit]] = bits

    def _width(self, gate: str, made: Decisions, losses: Losses, priced: Mapping[tuple[str, str], Any]) -> None:
        costs = self.costs
        users = [u for u in costs.users[gate] if costs.uses(u, made.chosen[u], gate)]
        if not users:
            return
        total = np.array(losses.widths.get(gate, 0.0)) + np.zeros(len(costs.allowed[gate]))
        for unit in users:
            kind = made.chosen[unit]
            axes = costs.parts[unit, kind].axes
            at = tuple(slice(None) if a == gate else made.widths[a] if a else 0 for a in axes)
            total = total + priced[unit, kind][made.bits[unit, kind]][at]
        made.widths[gate] = int(total.argmin())


def changes(costs: Costs, decisions: Decisions, pinned: Container[str] = ()) -> Iterator[Decisions]:
    """Decisions that differ in one width by one step, in the bits of one layer, or in one branch of a unit not
    pinned."""
    for gate, index in decisions.widths.items():
        users = [u for u in costs.users[gate] if costs.uses(u, decisions.chosen[u], gate)]
        for other in (index - 1, index + 1) if users else ():
            if 0 <= other < len(costs.allowed[gate]):
                made = decisions.copy(users)
                made.widths[gate] = other
                yield made
    for unit, chosen in decisions.chosen.items():
        for bits in costs.parts[unit, chosen].costs if chosen != NONE else ():
            if sum(a != b for a, b in zip(bits, decisions.bits[unit, chosen], strict=True)) == 1:
                made = decisions.copy([unit])
                made.bits[unit, chosen] = bits
                yield made
        for option in costs.options[unit] if unit not in pinned else ():
            if option != chosen:
                made = decisions.copy([unit])
                made.chosen[unit] = option
                yield made
