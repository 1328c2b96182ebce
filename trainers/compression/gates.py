"""Gates over the widths of a network, one for each set of layers that must stay equally wide.

Which layers those are is traced by a dependency graph (torch-pruning's DepGraph, Fang et al. 2023, arXiv 2301.12900): a
skip connection ties all that is added to it, upstream and down, so that what is cut stays aligned without a layer
between. A gate's mask silences its channels where they are read; ``cut`` removes them, and both give the same outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import RecipeError, RunError
from .layers import Norm
from .leaves import LEAVES, Leaf, PatchEmbedding
from .network import Network

GRANULE = 8
"""Channels that come and go together: onnxruntime's convolutions work on blocks of 8 with AVX2."""


class Gate:
    """One width. ``mask`` is (size,) of zeros and ones, or (n, size), a row for each input, while gradients are
    taken."""

    def __init__(self, name: str, size: int, granule: int) -> None:
        self.name, self.size, self.granule = name, size, granule
        self.mask = torch.ones(size)
        self.readers: list[nn.Module] = []
        self.norms: list[Norm] = []
        self.leaf: Leaf | None = None
        self.root: nn.Module | None = None

    @property
    def idle(self) -> bool:
        """Whether it changes nothing now."""
        return self.mask.ndim == 1 and bool((self.mask == 1).all())

    @property
    def kept(self) -> Tensor:
        """Numbers of the open channels."""
        return self.mask.nonzero()[:, 0]

    def allowed(self) -> list[int]:
        """Widths that may be chosen, rising."""
        return [*range(self.granule, self.size, self.granule), self.size]


def granule_of(size: int) -> int:
    """Channels that come and go together where there are ``size``: few that are narrow already go by less."""
    if size >= 4 * GRANULE:
        return GRANULE
    return GRANULE // 2 if size >= 2 * GRANULE else max(1, size // 8)


class Gates:
    """All gates of a network, with their hooks in it."""

    def __init__(self, network: Network, example: Tensor) -> None:
        self.network = network
        self._ends: dict[tuple[int, str], Gate] = {}
        found = [*self._traced(example), *self._inner()]
        self._rename()
        self.gates = {gate.name: gate for gate in found}
        for gate in self.gates.values():
            for module in gate.readers:
                module.register_forward_pre_hook(_silence(gate))

    def at(self, module: nn.Module, role: str) -> Gate | None:
        """The gate of an end of a branch; None where the width is fixed."""
        return self._ends.get((id(module), role))

    def set(self, masks: Mapping[str, Tensor]) -> None:
        """Set masks by name."""
        for name, mask in masks.items():
            self.gates[name].mask = mask
        self._apply()

    @contextmanager
    def for_each(self, n: int) -> Iterator[dict[str, Tensor]]:
        """Masks with a row for each of ``n`` inputs, of which gradients are taken."""
        held = {name: gate.mask for name, gate in self.gates.items()}
        leaves = {name: mask.expand(n, -1).clone().requires_grad_() for name, mask in held.items()}
        self.set(leaves)
        try:
            yield leaves
        finally:
            self.set(held)

    def _apply(self) -> None:
        for gate in self.gates.values():
            mask = None if gate.idle else gate.mask
            for norm in gate.norms:
                norm.mask = mask
            if gate.leaf is not None:
                gate.leaf.inner_mask = mask

    def _traced(self, example: Tensor) -> Iterator[Gate]:
        graph = _graph(self.network, example)
        last = self.network.every()[-1]
        fixed = [next(iter(last.branches.values())).ends()["out"][0]]
        names = {id(m): n for n, m in self.network.named_modules()}
        kinds = (nn.Conv2d, nn.Linear, Leaf)
        for group in graph.get_all_groups(ignored_layers=fixed, root_module_types=kinds):
            root, _ = group[0]
            size = len(group[0].idxs)
            gate = Gate(names[id(root.target.module)], size, granule_of(size))
            gate.root = root.target.module
            for dep, indices in group:
                module = dep.target.module
                if not isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm | nn.BatchNorm2d | Leaf):
                    continue
                if list(indices) != list(range(size)):
                    raise RecipeError(
                        f"{names[id(module)]}: channels are reordered on the way; no gate can follow them"
                    )
                self._join(gate, module, graph.is_out_channel_pruning_fn(dep.handler))
            if gate.readers:
                yield gate

    def _rename(self) -> None:
        """By the first unit that has the width, so that people know it."""
        named: set[int] = set()
        for unit in self.network.every():
            for kind, branch in unit.branches.items():
                for role, end in branch.ends().items():
                    gate = self.at(*end)
                    if gate is not None and id(gate) not in named:
                        named.add(id(gate))
                        gate.name = f"{unit.name}.{kind}.{role}" if role == "hidden" else f"{unit.name}.width"

    def _join(self, gate: Gate, module: nn.Module, outwards: bool) -> None:
        if isinstance(module, Norm):
            gate.norms.append(module)
        elif isinstance(module, nn.BatchNorm2d):
            return
        elif outwards:
            self._ends[id(module), "out"] = gate
            if isinstance(module, PatchEmbedding) and module.norm is not None:
                gate.norms.append(module.norm)
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                self._ends[id(module), "in"] = gate
        else:
            self._ends[id(module), "in"] = gate
            if module not in gate.readers:
                gate.readers.append(module)

    def _inner(self) -> Iterator[Gate]:
        """Heads of attention and units of recurrent layers, which no other layer shares."""
        for name, module in self.network.named_modules():
            if isinstance(module, Leaf) and module.inner > 1:
                gate = Gate(f"{name}.inner", module.inner, granule_of(module.inner))
                gate.leaf = module
                self._ends[id(module), "inner"] = gate
                yield gate


