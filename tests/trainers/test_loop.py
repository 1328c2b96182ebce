from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tuwen.pipeline.errors import InputError, UsageError
from tuwen.trainers import checkpoints, towers
from tuwen.trainers.loop import Loop
from tuwen.trainers.losses import Keys, contrastive, threshold_loss, two_views
from tuwen.trainers.momentum import Momentum
from tuwen.trainers.retrieval import RetrievalConfig, caption_group, fit
from tuwen.trainers.stream import Pairs
from tuwen.trainers.towers import ModelConfig

SMALL = ModelConfig(
    vocabulary="captions",
    embed_dim=16,
    vision_cfg={"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    text_cfg={"layers": 1, "width": 16, "heads": 2, "context_length": 12},
)
CAPTIONS = ["一只红色的猫", "一只红色的猫", "两辆蓝色的车", "黑狗", "白鸟", "绿树", "三朵花"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Any]:
    folder = tmp_path_factory.mktemp("towers")
    towers.prepare(SMALL, folder, CAPTIONS)
    model, tokenizer, _ = towers.build(folder, seed=0)
    return model, tokenizer


def batch(seed: int = 0) -> Pairs:
    images = torch.randint(256, (7, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Pairs(images, CAPTIONS, [["一只蓝色的猫"], [], ["黑狗"], ["白狗"], [], [], []])


def gradients(parts: tuple[torch.nn.Module, Any], **fields: Any) -> dict[str, torch.Tensor]:
    loop = Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(**fields))
    loop.backward(batch(1))
    loop.done = 1
    loop.backward(batch())
    scale = loop.scaler.get_scale()
    return {n: p.grad / scale for n, p in loop.stream.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tasks": ("mlm", "simclr")},
        {"momentum": True, "queue": 16, "momentum_ramp": 0.0},
        {"checkpointing": True},
        {"precision": "bf16"},
    ],
    ids=["plain", "tasks", "momentum", "checkpointing", "bf16"],
)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    parts: tuple[torch.nn.Module, Any], fields: dict[str, Any]
) -> None:
    whole, some = gradients(parts, **fields), gradients(parts, micro_batch=3, **fields)
    assert whole.keys() == some.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    near = 0.05 if fields.get("precision") else 1e-5
    assert max(float((whole[n] - some[n]).abs().max()) for n in whole) < near * largest
    assert all(float(g.abs().max()) > 0 for n, g in whole.items() if "bias" not in n)


def test_half_precision_with_a_scaled_loss_moves_the_weights(parts: tuple[torch.nn.Module, Any]) -> None:
    loop = Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(precision="fp16", steps=9, warmup=1))
    before = [p.detach().clone() for p in loop.stream.parameters()]
    for _ in range(9):  # the first scale is too large, and is halved until it fits
        loop.step(batch())
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.stream.parameters(), strict=True))
    assert all(bool(p.isfinite().all()) for p in loop.stream.parameters())


def test_a_negative_that_is_a_caption_of_the_batch_does_not_count() -> None:
    rows = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    groups, scale = torch.tensor([1, 2, 3]), torch.tensor(5.0)
    plain = contrastive(rows, rows, scale, groups)
    for wrong in (3, -1):  # a caption of the batch; padding
        keys = Keys(rows, rows, groups, rows[:1], torch.tensor([wrong]))
        assert torch.allclose(contrastive(rows, rows, scale, groups, keys), plain)
    keys = Keys(rows, rows, groups, rows[:1], torch.tensor([9]))
    assert contrastive(rows, rows, scale, groups, keys) > plain


def test_losses_of_two_halves_average_to_that_of_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    image, text, other = (F.normalize(torch.randn(6, 4, generator=draw), dim=-1) for _ in range(3))
    groups = torch.tensor([1, 2, 1, 3, 4, 1])
    keys, scale = Keys(image, text, groups), torch.tensor(5.0)
    halves = [slice(0, 3), slice(3, 6)]
    whole = contrastive(image, text, scale, groups)
    assert torch.allclose(
        torch.stack([contrastive(image[h], text[h], scale, groups[h], keys) for h in halves]).mean(), whole
    )
    pulled = [threshold_loss(image[h], text[h], groups[h], 0.3, 10.0, keys) for h in halves]
    assert torch.allclose(torch.stack(pulled).mean(), threshold_loss(image, text, groups, 0.3, 10.0))
    views = [two_views(image[h], other[h], image, other, h.start, 0.1) for h in halves]
    assert torch.allclose(torch.stack(views).mean(), two_views(image, other, image, other, 0, 0.1))


def test_two_views_is_nt_xent() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = (F.normalize(torch.randn(3, 4, generator=draw), dim=-1) for _ in range(2))
    rows = torch.cat([first, second])
    exponential = (rows @ rows.T / 0.1).exp()
    each = [-torch.log(exponential[i, (i + 3) % 6] / (exponential[i].sum() - exponential[i, i])) for i in range(6)]
    assert torch.allclose(two_views(first, second, first, second, 0, 0.1), torch.stack(each).mean(), atol=1e-5)


