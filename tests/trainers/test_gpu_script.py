"""The GPU script, on a CPU: that it runs and that its figures hang together."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import pytest

from tuwen.trainers import distributed

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "gpu_retrieval.py"))


def test_figures_of_the_gpu_script(tmp_path: Path) -> None:
    given = argparse.Namespace(
        model="tiny", batch=4, limit=4, micro_batch=0, checkpointing=False, precision="fp32", steps=2, warm=1,
        workers=0, shards=None, samples=8, peak=0.5,
    )  # fmt: skip
    told = SCRIPT["report"](given, distributed.ALONE, tmp_path)
    assert told["batch per rank"] == 4
    # 3 layers of 12 w² in the image tower over 17 tokens, 2 in the text tower over 36; three times for both passes.
    least = 3 * 2 * 12 * 96**2 * (3 * 17 + 2 * 36) / 1e9
    assert least < told["GFLOP per pair"] < 1.5 * least
    for arm in told["arms"].values():
        seconds = 4 / arm["images per second"]
        assert arm["ms per step"] == pytest.approx(1000 * seconds)
        assert arm["model FLOP use"] == pytest.approx(told["GFLOP per pair"] * 4 / seconds / 500)
    assert told["arms"]["synthetic"]["waiting for data"] < told["arms"]["shards"]["waiting for data"]
