from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from tuwen.scoring.scorer import load_scorer
from tuwen.trainers.embedded import batches, scenes, train
from tuwen.trainers.losses import captioning, contrastive, multi_positive, threshold_loss
from tuwen.trainers.retrieval import RetrievalConfig, caption_group


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_distinct_captions_give_the_loss_of_clip() -> None:
    image, text, scale = unit(6, 8, 0), unit(6, 8, 1), torch.tensor(10.0)
    logits = scale * image @ text.T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert torch.allclose(contrastive(image, text, scale, labels), expected)


def test_images_of_one_caption_are_all_right_answers() -> None:
    target = multi_positive(torch.tensor([1, 2, 1]))
    assert target.tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]
    # The least possible loss with a shared caption is its entropy, not zero.
    image = F.normalize(torch.eye(3)[[0, 1, 0]], dim=-1)
    loss = contrastive(image, image, torch.tensor(200.0), torch.tensor([1, 2, 1]))
    assert math.isclose(float(loss), 2 / 3 * math.log(2), rel_tol=1e-4)


def test_the_threshold_loss_balances_both_sides_at_the_threshold() -> None:
    at = 0.3
    text = F.normalize(torch.eye(4), dim=-1)
    angle = torch.tensor(at)
    image = at * text + torch.sqrt(1 - angle**2) * F.normalize(torch.roll(torch.eye(4), 1, 0) * 0, dim=-1)
    loss = threshold_loss(F.normalize(text, dim=-1), text, torch.arange(4), at, 10.0)
    assert float(loss) < 0.05
    assert float(threshold_loss(image, text, torch.arange(4), at, 10.0)) > float(loss)
    assert math.isclose(
        float(threshold_loss(image * 0 + at, torch.ones(4, 4) / 4, torch.arange(4), at, 10.0)),
        math.log(2),
        rel_tol=1e-5,
    )


def test_captioning_ignores_padding() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 0], [3, 0, 0]])
    kept = torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]])
    assert torch.allclose(captioning(logits, labels, pad=0), F.cross_entropy(kept, torch.tensor([1, 2, 3])))


def test_captions_equal_after_folding_share_a_group() -> None:
    assert caption_group("红色的车 ABC") == caption_group("红色的车ａｂｃ")
    assert caption_group("红色的车") != caption_group("蓝色的车")


def test_batches_are_the_same_for_the_same_seed() -> None:
    one, two = next(batches(8, 4, seed=5)), next(batches(8, 4, seed=5))
    assert one[1] == two[1]
    assert torch.equal(one[0], two[0])
    assert one[0].shape == (4, 3, 64, 64)
    assert scenes(2, 1)[0] != scenes(2, 2)[0]


def test_a_short_training_learns_and_its_checkpoint_is_a_scorer(tmp_path: Path) -> None:
    config = RetrievalConfig(steps=12, learning_rate=2e-3, warmup=2, log_every=4)
    train(tmp_path / "a", [config], 16, 64)
    log = [json.loads(line) for line in (tmp_path / "a" / "training-0.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    train(tmp_path / "b", [config], 16, 64)
    weights = [(tmp_path / f / "open_clip_model.safetensors").read_bytes() for f in "ab"]
    assert weights[0] == weights[1]
    rows = load_scorer(str(tmp_path / "a"), batch=4).embed_texts(["一只红色的猫", "两辆车"])
    assert rows.shape == (2, 128)
