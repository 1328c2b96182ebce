from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainers.compression.nets import families, shaken
from tuwen.pipeline.errors import InputError
from tuwen.trainers.compression import network as networks
from tuwen.trainers.compression.gates import Gates, cut
from tuwen.trainers.compression.network import NONE

FAMILIES = families()


def closed(gates: Gates, seed: int = 1) -> None:
    draw = torch.Generator().manual_seed(seed)
    masks = {}
    for name, gate in gates.gates.items():
        mask = (torch.rand(gate.size, generator=draw) > 0.4).float()
        mask[0] = 1
        masks[name] = mask
    gates.set(masks)


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_and_cut_networks_agree(family: str, tmp_path: Path) -> None:
    units, x = FAMILIES[family]
    network = shaken(units)
    gates = Gates(network, x[:1])
    closed(gates)
    others = [u for u in network.every() if len(u.branches) > 1]
    if others:
        others[-1].chosen = others[-1].options[1]
    next(u for u in network.every() if u.residual).chosen = NONE
    with torch.no_grad():
        masked = network(x)
        made = cut(network, gates, x[:1])
        assert (masked - made(x)).abs().max() < 1e-4 * masked.abs().max()
        assert sum(p.numel() for p in made.parameters()) < 0.7 * sum(p.numel() for p in network.parameters())
        assert torch.equal(network(x), masked), "cutting a copy leaves the network as it was"
        networks.save(made, tmp_path, {"task": {"kind": "restore"}})
        again, told = networks.load(tmp_path)
        assert torch.equal(again(x), made(x))
        assert told["task"] == {"kind": "restore"}


def test_a_skip_connection_has_one_gate() -> None:
    units, x = FAMILIES["cnn"]
    network = shaken(units)
    gates = Gates(network, x[:1])
    assert {"stem.width", "down1.width", "stage0.block0.plain.hidden", "stage1.block1.separable.hidden"} <= {
        *gates.gates
    }
    stage = [u for u in network.every() if u.name.startswith("stage0") or u.name == "stem"]
    ends = [branch.ends()["out"] for unit in stage for branch in unit.branches.values()]
    assert {gates.at(*end) for end in ends} == {gates.gates["stem.width"]}
    assert gates.at(*next(iter(network.every()[-1].branches.values())).ends()["out"]) is None
    gates.set({"stem.width": torch.cat([torch.ones(8), torch.zeros(8)])})
    made = cut(network, gates, x[:1])
    widths = [u.branches["plain"].sizes() for u in made.every() if u.name.startswith("stage0")]
    assert [w["in"] for w in widths] == [w["out"] for w in widths] == [8, 8]


def test_gradients_have_a_row_for_each_input() -> None:
    units, x = FAMILIES["transformer"]
    network = shaken(units)
    gates = Gates(network, x[:1])
    with gates.for_each(len(x)) as masks:
        network(x)[0].sum().backward()  # the first input alone
    gradient = masks["patches.width"].grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0
    assert gradient[1:].abs().sum() == 0
    assert all(gate.idle for gate in gates.gates.values())


def test_a_folder_that_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no network"):
        networks.load(tmp_path)
    made = shaken(FAMILIES["recurrent"][0])
    networks.save(made, tmp_path, {})
    text = (tmp_path / networks.DESCRIPTION).read_text()
    (tmp_path / networks.DESCRIPTION).write_text(text.replace('"hidden": 16', '"hidden": 8'))
    with pytest.raises(InputError, match="does not fit"):
        networks.load(tmp_path)
    (tmp_path / networks.DESCRIPTION).write_text(text.replace('"memory"', '"memmory"'))
    with pytest.raises(InputError, match="Did you mean 'memory'"):
        networks.load(tmp_path)
