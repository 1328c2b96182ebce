from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.conftest import Finished

SOURCE = Path(__file__).parents[2] / "benchmarks" / "planted_faults.py"


def test_every_planted_fault_ends_as_it_should(finished: Finished) -> None:
    spec = importlib.util.spec_from_file_location("planted_faults", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = {r["fault"]: r for r in module.table(finished.run, finished.sample)}
    assert sum(r["pairs"] for r in rows.values()) == finished.told["counts"]["inputs"]
    for fault, row in rows.items():
        # Names are found by evidence, mismatches by a model: neither is perfect, all else is.
        least = 0.85 if fault in ("personal_name", "mismatched") else 0.95
        assert row["recall"] >= least, row
        if row["precision"] is not None:
            assert row["precision"] >= 0.9, row
