from __future__ import annotations

import pytest

from tuwen.trainers.compression import profiler


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not waited for: what these tests hold latencies against is coarse."""
    monkeypatch.setattr(profiler, "PAUSE", 0.0)
