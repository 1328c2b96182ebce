"""Whole models, measured as they would ship."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .costs import METRICS
from .export import export
from .network import Network
from .profiler import SESSIONS, Device, Measured
from .table import work
from .targets import timed

FINAL_SESSIONS = 20


class Measuring:
    """Measures networks on a device; the first one, uncompressed, is the reference that all others take turns with."""

    def __init__(self, device: Device, whole: Network, calibrate: Tensor, output: str = "features") -> None:
        self.device, self.calibrate, self.output = device, calibrate, output
        self._known: dict[tuple[str, int], dict[str, float]] = {}
        model = export(whole, calibrate, output)
        device.refer(model)
        self.reference_bytes = len(model)
        self.reference = self._read(whole, model, METRICS, FINAL_SESSIONS)[0]

    def of(self, network: Network, key: str, metrics: Iterable[str], sessions: int = SESSIONS) -> dict[str, float]:
        """``METRICS`` of a cut network: latency always, but in haste where no target hangs on it; memory and energy
        where they are asked for."""
        sessions = sessions if timed(metrics) else 1
        if (key, sessions) not in self._known:
            model = export(network, self.calibrate, self.output)
            self._known[key, sessions], _ = self._read(network, model, metrics, sessions)
        return self._known[key, sessions]

    def final(self, network: Network) -> tuple[bytes, dict[str, Any]]:
        """The model to ship and all its metrics, latency over more sessions and with its interval."""
        model = export(network, self.calibrate, self.output)
        found, latency = self._read(network, model, METRICS, FINAL_SESSIONS)
        return model, {**found, "latency_interval": [latency.low, latency.high]}

    def _read(
        self, network: Network, model: bytes, metrics: Iterable[str], sessions: int
    ) -> tuple[dict[str, float], Measured]:
        latency = self.device.latency(model, sessions)
        macs, _ = work(network, self.calibrate[:1])
        found = {"latency_ms": latency.value, "mflops": 2e-6 * macs, "size_mb": len(model) / 1e6}
        wanted = set(metrics)
        if "memory_mb" in wanted:
            found["memory_mb"] = self.device.memory(model)
        if "energy_mj" in wanted:
            energy = self.device.energy(model)
            if energy is not None:
                found["energy_mj"] = energy.value
        return found, latency
