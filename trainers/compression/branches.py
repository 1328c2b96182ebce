"""What a unit of a network may compute: convolutions, attention, perceptrons, recurrent layers, each of any width.

A branch is made from its sizes and says where they live (``ends``), so that gates find them; which of its layers are in
int8 is decided site by site (``sites``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv, Dense, Norm
from .leaves import Leaf, PatchEmbedding, Recurrent, SelfAttention, TokenEmbedding

End = tuple[nn.Module, str]
Sizes = Mapping[str, int]
"""``in``, ``out``, ``hidden``: channels, heads for the hidden size of attention."""


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's CLIP has this in place of gelu."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu, "relu": F.relu}


class Branch(nn.Module):
    """One way to compute a unit. ``sites`` names the layers whose bits are decided together."""

    sites: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init__(self, sizes: Sizes, **fixed: Any) -> None:
        super().__init__()
        self.fixed = fixed
        self.make(dict(sizes), **fixed)

    def make(self, *given: Any, **fixed: Any) -> None:
        """Build the layers of the sizes given."""
        raise NotImplementedError

    def ends(self) -> dict[str, End]:
        """Where the sizes ``in``, ``out`` and ``hidden`` live: (module, in | out | inner)."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """The present sizes."""
        return {name: size_of(*end) for name, end in self.ends().items()}

    def layers(self, site: int) -> list[Any]:
        """The layers of a site."""
        return [self.get_submodule(name) for name in self.sites[site]]

    def bits(self) -> tuple[bool, ...]:
        """Which sites are in int8."""
        return tuple(bool(self.layers(i)[0].int8) for i in range(len(self.sites)))

    def set_bits(self, bits: Sequence[bool]) -> None:
        """Set them."""
        for i, on in enumerate(bits):
            for layer in self.layers(i):
                layer.int8 = on


def size_of(module: nn.Module, role: str) -> int:
    """The present size of an end."""
    if isinstance(module, Leaf):
        return {"in": module.width_in, "out": module.width_out, "inner": module.inner}[role]
    if isinstance(module, nn.Conv2d):
        return module.in_channels if role == "in" else module.out_channels
    assert isinstance(module, nn.Linear)
    return module.in_features if role == "in" else module.out_features


def _conv(a: int, b: int, kernel: int, norm: bool, stride: int = 1, groups: int = 1) -> Conv:
    return Conv(a, b, kernel, stride, kernel // 2, groups=groups, bias=not norm)


def _batch_norm(width: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(width) if norm else nn.Identity()


class Convolution(Branch):
    """A convolution between two widths: stems, and where the resolution falls."""

    sites = (("conv",),)

    def make(self, sizes: Any, kernel: int = 3, stride: int = 1, norm: bool = True) -> None:
        self.conv = _conv(sizes["in"], sizes["out"], kernel, norm, stride)
        self.norm = _batch_norm(sizes["out"], norm)

    def ends(self) -> dict[str, End]:
        return {"in": (self.conv, "in"), "out": (self.conv, "out")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(x))
        return found


class Plain(Branch):
    """Two convolutions, as in ResNet's basic block."""

    sites = (("first",), ("second",))

    def make(self, sizes: Any, norm: bool = True) -> None:
        width, hidden = sizes["in"], sizes["hidden"]
        self.first, self.second = _conv(width, hidden, 3, norm), _conv(hidden, width, 3, norm)
        self.first_norm, self.second_norm = _batch_norm(hidden, norm), _batch_norm(width, norm)

    def ends(self) -> dict[str, End]:
        return {"in": (self.first, "in"), "out": (self.second, "out"), "hidden": (self.first, "out")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return found


class Separable(Branch):
    """A depthwise convolution between two of one pixel, as in MobileNetV2's block."""

    sites = (("expand", "depthwise"), ("project",))

    def make(self, sizes: Any, norm: bool = True) -> None:
        width, hidden = sizes["in"], sizes["hidden"]
        self.expand, self.project = _conv(width, hidden, 1, norm), _conv(hidden, width, 1, norm)
        self.depthwise = _conv(hidden, hidden, 3, norm, groups=hidden)
        self.expand_norm, self.depthwise_norm = _batch_norm(hidden, norm), _batch_norm(hidden, norm)
        self.project_norm = _batch_norm(width, norm)

    def ends(self) -> dict[str, End]:
        return {"in": (self.expand, "in"), "out": (self.project, "out"), "hidden": (self.expand, "out")}

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.expand_norm(self.expand(x)))
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        found: Tensor = self.project_norm(self.project(x))
        return found


