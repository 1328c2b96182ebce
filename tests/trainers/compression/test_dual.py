from __future__ import annotations

from typing import Any

import pytest
import torch

from tuwen.pipeline.errors import RecipeError
from tuwen.trainers.compression import dual
from tuwen.trainers.edge.make import build

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 4, "layers": 2},
}


def changed(**more: Any) -> Any:
    torch.manual_seed(1)
    return build({**CONFIG, **{k: {**CONFIG[k], **v} for k, v in more.items()}}).eval()


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_a_vision_tower_stays_the_same(pool: str) -> None:
    model = changed(vision_cfg={"pool_type": pool})
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert (dual.vision(model.visual)(x) - model.encode_image(x)).abs().max() < 1e-5


@pytest.mark.parametrize("reads", [{"no_causal_mask": True, "pool_type": "first"}, {"pool_type": "argmax"}])
def test_a_text_tower_stays_the_same(reads: dict[str, Any]) -> None:
    model = changed(text_cfg=reads)
    ids = torch.randint(1, 20, (3, 8))
    with torch.no_grad():
        network = dual.text(model.text)
        assert (network(ids) - model.encode_text(ids)).abs().max() < 1e-5
    assert ("mean" in network.every()[1].branches) is ("no_causal_mask" in reads)


def test_the_mean_branch_is_attention_that_looks_everywhere_alike() -> None:
    network = dual.vision(changed().visual)
    unit = network.every()[1]
    attention: Any = unit.branches["attention"]
    for layer in (attention.attend.query, attention.attend.key):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        assert (attention(x) - unit.branches["mean"](x)).abs().max() < 1e-5


def test_towers_with_other_parts_are_refused() -> None:
    with pytest.raises(RecipeError, match="attentional pooling"):
        dual.vision(changed(vision_cfg={"attentional_pool": True, "attn_pooler_heads": 4}).visual)
    with pytest.raises(RecipeError, match="layer scale"):
        dual.vision(changed(vision_cfg={"ls_init_value": 0.1}).visual)
    with pytest.raises(RecipeError, match="cannot be compressed"):
        dual.vision(torch.nn.Linear(2, 2))
    with pytest.raises(RecipeError, match="cannot be compressed"):
        dual.text(changed(text_cfg={"embed_cls": True}).text)
