from __future__ import annotations

from pathlib import Path

import torch

from tests.trainers.compression.nets import shaken
from tuwen.trainers.compression import designs
from tuwen.trainers.compression.costs import Costs
from tuwen.trainers.compression.export import export
from tuwen.trainers.compression.gates import Gates
from tuwen.trainers.compression.profiler import LocalDevice
from tuwen.trainers.compression.table import Table, interval, places


def test_blocks_are_measured_once_and_larger_ones_take_longer(tmp_path: Path) -> None:
    network = shaken(designs.recurrent(20, 5, 32, 1))
    x = torch.randint(20, (2, 64))
    device = LocalDevice()
    device.refer(export(network, x))
    table = Table(device, tmp_path / "blocks.json")
    costs = Costs(network, Gates(network, x[:1]), table, x[:1])
    part = costs.parts["layer0", "memory"]
    latencies = part.costs[(False,)][..., 0]
    assert part.axes == ["embed.width", "layer0.memory.hidden"]
    assert latencies[-1, -1] > latencies[0, 0] > 0
    assert all(low <= value <= high for value, low, high in map(interval, table.cells.values()))
    again = Table(device, tmp_path / "blocks.json")
    again.fill(network, x[:1], costs._grids)
    assert again.measured_now == 0
    assert again.cells == table.cells
    assert [p.shape for p in places(network, x)] == [(1, 64), (1, 64, 32), (1, 64, 32)]
