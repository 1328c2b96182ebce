from __future__ import annotations

import onnx
import pytest
import torch

from tests.trainers.compression.nets import families, shaken
from tuwen.trainers.compression.export import export, outputs, weight_bytes
from tuwen.trainers.compression.network import Network

FAMILIES = families()


def ready(family: str) -> tuple[Network, torch.Tensor]:
    units, x = FAMILIES[family]
    network = shaken(units)
    network.drop_unused()
    return network, x


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exported_model_computes_the_same(family: str) -> None:
    network, x = ready(family)
    with torch.no_grad():
        assert (outputs(export(network, x), x) - network(x)).abs().max() < 1e-3


def test_only_the_chosen_layers_become_integers() -> None:
    network, x = ready("cnn")
    block = next(u for u in network.every() if u.name == "stage0.block1")
    whole = weight_bytes(network)
    block.branches["plain"].set_bits((False, True))
    with torch.no_grad():
        network.train()(x)
        network.eval()
        model = export(network, x)
        rounded = network(x)
    second = block.branches["plain"].get_submodule("second")
    assert whole - weight_bytes(network) == 3 * second.weight.numel()  # type: ignore[operator]
    graph = onnx.load_from_string(model).graph
    integers = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    convolutions = {n.name: n.input[1] in integers for n in graph.node if n.op_type == "Conv"}
    assert [name for name, on in convolutions.items() if on] == ["/units.2/plain/second/Conv"]
    assert len(convolutions) == 10
    scale = rounded.std()
    assert (outputs(model, x) - rounded).abs().max() < 0.1 * scale
    block.branches["plain"].set_bits((False, False))
    assert (network(x) - rounded).abs().max() > 0


def test_integers_round_and_let_gradients_through() -> None:
    network, x = ready("recurrent")
    head = network.every()[-1].branches["tokens_head"]
    head.set_bits((True,))
    network.train()(x).sum().backward()
    project = head.get_submodule("project")
    assert project.weight.grad is not None
    assert project.weight.grad.abs().sum() > 0  # type: ignore[operator]
    assert project.high > project.low  # type: ignore[operator]
