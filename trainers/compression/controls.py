"""What a compression has to beat at the same measured latency and the same training steps.

``uniform``     every width by one factor, then distillation for all steps
``sequential``  channels by the size of their weights, then training on the task alone; all layers to int8; then
distillation
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .costs import METRICS, Decisions
from .export import in_fp32
from .gates import cut
from .leaves import Leaf, PatchEmbedding, TokenEmbedding
from .measure import FINAL_SESSIONS
from .network import Network
from .saliency import Saliency
from .search import Search, finetune, training
from .tasks import Batch

TRIES, SHARES, PHASES = 12, 100, 8
CLOSE = 0.02
"""As near as the search itself has to come (``CompressConfig.tolerance``); noise is about one percent."""
GOLDEN = 0.618
"""Its multiples spread evenly over the unit interval."""


def uniform(search: Search, batches: Iterator[Batch], metric: str = "latency_ms") -> tuple[Network, Network]:
    """One factor for all widths, the channels that matter most to the loss kept; then distillation for all steps.

    The network, and the same before it was trained.
    """
    rank = Saliency(search.network, search.costs, lambda batch: search.loss(batch)["loss"])
    rank.update([*islice(batches, search.config.score_batches)], search.decisions)
    search.saliency.order = rank.order

    def scaled(share: float, phase: float) -> Decisions:
        return _rounded(search, {n: share * gate.size for n, gate in search.gates.gates.items()}, phase)

    made = _fitted(search, scaled, metric)
    untrained = copy.deepcopy(made)
    finetune(made, search.task, batches, training(search.config, search.config.steps))
    return made, untrained


def sequential(search: Search, batches: Iterator[Batch], metric: str = "latency_ms") -> Network:
    """Prune by magnitude, train on the task; quantise every layer; distil."""
    search.saliency.order = {name: _magnitudes(search, name).argsort(descending=True) for name in search.costs.allowed}
    sizes = {name: _magnitudes(search, name).sort(descending=True)[0] for name in search.costs.allowed}

    def pruned(share: float, phase: float) -> Decisions:
        """The channels over one threshold of weights relative to their gate's mean; ``share`` of all are over it."""
        relative = {n: s / s.mean() for n, s in sizes.items()}
        threshold = torch.cat([*relative.values()]).quantile(1 - share)
        made = _rounded(search, {n: float((r > threshold).sum()) for n, r in relative.items()}, phase)
        made.bits = {key: (True,) * len(bits) for key, bits in made.bits.items()}
        return made

    made = _fitted(search, pruned, metric)
    half = search.config.steps // 2
    with in_fp32(made):
        plain = (batch._replace(teacher=None) for batch in batches)
        finetune(made, search.task, plain, training(search.config, half))
    finetune(made, search.task, batches, training(search.config, search.config.steps - half))
    return made


def _rounded(search: Search, widths: Mapping[str, float], phase: float) -> Decisions:
    """Widths near those wanted; equal ones round up or down by turns, so that a target can be met."""
    made = search.costs.whole()
    for i, (name, allowed) in enumerate(search.costs.allowed.items()):
        wanted = widths[name] + ((GOLDEN * i + phase) % 1 - 0.5) * search.gates.gates[name].granule
        made.widths[name] = int(np.abs(np.array(allowed) - wanted).argmin())
    return made


def _fitted(search: Search, decisions: Callable[[float, float], Decisions], metric: str) -> Network:
    """The network of the share whose measured cost is closest to the target.

    Costs are no smooth function of the share: all shares are predicted, the nearest is measured, which corrects the
    prediction, and so on.
    """
    target, index = search.targets[metric], METRICS.index(metric)
    tried = itertools.product(np.linspace(0.02, 1, SHARES), np.linspace(0, 1, PHASES, endpoint=False))
    every = {made.key(): made for made in itertools.starmap(decisions, tried)}
    found: dict[str, float] = {}
    for _ in range(TRIES):
        left = [k for k in every if k not in found]
        if not left or min(found.values(), default=1.0) < CLOSE:
            break
        key = min(left, key=lambda k: abs(float(search.costs.total(every[k])[index]) / target - 1))
        found[key] = abs(search.measure(every[key], 0, FINAL_SESSIONS)[metric] / target - 1)
    best = every[min(found, key=lambda k: found[k])]
    search.decisions = best
    search.costs.apply(best, search.saliency.order)
    return cut(search.network, search.gates, search.calibrate[:1])


def _magnitudes(search: Search, name: str) -> Tensor:
    """(size,) norms of the weights that write each channel: of the gate's root, or of an attention head's outputs."""
    gate = search.gates.gates[name]
    module: Any = gate.root if gate.leaf is None else gate.leaf
    weight: Tensor
    if gate.leaf is not None:
        weight = module.out.weight.detach()
        rows = weight.view(len(weight), gate.size, -1).transpose(0, 1)
    elif isinstance(module, TokenEmbedding):
        rows = module.table.weight.detach().T
    else:
        inside = "conv" if isinstance(module, PatchEmbedding) else "out" if isinstance(module, Leaf) else ""
        rows = (getattr(module, inside) if inside else module).weight.detach()
    found: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    return found
