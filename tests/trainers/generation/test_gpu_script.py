"""The GPU script, on a CPU: that it runs and that its figures hang together."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import pytest

from tuwen.trainers import distributed

SCRIPT = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "gpu_generation.py"))


def test_figures_of_the_gpu_script() -> None:
    given = argparse.Namespace(
        model="tiny", batch=2, micro_batch=1, checkpointing=True, precision="fp32", steps=10, rounds=1
    )  # fmt: skip
    told = SCRIPT["training"](given, distributed.ALONE)
    assert told["images per second"] == pytest.approx(2000 / told["ms per step"])
    rows = SCRIPT["sampling"](given, distributed.ALONE.device)
    assert [r["passes"] for r in rows] == [20, 10, 20, 8, 4, 2, 8, 4, 2]
    assert rows[2]["parameters"] < rows[0]["parameters"] < rows[1]["parameters"]
