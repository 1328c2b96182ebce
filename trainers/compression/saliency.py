"""A model of the loss around the present network: what each decision would cost, estimated on training batches.

Channels by Fisher information: half the mean square, over inputs, of the gradient of an input's own loss with
respect to the channel's gate (Theis et al. 2018, arXiv 1801.05787); gradients of all layers that share a gate meet in
it before they are squared (Liu et al. 2021, arXiv 2108.00708). First-order terms vanish where a network has
converged, which is why gates that follow them wander. A probe closes the least of a gate's channels together and
scales its estimates. Branches, missing units and int8 layers are few: each is tried on a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .costs import Costs, Decisions
from .network import Network
from .solve import Losses

MOMENTUM = 0.5
CLOSED = 0.5
"""Closed channels have not been trained lately: their share of what their gradient promises."""
SCALES = (0.01, 1e6)
"""Fisher information is a loss for cross entropy alone. Of others it is of quite another size, not the same in any two
gates."""
PROBED = 0.5
"""Share of a gate's open channels that a probe closes."""
Loss = Callable[[Any], Tensor]


class Saliency:
    """Estimates that are renewed as the network trains."""

    def __init__(self, network: Network, costs: Costs, loss: Loss) -> None:
        self.network, self.costs, self.loss = network, costs, loss
        self.fisher: dict[str, Tensor] = {}
        self.scales: dict[str, float] = {}
        self.losses = Losses(options={u.name: dict.fromkeys(u.options, 0.0) for u in network.every()})
        self.order = {name: torch.arange(gate.size) for name, gate in costs.gates.gates.items()}

    def update(self, batches: Sequence[Any], decisions: Decisions) -> Losses:
        """Look again, with the network as ``decisions`` have it; the first batch serves the probes."""
        with probing(self.network):
            self._gradients(batches)
            self._probe(batches[0], decisions)
        for name, gate in self.costs.gates.gates.items():
            if name in self.fisher:
                value = self.fisher[name] * torch.where(gate.mask > 0, 1.0, CLOSED)
                self.order[name] = value.argsort(descending=True, stable=True)
                sorted_ = value[self.order[name]].numpy().astype(np.float64)
                gone = sorted_.sum() - np.cumsum(sorted_)  # what lies beyond the i-th channel
                allowed = np.array(self.costs.allowed[name])
                self.losses.widths[name] = self.scales.get(name, 1.0) * np.maximum(gone[allowed - 1], 0)
        return self.losses

    def _gradients(self, batches: Sequence[Any]) -> None:
        found: dict[str, list[Tensor]] = {}
        for batch in batches:
            n = len(batch.inputs)
            with self.costs.gates.for_each(n) as masks:
                self.loss(batch).backward()
                for name, mask in masks.items():
                    if mask.grad is not None and bool(mask.grad.any()):
                        found.setdefault(name, []).append(0.5 * (n * mask.grad).square().mean(0))
            self.network.zero_grad(set_to_none=True)
        for name, each in found.items():
            new = torch.stack(each).mean(0)
            self.fisher[name] = new if name not in self.fisher else torch.lerp(self.fisher[name], new, MOMENTUM)

    @torch.no_grad()
    def _probe(self, batch: Any, decisions: Decisions) -> None:
        base = float(self.loss(batch))
        for unit in self.network.every():
            present, tried = unit.chosen, {unit.chosen: 0.0}
            for option in unit.options:
                if option != present:
                    unit.chosen = option
                    tried[option] = float(self.loss(batch)) - base
            unit.chosen = present
            table = self.losses.options[unit.name]
            for option in unit.options:
                table[option] = _mixed(table[option], tried[option] - tried[unit.options[0]])
            if present in unit.branches:
                self._probe_bits(batch, unit.name, present, unit.branches[present], base)
        for name in self.fisher:
            self._probe_width(batch, name, base)

    def _probe_bits(self, batch: Any, unit: str, kind: str, branch: Any, base: float) -> None:
        bits = branch.bits()
        found = []
        for site, on in enumerate(bits):
            branch.set_bits([not b if i == site else b for i, b in enumerate(bits)])
            change = float(self.loss(batch)) - base
            found.append(max(0.0, -change if on else change))
        branch.set_bits(bits)
        before = self.losses.bits.get((unit, kind), (0.0,) * len(bits))
        self.losses.bits[unit, kind] = tuple(_mixed(b, f) for b, f in zip(before, found, strict=True))

    def _probe_width(self, batch: Any, name: str, base: float) -> None:
        gate = self.costs.gates.gates[name]
        kept = gate.kept
        held = gate.mask
        least = kept[self.fisher[name][kept].argsort()][: int(PROBED * len(kept))]
        predicted = float(self.fisher[name][least].sum())
        if not len(least) or predicted <= 0:
            return
        mask = held.clone()
        mask[least] = 0
        self.costs.gates.set({name: mask})
        change = float(self.loss(batch)) - base
        self.costs.gates.set({name: held})
        scale = float(np.clip(change / predicted, *SCALES))
        before = self.scales.get(name, scale)
        self.scales[name] = float(np.exp(_mixed(np.log(before), np.log(scale))))


def _mixed(before: float, new: float) -> float:
    return (1 - MOMENTUM) * before + MOMENTUM * new if before else new


@contextmanager
def probing(network: nn.Module) -> Iterator[None]:
    """Batch norms take the batch's statistics, since a probe changes them, and remember none of it."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    training, held = network.training, [m.momentum for m in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, held, strict=True):
            norm.momentum = momentum
        network.train(training)


def teach(network: Network) -> Tensor:
    """How far the branches that stand by are from what the original gives for the same inputs, as shares of its
    variance.

    Their own loss: they become drop-in replacements while the network trains, so that a choice can be made at any time.
    """
    found = torch.zeros(())
    for unit in network.every():
        x, first = unit.inputs, unit.options[0]
        if x is None or len(unit.branches) < 2 or unit.chosen != first:
            continue
        with torch.no_grad():
            y = unit.branches[first](x)
        for kind, branch in unit.branches.items():
            if kind != first:
                found = found + (branch(x) - y).square().mean() / y.var().clamp(min=1e-6)
    return found
