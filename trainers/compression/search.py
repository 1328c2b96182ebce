"""One compression: search under the Lagrangian while the weights train, a measured fit, fine-tuning of what is left.

The budgets close in from the whole network's costs to the targets over the search, so that the weights follow. Every
refresh estimates the losses anew, takes dual steps, puts the decisions into the network and measures it as it would
ship; the table's predictions are corrected by that. At the end the multipliers are scaled together, one threshold for
every decision, until the measured model meets the targets. Then the network is cut and trains on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..edge.student import DistilConfig, minimise
from .costs import METRICS, Costs, Decisions
from .export import in_fp32
from .gates import Gates, cut
from .measure import FINAL_SESSIONS, Measuring
from .network import NONE, Network
from .profiler import SESSIONS
from .saliency import Saliency, probing, teach
from .solve import Losses, Problem, changes
from .table import Table
from .tasks import Batch, Task

BISECTIONS, MOVES = 7, 6
Tell = Callable[[dict[str, Any]], None]
Judge = Callable[[Callable[[Tensor], Tensor]], float]
"""The quality of a model, given as a call."""


@dataclass(frozen=True)
class CompressConfig:
    """How long and how fast."""

    steps: int = 2000
    """Steps in all, search and fine-tuning together."""
    search: float = 0.3
    """Share of the steps in which decisions are still made."""
    refreshes: int = 8
    """How often they are made anew."""
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.02
    clip: float = 1.0
    seed: int = 0
    score_batches: int = 2
    """Batches that channels are judged by at each refresh."""
    tolerance: float = 0.02
    """How far under a budget the measured model may end before it is fitted closer; half a goal of 5 % and some
    noise."""
    log_every: int = 50


@dataclass
class Result:
    """What a compression made and how."""

    network: Network
    model: bytes
    measured: dict[str, Any]
    reference: dict[str, Any]
    budgets: dict[str, float]
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    fits: list[dict[str, Any]] = field(default_factory=list)
    masked_difference: float = 0.0
    predictions: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Search:
    """The search over one network; ``run`` gives the cut network, still to be fine-tuned."""

    def __init__(
        self,
        network: Network,
        task: Task,
        measuring: Measuring,
        table: Table,
        targets: Mapping[str, float],
        calibrate: Tensor,
        config: CompressConfig,
        tell: Tell | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.judge = judge
        self.network, self.task, self.measuring, self.config, self.tell = network, task, measuring, config, tell
        self.calibrate, self.targets = calibrate, dict(targets)
        example = calibrate[:1]
        self.gates = Gates(network, example)
        self.costs = Costs(network, self.gates, table, example)
        self.problem = Problem(self.costs, [*self.targets])
        self.decisions = self.costs.whole()
        self.reference = measuring.reference
        self.costs.correct(self.decisions, self.reference, -1)
        self.saliency = Saliency(network, self.costs, lambda batch: self.loss(batch)["loss"])
        self.losses_now = Losses()
        self.history: list[dict[str, Any]] = []
        self.fits: list[dict[str, Any]] = []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Task and distillation of the network as it is."""
        return self.task.losses(self.network(batch.inputs), batch)

    def run(self, batches: Iterator[Batch]) -> tuple[Network, list[dict[str, Any]], float]:
        """The cut network, records of the losses, and how far masked and cut outputs are apart in fp32."""
        steps = len(search_steps(self.config))
        every = steps // self.config.refreshes
        counted = itertools.count()
        for unit in self.network.every():
            unit.keep_inputs = len(unit.branches) > 1

        def losses(batch: Batch) -> dict[str, Tensor]:
            step = next(counted)
            if step % every == 0 and step // every < self.config.refreshes:
                part = (step // every + 1) / self.config.refreshes
                self.decide([batch, *itertools.islice(batches, self.config.score_batches - 1)], part, step)
            found = self.loss(batch)
            aside = teach(self.network)
            return {**found, "loss": found["loss"] + aside, "aside": aside}

        self.network.train()
        # The rate falls as if all steps were to come: what is left must still learn what was taken from it.
        schedule = training(self.config, self.config.steps)
        records = minimise([*self.network.parameters()], losses, itertools.islice(batches, steps), schedule)
        for unit in self.network.every():
            unit.keep_inputs, unit.inputs = False, None
        last = [*itertools.islice(batches, self.config.score_batches)]
        self.losses_now = self.saliency.update(last, self.decisions)
        self.fit(steps)
        made = cut(self.network, self.gates, self.calibrate[:1])
        return made, records, self._difference(made)

    def decide(self, batches: list[Batch], part: float, step: int) -> None:
        """One refresh; ``part`` of the way from the whole network's costs to the targets is asked for."""
        self.losses_now = self.saliency.update(batches, self.decisions)
        left = (1 - part) ** 2
        budgets = {n: t + left * max(0.0, self.reference[n] - t) for n, t in self.targets.items()}
        self.decisions = self.problem.step(self.losses_now, budgets, self.decisions)
        self.costs.apply(self.decisions, self.saliency.order)
        predicted = dict(zip(METRICS, self.costs.total(self.decisions).tolist(), strict=True))
        measured = self.measure(self.decisions, step)
        with torch.no_grad(), probing(self.network):
            loss = float(self.loss(batches[0])["loss"])
            judged = {"quality": self.judge(self.network)} if self.judge else {}
        self.history.append(
            {
                "step": step,
                **judged,
                **{f"multiplier {n}": v for n, v in self.problem.multipliers.items()},
                **{f"budget {n}": v for n, v in budgets.items()},
                **{f"predicted {n}": predicted[n] for n in self.targets},
                **{f"measured {n}": measured[n] for n in dict.fromkeys((*self.targets, "latency_ms", "mflops"))},
                "loss as decided": loss,
            }
        )
        if self.tell:
            self.tell(self.history[-1])

    def measure(self, decisions: Decisions, step: int, sessions: int = SESSIONS) -> dict[str, float]:
        """Measure decisions as they would ship, and correct the table by it."""
        self.costs.apply(decisions, self.saliency.order)
        made = cut(self.network, self.gates, self.calibrate[:1])
        measured = self.measuring.of(made, decisions.key(), self.targets, sessions)
        self.costs.correct(decisions, measured, step)
        return measured

    def fit(self, step: int) -> None:
        """Bisect one factor of all multipliers until the measured model meets the targets; then single moves."""
        tried: list[tuple[float, Decisions]] = []

        def excess(decisions: Decisions, how: str) -> float:
            measured = self.measure(decisions, step, FINAL_SESSIONS)
            worst = max(measured[n] / t for n, t in self.targets.items()) - 1
            tried.append((worst, decisions))
            self.fits.append({"how": how, "excess": worst, **measured})
            return worst

        tolerance = self.config.tolerance
        self.problem.pinned = frozenset(self.decisions.chosen)  # there is no refresh to see what another branch does
        start = self.problem.solve(self.losses_now, self.targets, self.decisions)
        worst = excess(start, "solved")
        bound = np.array([*self.targets.values()])
        low, high = (1.0, 8.0) if worst > 0 else (0.125, 1.0)
        for _ in range(BISECTIONS):
            if -tolerance <= worst <= tolerance / 4:
                break
            factor = (low * high) ** 0.5
            made = self.problem.least(self.losses_now, bound, start, factor)
            worst = excess(made, f"threshold {factor:.3g}")
            low, high = (factor, high) if worst > 0 else (low, factor)
        for _ in range(MOVES):
            worst, made = min(tried, key=_distance(tolerance))
            if -tolerance <= worst <= tolerance / 4:
                break
            known = {d.key() for _, d in tried}
            moves = [m for m in changes(self.costs, made, self.problem.pinned) if m.key() not in known]
            if not moves:
                break
            # The table says how far a move goes from what was measured where it starts.
            start_at = np.array([self.measure(made, step, FINAL_SESSIONS)[n] for n in self.targets])
            anchor = start_at / (bound * (1 + self.problem.violation(made, bound)))
            predicted = [float((anchor * (1 + self.problem.violation(m, bound)) - 1).max()) for m in moves]
            near = [i for i, p in enumerate(predicted) if -tolerance <= p <= 0]
            pick = (
                min(near, key=lambda i: self.losses_now.of(self.costs, moves[i]))
                if near
                else min(range(len(moves)), key=lambda i: abs(predicted[i] + tolerance / 2))
            )
            excess(moves[pick], "single move")
        self.decisions = min(tried, key=_distance(tolerance))[1]
        self.costs.apply(self.decisions, self.saliency.order)

    @torch.no_grad()
    def _difference(self, made: Network) -> float:
        """Greatest difference between the masked and the cut network, both in fp32."""
        masked = self.network.eval()
        with in_fp32(masked), in_fp32(made):
            return float((masked(self.calibrate) - made(self.calibrate)).abs().max())


def _distance(tolerance: float) -> Callable[[tuple[float, Decisions]], float]:
    """Just under the budget is best; over it counts double."""
    return lambda one: abs(one[0] + tolerance / 4) * (2 if one[0] > tolerance / 4 else 1)


def compress(
    network: Network,
    task: Task,
    batches: Iterator[Batch],
    measuring: Measuring,
    table: Table,
    targets: Mapping[str, float],
    config: CompressConfig,
    tell: Tell | None = None,
    judge: Judge | None = None,
) -> Result:
    """Compress ``network``, in place until it is cut, to absolute ``targets`` by the names of ``METRICS``."""
    torch.manual_seed(config.seed)
    started = time.process_time()
    search = Search(network, task, measuring, table, targets, measuring.calibrate, config, tell, judge)
    filled = time.process_time()
    made, records, difference = search.run(batches)
    searched = time.process_time()
    removed = describe_removed(search.costs, search.decisions)
    left = config.steps - len(search_steps(config))
    more = finetune(made, task, batches, training(config, left))
    model, measured = measuring.final(made)
    seconds = {"table": filled - started, "search": searched - filled, "fine-tuning": time.process_time() - searched}
    return Result(
        made,
        model,
        measured,
        search.reference,
        dict(targets),
        search.history,
        [*records, *({**r, "step": r["step"] + config.steps - left} for r in more)],
        removed,
        search.fits,
        difference,
        search.costs.seen,
        {k: round(v, 1) for k, v in seconds.items()},
    )


def search_steps(config: CompressConfig) -> range:
    """The steps in which decisions are made."""
    return range(max(config.refreshes, round(config.search * config.steps)))


def finetune(network: Network, task: Task, batches: Iterator[Batch], config: DistilConfig) -> list[dict[str, Any]]:
    """Train a cut network on task and distillation."""
    network.train()
    found = minimise([*network.parameters()], lambda batch: task.losses(network(batch.inputs), batch), batches, config)
    network.eval()
    return found


def training(config: CompressConfig, steps: int) -> DistilConfig:
    """The settings of ``student.minimise``."""
    return DistilConfig(
        steps=steps,
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        clip=config.clip,
        seed=config.seed,
        log_every=config.log_every,
    )


def describe_removed(costs: Costs, decisions: Decisions) -> list[dict[str, Any]]:
    """By unit: what was chosen, the widths left of those there were, bits, and the share of the predicted latency."""
    before = costs.whole()
    rows = []
    for unit in costs.network.every():
        option = decisions.chosen[unit.name]
        row: dict[str, Any] = {"unit": unit.name, "was": unit.options[0], "is": option, "widths": {}, "bits": {}}
        if option != NONE:
            branch = unit.branches[option]
            for gate in dict.fromkeys(costs.parts[unit.name, option].axes):
                if gate:
                    allowed = costs.allowed[gate]
                    row["widths"][gate] = [allowed[decisions.widths[gate]], allowed[-1]]
            bits = decisions.bits[unit.name, option]
            row["bits"] = {"+".join(s): 8 if on else 32 for s, on in zip(branch.sites, bits, strict=True)}
        row["latency_ms"] = [float(costs.factors @ costs.of(unit.name, d)[:2]) for d in (before, decisions)]
        rows.append(row)
    return rows
