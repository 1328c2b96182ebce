"""A tower of an open_clip model as a network of units: a vision transformer, or a text transformer.

The conversion is held against the tower itself on random inputs; a tower with parts that are not known here is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import RecipeError
from .designs import Units, unit
from .leaves import SelfAttention
from .network import Network

TOLERANCE = 1e-3
"""Greatest difference of an output, as a share of the outputs' deviation, that another order of summation may make."""
VISION_POOLS = {"tok": "first", "avg": "patches"}
TEXT_POOLS = {"first": "first", "last": "last", "argmax": "highest"}


def vision(tower: Any) -> Network:
    """The image tower (``model.visual``)."""
    if not hasattr(tower, "conv1") or not hasattr(tower, "transformer"):
        raise RecipeError(
            f"an image tower of the kind {type(tower).__name__} cannot be compressed; a vision transformer can"
        )
    if tower.attn_pool is not None or tower.final_ln_after_pool or tower.pool_type not in VISION_POOLS:
        raise RecipeError("an image tower with attentional pooling, or a norm after pooling, cannot be compressed")
    width, length = tower.conv1.out_channels, len(tower.positional_embedding)
    plain = isinstance(tower.ln_pre, nn.Identity)
    fixed = {"patch": tower.conv1.kernel_size[0], "length": length, "class_token": True, "norm": not plain}
    head = {"pool": VISION_POOLS[tower.pool_type], "bias": False}
    units = [
        unit("patches", {"patches": ({"out": width}, fixed)}),
        *_blocks(tower.transformer, width, causal=False),
        unit("head", {"tokens_head": ({"in": width, "out": tower.proj.shape[1]}, head)}),
    ]
    network = Network(units)
    embed: Any = network.every()[0].branches["patches"]
    with torch.no_grad():
        embed.embed.conv.weight.copy_(tower.conv1.weight)
        embed.embed.token.copy_(tower.class_embedding)
        embed.embed.positions.copy_(tower.positional_embedding)
        if not plain:
            embed.embed.norm.load_state_dict(tower.ln_pre.state_dict())
    _fill(network, tower.transformer, tower.ln_post, tower.proj)
    side = tower.image_size if isinstance(tower.image_size, tuple | list) else (tower.image_size,) * 2
    return _same(network, tower, torch.randn(4, 3, *side, generator=torch.Generator().manual_seed(0)))


def text(tower: Any) -> Network:
    """The text tower (``model.text``, or the model itself in CLIP's first form)."""
    known = hasattr(tower, "token_embedding") and hasattr(tower, "text_projection")
    pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", ""))
    odd = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    if not known or odd or pool not in TEXT_POOLS or tower.text_projection is None:
        raise RecipeError(
            f"a text tower of the kind {type(tower).__name__} (pooled by {pool!r}) cannot be compressed; "
            "open_clip's text transformers can that are pooled at the first, last or highest token"
        )
    rows, width = tower.token_embedding.weight.shape
    projection = tower.text_projection
    linear = isinstance(projection, nn.Linear)
    out = projection.out_features if linear else projection.shape[1]
    bias = linear and projection.bias is not None
    length = len(tower.positional_embedding)
    causal = tower.attn_mask is not None
    units = [
        unit("tokens", {"tokens": ({"out": width}, {"rows": rows, "length": length})}),
        *_blocks(tower.transformer, width, causal),
        unit("head", {"tokens_head": ({"in": width, "out": out}, {"pool": TEXT_POOLS[pool], "bias": bias})}),
    ]
    network = Network(units)
    embed: Any = network.every()[0].branches["tokens"]
    with torch.no_grad():
        embed.embed.table.weight.copy_(tower.token_embedding.weight)
        embed.embed.positions.copy_(tower.positional_embedding)
    _fill(network, tower.transformer, tower.ln_final, projection)
    ids = torch.randint(1, rows, (4, length), generator=torch.Generator().manual_seed(0))
    return _same(network, tower if hasattr(tower, "pool_type") else tower.encode_text, ids)


def _blocks(transformer: Any, width: int, causal: bool) -> Units:
    units: Units = []
    for i, block in enumerate(transformer.resblocks):
        if type(block).__name__ != "ResidualAttentionBlock" or not isinstance(block.ls_1, nn.Identity):
            raise RecipeError("only open_clip's plain residual blocks, without layer scale, can be compressed")
        heads = block.attn.num_heads
        sizes = {"in": width, "out": width}
        fixed = {"head_width": width // heads, "causal": causal}
        branches: dict[str, Any] = {"attention": ({**sizes, "hidden": heads}, fixed)}
        if not causal:  # a token may not see the mean of those after it
            branches["mean"] = ({**sizes, "hidden": width}, {})
        act = {"GELU": "gelu", "QuickGELU": "quick_gelu"}.get(type(block.mlp.gelu).__name__)
        if act is None:
            raise RecipeError(f"the activation {type(block.mlp.gelu).__name__} is not known here")
        hidden = block.mlp.c_fc.out_features
        units.append(unit(f"layer{i}.mix", branches, residual=True))
        units.append(unit(f"layer{i}.mlp", {"perceptron": ({**sizes, "hidden": hidden}, {"act": act})}, residual=True))
    return units


@torch.no_grad()
def _fill(network: Network, transformer: Any, norm: nn.Module, projection: Any) -> None:
    units = network.every()
    for block, mix, mlp in zip(transformer.resblocks, units[1:-1:2], units[2:-1:2], strict=True):
        attention: Any = mix.branches["attention"]
        attention.norm.load_state_dict(block.ln_1.state_dict())
        attend: SelfAttention = attention.attend
        layers = (attend.query, attend.key, attend.value)
        weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        attend.out.load_state_dict(block.attn.out_proj.state_dict(), strict=False)
        if "mean" in mix.branches:  # attention that looks everywhere alike begins from the same values and outputs
            mean: Any = mix.branches["mean"]
            mean.norm.load_state_dict(block.ln_1.state_dict())
            mean.value.load_state_dict(attend.value.state_dict(), strict=False)
            mean.out.load_state_dict(attend.out.state_dict(), strict=False)
        perceptron: Any = mlp.branches["perceptron"]
        perceptron.norm.load_state_dict(block.ln_2.state_dict())
        perceptron.up.load_state_dict(block.mlp.c_fc.state_dict(), strict=False)
        perceptron.down.load_state_dict(block.mlp.c_proj.state_dict(), strict=False)
    head: Any = units[-1].branches["tokens_head"]
    head.norm.load_state_dict(norm.state_dict())
    head.project.weight.copy_(projection.weight if isinstance(projection, nn.Linear) else projection.T)
    if head.project.bias is not None:
        head.project.bias.copy_(projection.bias)


@torch.no_grad()
def _same(network: Network, tower: Any, example: Tensor) -> Network:
    network.eval()
    ours, theirs = network(example), tower(example)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    apart = float((ours - theirs).abs().max() / theirs.std().clamp(min=1e-9))
    if not apart <= TOLERANCE:
        raise RecipeError(
            f"the converted tower differs from the model's by {apart:.2g} of its deviation; it has parts "
            "that are not known here"
        )
    return network