def cut(network: Network, gates: Gates, example: Tensor) -> Network:
    """A copy without the closed channels, the branches that were not chosen and the units that chose none."""
    names = {id(m): n for n, m in network.named_modules()}
    made = copy.deepcopy(network)
    for module in made.modules():  # the copy has no gates
        module._forward_pre_hooks.clear()
        if isinstance(module, Norm):
            module.mask = None
        if isinstance(module, Leaf):
            module.inner_mask = None
    graph = _graph(made, example)
    for gate in gates.gates.values():
        closed = (gate.mask == 0).nonzero()[:, 0].tolist()
        if not closed:
            continue
        if gate.leaf is not None:
            leaf = made.get_submodule(names[id(gate.leaf)])
            assert isinstance(leaf, Leaf)
            leaf.cut("inner", gate.kept)
            continue
        assert gate.root is not None
        root = made.get_submodule(names[id(gate.root)])
        function = graph.get_pruner_of_module(root).prune_out_channels
        group = graph.get_pruning_group(root, function, closed)
        if not graph.check_pruning_group(group):
            raise RunError(f"{gate.name}: nothing would be left of it")
        group.prune()
    made.drop_unused()
    return made.eval()


def _graph(network: Network, example: Tensor) -> Any:
    """The dependency graph of all branches together."""
    import torch_pruning
    from torch_pruning.pruner.function import BasePruningFunc

    class Cutter(BasePruningFunc):  # type: ignore[misc]
        """Leaves cut themselves."""

        def prune_out_channels(self, layer: Leaf, idxs: Iterable[int]) -> Leaf:
            layer.cut("out", _others(layer.width_out, idxs))
            return layer

        def prune_in_channels(self, layer: Leaf, idxs: Iterable[int]) -> Leaf:
            layer.cut("in", _others(layer.width_in, idxs))
            return layer

        def get_out_channels(self, layer: Leaf) -> int:
            return layer.width_out

        def get_in_channels(self, layer: Leaf) -> int:
            return layer.width_in

    leaves = [m for m in network.modules() if isinstance(m, Leaf)]
    with _everything(network), torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(
            network,
            example_inputs=(example,),
            customized_pruners={kind: Cutter() for kind in LEAVES},
            ignored_params=[p for leaf in leaves for p in leaf.parameters()],
            verbose=False,
        )


def _others(size: int, gone: Iterable[int]) -> Tensor:
    left = torch.ones(size, dtype=torch.bool)
    left[list(gone)] = False
    return left.nonzero()[:, 0]


@contextmanager
def _everything(network: Network) -> Iterator[None]:
    """All branches of all units are computed, in fp32, by leaves that answer with one product."""
    units = network.every()
    leaves = [m for m in network.modules() if isinstance(m, Leaf)]
    layers = [m for m in network.modules() if getattr(m, "int8", False)]
    training = network.training
    network.eval()
    for unit in units:
        unit.every = True
    for leaf in leaves:
        leaf.tracing = True
    for layer in layers:
        layer.int8 = False  # type: ignore[assignment]
    try:
        yield
    finally:
        network.train(training)
        for unit in units:
            unit.every = False
        for leaf in leaves:
            leaf.tracing = False
        for layer in layers:
            layer.int8 = True  # type: ignore[assignment]


def _silence(gate: Gate) -> Any:
    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if gate.idle:
            return None
        x, mask = given[0], gate.mask
        if x.ndim == 4:
            mask = mask.reshape(*mask.shape, 1, 1)
        elif x.ndim == 3 and mask.ndim == 2:
            mask = mask[:, None]
        return (x * mask, *given[1:])

    return hook
