from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch

from tests.trainers.compression.nets import Counted, families, shaken
from tuwen.trainers.compression.costs import METRICS, Costs
from tuwen.trainers.compression.gates import Gates, cut
from tuwen.trainers.compression.network import NONE
from tuwen.trainers.compression.solve import Losses, Problem, changes
from tuwen.trainers.compression.table import work

UNITS, X = families()["cnn"]


@cache
def counted(int8: float) -> Costs:
    network = shaken(UNITS)
    return Costs(network, Gates(network, X[:1]), Counted(int8), X[:1])


def made(int8: float = 0.5) -> tuple[Costs, Losses]:
    costs = copy.copy(counted(int8))
    network = costs.network
    losses = Losses(
        widths={g: np.linspace(1, 0, len(a)) ** 2 for g, a in costs.allowed.items()},
        options={u.name: {o: float(i) for i, o in enumerate(u.options)} for u in network.every()},
        bits={(u.name, k): (0.01,) * len(b.sites) for u in network.every() for k, b in u.branches.items()},
    )
    return costs, losses


def test_costs_are_those_of_the_cut_network() -> None:
    costs, _ = made()
    decisions = costs.whole()
    decisions.widths = {g: len(a) // 2 for g, a in costs.allowed.items()}
    decisions.chosen["stage1.block0"], decisions.chosen["stage0.block1"] = "separable", NONE
    costs.apply(decisions, {n: torch.arange(g.size) for n, g in costs.gates.gates.items()})
    network = cut(costs.network, costs.gates, X[:1])
    counted = dict(zip(METRICS, costs.total(decisions), strict=True))
    assert counted["mflops"] == pytest.approx(2e-6 * work(network, X[:1])[0], rel=0.02)
    assert counted["size_mb"] == pytest.approx(4e-6 * sum(p.numel() for p in network.parameters()), rel=0.02)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.25])
def test_budgets_hold_for_the_hard_decisions(share: float) -> None:
    costs, losses = made()
    whole = costs.whole()
    latency = costs.total(whole)[0]
    problem = Problem(costs, ["latency_ms"])
    found = problem.solve(losses, {"latency_ms": share * latency}, whole)
    assert 0.85 * share * latency < costs.total(found)[0] <= share * latency
    assert problem.multipliers["latency_ms"] > 0


def test_tighter_budgets_cost_more_loss_and_slack_ones_nothing() -> None:
    costs, losses = made()
    whole = costs.whole()
    latency, _, size, *_ = costs.total(whole)
    found = [
        losses.of(costs, Problem(costs, ["latency_ms"]).solve(losses, {"latency_ms": s * latency}, whole))
        for s in (0.2, 0.4, 0.7)
    ]
    assert found[0] > found[1] > found[2] >= 0
    problem = Problem(costs, ["latency_ms", "size_mb"])
    problem.solve(losses, {"latency_ms": 0.3 * latency, "size_mb": 2 * size}, whole)
    assert problem.multipliers["size_mb"] < 1e-3 * problem.multipliers["latency_ms"]


def test_int8_is_chosen_where_the_device_is_quicker_with_it() -> None:
    for int8, wanted in ((0.5, True), (1.5, False)):
        costs, losses = made(int8)
        whole = costs.whole()
        budget = 0.6 * costs.total(whole)[0]
        found = Problem(costs, ["latency_ms"]).solve(losses, {"latency_ms": budget}, whole)
        bits = [b for u, c in found.chosen.items() if c != NONE for b in found.bits[u, c]]
        assert any(bits) is wanted


def test_a_block_that_does_nothing_goes_and_another_is_replaced() -> None:
    costs, losses = made()
    losses.options["stage0.block0"] = {"plain": 0.0, "separable": 5.0, NONE: 0.0}
    losses.options["stage1.block0"] = {"plain": 0.0, "separable": 0.001, NONE: 5.0}
    budget = {"latency_ms": 0.6 * costs.total(costs.whole())[0]}
    found = Problem(costs, ["latency_ms"]).solve(losses, budget, costs.whole())
    assert (found.chosen["stage0.block0"], found.chosen["stage1.block0"]) == (NONE, "separable")
    one = Problem(costs, ["latency_ms"]).step(losses, budget, costs.whole())
    changed = [u for u, c in one.chosen.items() if c != costs.whole().chosen[u]]
    assert len(changed) <= 1
    pinned = {*one.chosen}
    assert all(m.chosen == one.chosen for m in changes(costs, one, pinned))


def test_whole_models_correct_the_table() -> None:
    costs, _ = made()
    costs.seen, costs._latencies = [], []
    whole, int8 = costs.whole(), costs.whole()
    int8.bits = {key: (True,) * len(b) for key, b in int8.bits.items()}
    raw = costs.total(whole)[0], costs.total(int8)[0]
    for step in range(4):  # fp32 is twice, int8 three times what the table says
        costs.correct(whole, {"latency_ms": 2 * raw[0]}, step)
        costs.correct(int8, {"latency_ms": 3 * raw[1]}, step)
    assert costs.total(whole)[0] == pytest.approx(2 * raw[0], rel=0.05)
    assert costs.total(int8)[0] == pytest.approx(3 * raw[1], rel=0.05)
    assert costs.seen[0]["predicted"] == pytest.approx(raw[0])
