from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuwen.pipeline.errors import InputError, UsageError
from tuwen.trainers import lora


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv = nn.Conv1d(8, 8, 1)
        self.out = nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        found: Tensor = self.out(x.mean(1))
        return found


def tuned(config: lora.LoraConfig) -> tuple[nn.Module, nn.Module, Tensor]:
    """(the model before, the model with trained adapters, inputs)."""
    torch.manual_seed(0)
    before = Net().eval()
    model = copy.deepcopy(before)
    ids = torch.randint(10, (6, 5))
    parameters = lora.attach(model, config)
    assert torch.equal(model(ids), before(ids))
    optimiser = torch.optim.Adam(parameters, 0.05)
    for _ in range(5):
        loss = model(ids).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return before, model, ids


def test_adapters_learn_and_switch_off_to_the_bit() -> None:
    before, model, ids = tuned(lora.LoraConfig(rank=2))
    assert not torch.allclose(model(ids), before(ids), atol=1e-3)
    with lora.switched_off(model), torch.no_grad():
        assert torch.equal(model(ids), before(ids))
    frozen = [p for n, p in model.named_parameters() if "lora_" not in n]
    assert not any(p.requires_grad for p in frozen)


def test_merged_model_is_the_tuned_one_in_the_old_layout() -> None:
    before, model, ids = tuned(lora.LoraConfig(rank=2))
    wanted = model(ids)
    lora.merge(model)
    torch.testing.assert_close(model(ids), wanted)
    assert model.state_dict().keys() == before.state_dict().keys()
    assert all(p.requires_grad for p in model.parameters())
    fresh = Net().eval()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(ids), wanted)


def test_targets_choose_layers_by_the_end_of_their_names() -> None:
    model = Net()
    lora.attach(model, lora.LoraConfig(rank=2, targets=("out",)))
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"out"}
    with pytest.raises(UsageError, match="no layer"):
        lora.attach(Net(), lora.LoraConfig(targets=("nothing",)))


def test_adapters_are_saved_alone(tmp_path: Path) -> None:
    config = lora.LoraConfig(rank=2)
    before, model, ids = tuned(config)
    path = lora.save(model, tmp_path)
    other = copy.deepcopy(before)
    lora.attach(other, config, seed=5)
    lora.load(other, tmp_path)
    assert torch.equal(other(ids), model(ids))
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="holds no"):
        lora.load(other, tmp_path / "elsewhere")


def test_kept_choices_are_least_where_nothing_changed() -> None:
    before = torch.randn(5, 7)
    same = lora.kept_choices(before, before)
    probabilities = (before / 2).softmax(-1)
    torch.testing.assert_close(same, 4 * -(probabilities * probabilities.log()).sum(-1).mean())
    assert lora.kept_choices(before + torch.randn(5, 7), before) > same
    torch.testing.assert_close(lora.kept_choices(before + 3, before), same)  # a constant changes no choice
    one = lora.kept_choices(before, torch.full((5, 7), -1e4).scatter(1, torch.zeros(5, 1, dtype=torch.long), 0.0), 1.0)
    torch.testing.assert_close(one, F.cross_entropy(before, torch.zeros(5, dtype=torch.long)))


def test_a_batch_is_shared_with_the_old() -> None:
    assert lora.shared(64, 0.5) == (32, 32)
    assert lora.shared(64, 0.3, 4) == (44, 20)
    with pytest.raises(UsageError, match="share"):
        lora.shared(64, 1.0)