def test_momentum_targets_and_queue(parts: tuple[torch.nn.Module, Any]) -> None:
    slow = Momentum(parts[0], dimension=2, decay=0.9, size=3)
    image, text = torch.eye(2), torch.eye(2)
    groups = torch.tensor([5, 6])
    keys, everyone = slow.keys(image, text, groups, torch.tensor(2.0), alpha=0.5)
    assert keys.soft_to_text is not None
    assert torch.allclose(keys.soft_to_text, (2 * torch.eye(2)).softmax(1))
    logits = 2 * torch.eye(2)
    target = 0.5 * torch.eye(2) + 0.5 * logits.softmax(1)
    assert torch.allclose(
        contrastive(image, text, torch.tensor(2.0), groups, keys), -(target * logits.log_softmax(1)).sum(1).mean()
    )
    slow.push(keys, len(everyone))
    again, _ = slow.keys(image, text, torch.tensor([5, 7]), torch.tensor(2.0), alpha=0.0)
    assert again.groups.tolist() == [5, 7, 5, 6]  # caption 5 is known from the queue, and right there too
    slow.push(again, 2)
    assert slow.group_queue.tolist() == [7, 6, 5]  # over the oldest
    before = next(slow.model.parameters()).clone()
    moved = copy.deepcopy(parts[0])
    with torch.no_grad():
        next(moved.parameters()).add_(1.0)
    slow.follow(moved)
    assert torch.allclose(next(slow.model.parameters()), before + 0.1, atol=1e-6)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path, parts: tuple[torch.nn.Module, Any]) -> None:
    config = RetrievalConfig(
        steps=6, warmup=2, log_every=1, checkpoint_every=2, momentum=True, queue=16, tasks=("mlm",)
    )

    def run(name: str, batches: list[Pairs], resume: Path | None = None, stop: bool = False) -> list[float]:
        model = copy.deepcopy(parts[0])
        log = tmp_path / f"{name}.jsonl"
        try:
            fit(model, parts[1], batches, config, log, folder=tmp_path / name, resume=resume)
        except InputError as ended:
            assert stop and "ended after 5 steps" in str(ended)
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
        return [json.loads(line)["loss"] for line in log.read_text().splitlines()]

    everything = [batch(i) for i in range(6)]
    whole = run("whole", everything)
    run("cut", everything[:5], stop=True)
    last = checkpoints.latest(tmp_path / "cut")
    assert last is not None and last.name == "step-00000004"
    assert run("cut", everything[4:], resume=last) == whole
    one, other = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "cut"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert [p.name for p in sorted((tmp_path / "cut").iterdir())] == ["step-00000004", "step-00000006"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, parts: tuple[torch.nn.Module, Any]) -> None:
    config = RetrievalConfig(steps=1, warmup=1)
    fit(copy.deepcopy(parts[0]), parts[1], itertools.repeat(batch()), config, folder=tmp_path / "c")
    last = checkpoints.latest(tmp_path / "c")
    assert last is not None
    with pytest.raises(InputError, match="does not fit this model"):
        checkpoints.load(Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(tasks=("simclr",))), last)
    (last / "state.json").unlink()
    with pytest.raises(InputError, match="no complete checkpoint"):
        checkpoints.describe(last)


def test_tasks_ask_for_what_they_need(tmp_path: Path, parts: tuple[torch.nn.Module, Any]) -> None:
    with pytest.raises(UsageError, match="expected some of mlm, simclr"):
        Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(tasks=("colour",)))
    with pytest.raises(UsageError, match="expected one of fp32, bf16, fp16"):
        Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(precision="half"))
    causal = ModelConfig(
        vocabulary="captions",
        embed_dim=16,
        vision_cfg=SMALL.vision_cfg,
        text_cfg={**SMALL.text_cfg, "no_causal_mask": False, "pool_type": "eos"},
    )
    towers.prepare(causal, tmp_path, CAPTIONS)
    model, tokenizer, _ = towers.build(tmp_path, 0)
    with pytest.raises(UsageError, match="sees both directions"):
        Loop(model, tokenizer, RetrievalConfig(tasks=("mlm",)))


def test_masked_words_are_a_share_of_the_words_only(parts: tuple[torch.nn.Module, Any]) -> None:
    loop = Loop(copy.deepcopy(parts[0]), parts[1], RetrievalConfig(tasks=("mlm",), mlm_share=0.5))
    head: Any = loop.stream.heads["mlm"]
    tokens = parts[1](CAPTIONS * 50)
    made = head.inputs(torch.empty(0), tokens, torch.Generator().manual_seed(0))
    word = ~torch.isin(tokens, head.special)
    chosen = made["mlm_wanted"] >= 0
    assert not (chosen & ~word).any()
    assert torch.equal(made["mlm_seen"][~chosen], tokens[~chosen])
    assert 0.45 < float(chosen.sum() / word.sum()) < 0.55
    masked = (made["mlm_seen"] == head.mask).sum() / chosen.sum()
    assert 0.75 < float(masked) < 0.85


def test_groups_follow_the_folded_caption() -> None:
    assert caption_group("红色 的车") == caption_group("红色的车")
