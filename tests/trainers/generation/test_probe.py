from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tuwen.pipeline.errors import InputError
from tuwen.trainers.generation import evaluate, metrics, probe


def squares(n: int, seed: int) -> tuple[torch.Tensor, list[dict[str, str]]]:
    draw = np.random.default_rng(seed)
    images, told = torch.zeros(n, 3, 8, 8, dtype=torch.uint8), []
    for i in range(n):
        colour, left = int(draw.integers(3)), bool(draw.integers(2))
        images[i, colour, :, : 4 if left else 8] = 255
        told.append({"colour": "rgb"[colour], "wide": str(not left), "same": "x"})
    return images, told


def test_probe_learns_what_differs_and_nothing_else(tmp_path: Path) -> None:
    made = probe.trained(*squares(200, 0), steps=60)
    assert set(made.classes) == {"colour", "wide"}
    images, told = squares(60, 1)
    hits = made.right(images.float() / 255, told)
    assert hits["all"].mean() > 0.95
    made.save(tmp_path)
    again = probe.Probe.load(tmp_path).look(images.float() / 255)
    assert np.array_equal(again[0], made.look(images.float() / 255)[0])
    wrong = made.right(images.flip(1).float() / 255, told)
    assert wrong["colour"].mean() < 0.5 < wrong["wide"].mean()


def test_probe_needs_attributes(tmp_path: Path) -> None:
    images, _ = squares(8, 0)
    with pytest.raises(InputError, match="attributes that differ"):
        probe.trained(images, [{"same": "x"}] * 8)
    with pytest.raises(InputError, match="holds no probe"):
        probe.Probe.load(tmp_path)


def test_frechet_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet(a, a + np.array([3, 0, 4])) == pytest.approx(25)
    scaled = a * [2, 1, 1]  # (2 - 1)² times the variance of the first axis, and the mean's own move
    moved = (scaled.mean(0) - a.mean(0))[0] ** 2
    found = metrics.frechet(a, (scaled - scaled.mean(0)) + scaled.mean(0))
    assert found == pytest.approx(a[:, 0].var() + moved, rel=0.05)
    told = metrics.frechet_estimate(a[:200], rng.normal(size=(400, 3)) + 1)
    assert told.low < told.value < told.high


def test_diversity_counts_different_rows() -> None:
    rows = np.eye(4)[np.arange(40) % 4]
    assert metrics.diversity(rows).value == pytest.approx(4)
    assert metrics.diversity(np.ones((40, 3))).value == pytest.approx(1)


def test_chance_is_what_luck_gives() -> None:
    told = evaluate.chance([{"a": i % 2, "b": i % 4} for i in range(40)], ["a", "b"])
    assert told == {"a": 0.5, "b": 0.25, "all": 0.125}
