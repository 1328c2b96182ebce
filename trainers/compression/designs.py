"""Ready networks to train and compress: a residual CNN, a super-resolution net, a recurrent net. Lists of units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Units = list[dict[str, Any]]
Branches = dict[str, tuple[dict[str, int], dict[str, Any]]]
"""{kind: (sizes, fixed)}"""


def residual_cnn(outputs: int, widths: Sequence[int] = (32, 64, 128), blocks: int = 2, channels: int = 3) -> Units:
    """A stem, stages of residual blocks at half the resolution each, a mean over places. Blocks may become
    separable."""
    units: Units = [_convolution("stem", channels, widths[0], 2)]
    for stage, width in enumerate(widths):
        if stage:
            units.append(_convolution(f"down{stage}", widths[stage - 1], width, 2))
        units += [_block(f"stage{stage}.block{i}", width, width, True) for i in range(blocks)]
    return [*units, unit("head", {"pool_head": ({"in": widths[-1], "out": outputs}, {})})]


def super_resolution(width: int = 32, blocks: int = 6, factor: int = 2, channels: int = 3) -> Units:
    """Residual blocks without norms at the low resolution, then one step up (after EDSR, arXiv 1707.02921)."""
    first = unit("stem", {"convolution": ({"in": channels, "out": width}, {"kernel": 3, "norm": False})})
    body = [_block(f"block{i}", width, width, False) for i in range(blocks)]
    last = {"upscale": ({"in": width, "out": channels * factor**2}, {"factor": factor})}
    return [first, *body, unit("tail", last)]


def recurrent(rows: int, outputs: int, width: int = 64, layers: int = 2) -> Units:
    """Ids through an embedding and residual LSTM layers; the mean over places says what it is."""
    units = [unit("embed", {"tokens": ({"out": width}, {"rows": rows})})]
    for i in range(layers):
        made: Branches = {"memory": ({"in": width, "out": width, "hidden": width}, {})}
        units.append(unit(f"layer{i}", made, residual=True))
    return [*units, unit("head", {"tokens_head": ({"in": width, "out": outputs}, {"pool": "mean", "bias": True})})]


def unit(name: str, branches: Branches, residual: bool = False, act: bool = False) -> dict[str, Any]:
    """The description of a unit from {kind: (sizes, fixed)}; the first branch is chosen."""
    told = {kind: {"sizes": sizes, "fixed": fixed} for kind, (sizes, fixed) in branches.items()}
    return {"name": name, "branches": told, "chosen": next(iter(told)), "residual": residual, "act": act}


def _convolution(name: str, a: int, b: int, stride: int) -> dict[str, Any]:
    return unit(name, {"convolution": ({"in": a, "out": b}, {"kernel": 3, "stride": stride})}, act=True)


def _block(name: str, width: int, hidden: int, norm: bool) -> dict[str, Any]:
    sizes = {"in": width, "out": width, "hidden": hidden}
    branches = {kind: (sizes, {"norm": norm}) for kind in ("plain", "separable")}
    return unit(name, branches, residual=True, act=norm)