class Attention(Branch):
    """A norm and multi-head attention; the hidden size counts heads."""

    sites = (("attend.query", "attend.key", "attend.value"), ("attend.out",))

    def make(self, sizes: Any, head_width: int = 64, causal: bool = False) -> None:
        self.norm = Norm(sizes["in"])
        self.attend = SelfAttention(sizes["in"], sizes["hidden"], head_width, causal)

    def ends(self) -> dict[str, End]:
        return {"in": (self.attend, "in"), "out": (self.attend, "out"), "hidden": (self.attend, "inner")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attend(self.norm(x))
        return found


class Mean(Branch):
    """Attention that looks at all tokens alike: one product for all of them together, in place of queries and keys."""

    sites = (("value",), ("out",))

    def make(self, sizes: Any) -> None:
        self.norm = Norm(sizes["in"])
        self.value, self.out = Dense(sizes["in"], sizes["hidden"]), Dense(sizes["hidden"], sizes["in"])

    def ends(self) -> dict[str, End]:
        return {"in": (self.value, "in"), "out": (self.out, "out"), "hidden": (self.value, "out")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.value(self.norm(x).mean(1, keepdim=True)))
        return found


class Perceptron(Branch):
    """A norm and two linear layers."""

    sites = (("up",), ("down",))

    def make(self, sizes: Any, act: str = "gelu") -> None:
        self.norm = Norm(sizes["in"])
        self.up, self.down = Dense(sizes["in"], sizes["hidden"]), Dense(sizes["hidden"], sizes["in"])
        self.act = ACTIVATIONS[act]

    def ends(self) -> dict[str, End]:
        return {"in": (self.up, "in"), "out": (self.down, "out"), "hidden": (self.up, "out")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.act(self.up(self.norm(x))))
        return found


class Memory(Branch):
    """A norm, an LSTM and a projection. The LSTM stays in fp32: onnxruntime has integer forms with scales that follow
    each call only."""

    sites = (("cell.out",),)

    def make(self, sizes: Any) -> None:
        self.norm = Norm(sizes["in"])
        self.cell = Recurrent(sizes["in"], sizes["hidden"])

    def ends(self) -> dict[str, End]:
        return {"in": (self.cell, "in"), "out": (self.cell, "out"), "hidden": (self.cell, "inner")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.cell(self.norm(x))
        return found


class Patches(Branch):
    """Pictures to tokens."""

    sites = (("embed.conv",),)

    def make(self, sizes: Any, patch: int, length: int, class_token: bool = True, norm: bool = True) -> None:
        self.embed = PatchEmbedding(sizes["out"], patch, length, class_token, norm)

    def ends(self) -> dict[str, End]:
        return {"out": (self.embed, "out")}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.embed(x)
        return found


class Tokens(Branch):
    """Ids to tokens."""

    def make(self, sizes: Any, rows: int, length: int = 0) -> None:
        self.embed = TokenEmbedding(sizes["out"], rows, length)

    def ends(self) -> dict[str, End]:
        return {"out": (self.embed, "out")}

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.embed(ids)
        return found


class TokensHead(Branch):
    """A norm, one token or the mean of them, a projection."""

    sites = (("project",),)

    def make(self, sizes: Any, pool: str = "first", bias: bool = False) -> None:
        self.norm, self.pool = Norm(sizes["in"]), pool
        self.project = Dense(sizes["in"], sizes["out"], bias=bias)

    def ends(self) -> dict[str, End]:
        return {"in": (self.project, "in"), "out": (self.project, "out")}

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        x = self.norm(x)
        if self.pool == "first":
            x = x[:, 0]
        elif self.pool == "last":
            x = x[:, -1]
        elif self.pool == "highest":  # the token of the highest id ends the caption in CLIP's vocabulary
            x = x[torch.arange(x.shape[0]), given.argmax(-1)]
        else:
            x = (x[:, 1:] if self.pool == "patches" else x).mean(1)
        found: Tensor = self.project(x)
        return found


class PoolHead(Branch):
    """The mean over all places and a linear layer."""

    sites = (("project",),)

    def make(self, sizes: Any) -> None:
        self.project = Dense(sizes["in"], sizes["out"])

    def ends(self) -> dict[str, End]:
        return {"in": (self.project, "in"), "out": (self.project, "out")}

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        found: Tensor = self.project(x.mean((2, 3)))
        return found


class Upscale(Branch):
    """A convolution to ``factor`` squared values a pixel and colour, added to the picture scaled up without it."""

    sites = (("conv",),)

    def make(self, sizes: Any, factor: int = 2) -> None:
        self.conv, self.factor = _conv(sizes["in"], sizes["out"], 3, norm=False), factor

    def ends(self) -> dict[str, End]:
        return {"in": (self.conv, "in"), "out": (self.conv, "out")}

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.conv(x), self.factor) if self.factor > 1 else self.conv(x)
        if self.factor > 1:
            given = F.interpolate(given, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return x + given


KINDS: dict[str, type[Branch]] = {
    "convolution": Convolution,
    "plain": Plain,
    "separable": Separable,
    "attention": Attention,
    "mean": Mean,
    "perceptron": Perceptron,
    "memory": Memory,
    "patches": Patches,
    "tokens": Tokens,
    "tokens_head": TokensHead,
    "pool_head": PoolHead,
    "upscale": Upscale,
}
HEADS = ("tokens_head", "pool_head", "upscale")
"""End a network: their output width is fixed, and they see what the network was given."""
