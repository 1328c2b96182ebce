"""Modules whose inside the dependency graph does not see: attention, recurrence, embeddings. They cut themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Conv, Dense, Norm


class Leaf(nn.Module):
    """A module that the dependency graph takes as one: it has an input width, an output width, and parts inside.

    While the graph is traced it answers with one product, so that nothing inside is taken for a coupling.
    """

    tracing = False
    inner_mask: Tensor | None = None
    width_in: int
    width_out: int
    inner: int

    def cut(self, role: str, keep: Tensor) -> None:
        """Keep the channels ``keep`` of ``in`` or ``out``, or the parts ``keep`` of ``inner``."""
        raise NotImplementedError

    def traced(self, x: Tensor) -> Tensor:
        """(n, l, width_out), tied to x where the widths inside depend on it."""
        return F.linear(x, torch.ones(self.width_out, self.width_in, requires_grad=True))


class SelfAttention(Leaf):
    """Multi-head attention over (n, l, width), of which single heads can be masked and cut."""

    def __init__(self, width: int, heads: int, head_width: int, causal: bool = False) -> None:
        super().__init__()
        self.width_in = self.width_out = width
        self.inner, self.head_width, self.causal = heads, head_width, causal
        wide = heads * head_width
        self.query, self.key, self.value = (Dense(width, wide) for _ in range(3))
        self.out = Dense(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.tracing:
            return self.traced(x)
        n, length, _ = x.shape
        q, k, v = (
            layer(x).view(n, length, self.inner, self.head_width).transpose(1, 2)  # (n, heads, l, head_width)
            for layer in (self.query, self.key, self.value)
        )
        weights = q @ k.transpose(2, 3) * self.head_width**-0.5
        if self.causal:
            later = torch.ones(length, length, dtype=torch.bool).triu(1)
            weights = weights.masked_fill(later, -1e9)
        seen = weights.softmax(-1) @ v
        if self.inner_mask is not None:
            seen = seen * self.inner_mask.view(-1, self.inner, 1, 1)
        found: Tensor = self.out(seen.transpose(1, 2).reshape(n, length, self.inner * self.head_width))
        return found

    def cut(self, role: str, keep: Tensor) -> None:
        if role == "inner":
            rows = (keep[:, None] * self.head_width + torch.arange(self.head_width)).flatten()
            for layer in (self.query, self.key, self.value):
                cut_rows(layer, rows)
            cut_columns(self.out, rows)
            self.inner = len(keep)
        elif role == "in":
            for layer in (self.query, self.key, self.value):
                cut_columns(layer, keep)
            self.width_in = len(keep)
        else:
            cut_rows(self.out, keep)
            self.width_out = len(keep)


class Recurrent(Leaf):
    """An LSTM over (n, l, width) and a projection back, of which single units can be masked and cut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width_in = self.width_out = width
        self.inner = hidden
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.out = Dense(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.tracing:
            return self.traced(x)
        mask = self.inner_mask
        if mask is not None and mask.ndim == 1:  # a unit that is gone is not heard by the others either
            own = {"weight_hh_l0": self.lstm.get_parameter("weight_hh_l0") * mask}
            states = torch.func.functional_call(self.lstm, own, (x,))[0] * mask
        else:
            states = self.lstm(x)[0]
            states = states if mask is None else states * mask[:, None]
        found: Tensor = self.out(states)
        return found

    def cut(self, role: str, keep: Tensor) -> None:
        lstm, hidden = self.lstm, self.inner
        if role == "out":
            cut_rows(self.out, keep)
            self.width_out = len(keep)
            return
        gates = {k: v.data for k, v in lstm.named_parameters()}
        if role == "in":
            gates["weight_ih_l0"] = gates["weight_ih_l0"][:, keep]
            self.width_in = len(keep)
        else:
            rows = (torch.arange(4)[:, None] * hidden + keep).flatten()
            gates = {k: v[rows] for k, v in gates.items()}
            gates["weight_hh_l0"] = gates["weight_hh_l0"][:, keep]
            cut_columns(self.out, keep)
            self.inner = len(keep)
        self.lstm = nn.LSTM(self.width_in, self.inner, batch_first=True)
        for name, parameter in self.lstm.named_parameters():
            parameter.data = gates[name].clone()


class PatchEmbedding(Leaf):
    """(n, 3, h, w) to (n, 1 + patches, width): a convolution, the class token where there is one, positions, a norm."""

    def __init__(self, width: int, patch: int, length: int, class_token: bool, norm: bool, channels: int = 3) -> None:
        super().__init__()
        self.width_in, self.width_out, self.inner = channels, width, 0
        self.conv = Conv(channels, width, patch, patch, bias=False)
        self.token = nn.Parameter(torch.zeros(width)) if class_token else None
        self.positions = nn.Parameter(torch.randn(length, width) * width**-0.5)
        self.norm = Norm(width) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.tracing:
            return self.positions.sum() * torch.ones(len(x), len(self.positions), self.width_out)
        rows = self.conv(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            rows = torch.cat([self.token.expand(x.shape[0], 1, -1), rows], 1)
        rows = rows + self.positions
        found: Tensor = rows if self.norm is None else self.norm(rows)
        return found

    def cut(self, role: str, keep: Tensor) -> None:
        assert role == "out"
        cut_rows(self.conv, keep)
        if self.token is not None:
            self.token = nn.Parameter(self.token.data[keep].clone())
        self.positions = nn.Parameter(self.positions.data[:, keep].clone())
        if self.norm is not None:
            cut_norm(self.norm, keep)
        self.width_out = len(keep)


class TokenEmbedding(Leaf):
    """Ids (n, l) to (n, l, width): a table and, where ``length`` is given, positions."""

    def __init__(self, width: int, rows: int, length: int = 0) -> None:
        super().__init__()
        self.width_in, self.width_out, self.inner = rows, width, 0
        self.table = nn.Embedding(rows, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.01) if length else None

    def forward(self, ids: Tensor) -> Tensor:
        if self.tracing:
            return self.table.weight.sum() * torch.ones(*ids.shape, self.width_out)
        x: Tensor = self.table(ids)
        return x if self.positions is None else x + self.positions[: ids.shape[1]]

    def cut(self, role: str, keep: Tensor) -> None:
        assert role == "out"
        self.table.weight = nn.Parameter(self.table.weight.data[:, keep].clone())
        self.table.embedding_dim = self.width_out = len(keep)
        if self.positions is not None:
            self.positions = nn.Parameter(self.positions.data[:, keep].clone())


LEAVES: tuple[type[Leaf], ...] = (SelfAttention, Recurrent, PatchEmbedding, TokenEmbedding)


def cut_rows(layer: Conv | Dense, keep: Tensor) -> None:
    """Keep the outputs ``keep``."""
    layer.weight = nn.Parameter(layer.weight.data[keep].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.data[keep].clone())
    setattr(layer, "out_channels" if isinstance(layer, nn.Conv2d) else "out_features", len(keep))


def cut_columns(layer: Dense, keep: Tensor) -> None:
    """Keep the inputs ``keep``."""
    layer.weight = nn.Parameter(layer.weight.data[:, keep].clone())
    layer.in_features = len(keep)


def cut_norm(norm: Norm, keep: Tensor) -> None:
    """Keep the channels ``keep``."""
    norm.weight, norm.bias = (nn.Parameter(p.data[keep].clone()) for p in (norm.weight, norm.bias))
    norm.normalized_shape = (len(keep),)
