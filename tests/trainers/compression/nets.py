"""Small networks of every family, and a table that counts where the real one measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuwen.trainers.compression import designs
from tuwen.trainers.compression.designs import Units, unit
from tuwen.trainers.compression.network import Network
from tuwen.trainers.compression.profiler import SESSIONS, Measured, digest
from tuwen.trainers.compression.table import Bits, Place, Table, _told, alone, work


def transformer(width: int = 32, layers: int = 2, heads: int = 4, length: int = 5) -> Units:
    units = [unit("patches", {"patches": ({"out": width}, {"patch": 8, "length": length})})]
    for i in range(layers):
        sizes = {"in": width, "out": width}
        mix: dict[str, Any] = {"attention": ({**sizes, "hidden": heads}, {"head_width": width // heads})}
        mix["mean"] = ({**sizes, "hidden": width}, {})
        units.append(unit(f"layer{i}.mix", mix, residual=True))
        units.append(unit(f"layer{i}.mlp", {"perceptron": ({**sizes, "hidden": 2 * width}, {})}, residual=True))
    return [*units, unit("head", {"tokens_head": ({"in": width, "out": 12}, {})})]


def families() -> dict[str, tuple[Units, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return {
        "cnn": (designs.residual_cnn(7, (16, 32), blocks=2), torch.randn(3, 3, 32, 32, generator=draw)),
        "transformer": (transformer(), torch.randn(3, 3, 16, 16, generator=draw)),
        "super_resolution": (designs.super_resolution(16, 2), torch.randn(3, 3, 12, 12, generator=draw)),
        "recurrent": (designs.recurrent(20, 7, 16), torch.randint(0, 20, (3, 6), generator=draw)),
    }


def shaken(units: Units) -> Network:
    """A network whose norms and statistics are not at their first values."""
    torch.manual_seed(0)
    network = Network(units).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer += 0.1 * torch.rand_like(buffer)
    return network


class Counted(Table):
    """Latency from operations: int8 layers take ``int8`` of the time of others."""

    def __init__(self, int8: float = 0.5) -> None:
        super().__init__(Stub())
        self.int8 = int8
        self.counts: dict[str, tuple[float, float, float]] = {}

    def cell(self, place: Place, kind: str, sizes: Sequence[int], bits: Bits) -> NDArray[np.float64]:
        key = digest(_told(place, kind, sizes, ()))
        if key not in self.counts:
            made, given = alone(place, kind, sizes, (False,) * len(bits))
            macs, live = work(made, given[:1])
            self.counts[key] = macs / len(made), live, sum(p.numel() for p in made.parameters()) / len(made)
        macs, live, count = self.counts[key]
        share = 1 - (1 - self.int8) * float(np.mean(bits)) if bits else 1.0
        return np.array([1e-5 * macs * share, 2e-6 * macs, 4e-6 * count * share, 4e-6 * live])


class Stub:
    """A device of which every model takes as many milliseconds as it has kilobytes."""

    name = "stub"

    def latency(self, model: bytes, sessions: int = SESSIONS) -> Measured:
        ms = len(model) / 1e3 if len(model) > 200 else 0.0
        return Measured(ms, 0.9 * ms, 1.1 * ms)

    def refer(self, model: bytes) -> Measured:
        return self.latency(model)

    def memory(self, model: bytes) -> float:
        return len(model) / 1e6

    def energy(self, model: bytes) -> Measured | None:
        return None
