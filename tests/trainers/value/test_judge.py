from __future__ import annotations

import numpy as np
import pytest
import torch

from tuwen.trainers.value.judge import difference, pairs_to_match, student
from tuwen.trainers.value.model import LENGTH, PAD, UNKNOWN, Characters, Yardstick
from tuwen.trainers.value.points import Budget, Questions, batches, ranks, train


def test_every_pair_is_seen_as_often_as_any_other() -> None:
    images, captions = torch.zeros(5, 3, 2, 2, dtype=torch.uint8), [f"{i}" for i in range(5)]
    stream = batches(images, captions, 4, 0)
    seen = [c for _ in range(5) for c in next(stream)[1]]
    assert sorted(seen) == sorted(captions * 4)


def test_a_right_answer_that_ties_is_not_found_and_shared_captions_are_all_right() -> None:
    flat = np.zeros((3, 3), np.float32)
    assert ranks(flat, np.arange(3)).tolist() == [2] * 6  # says the same of everything: last
    assert ranks(np.eye(3, dtype=np.float32), np.arange(3)).tolist() == [0] * 6
    swapped = np.eye(3, dtype=np.float32)[[1, 0, 2]]  # each finds the other, which shows the same caption
    assert ranks(swapped, np.array([7, 7, 8])).tolist() == [0] * 6
    assert ranks(swapped, np.arange(3)).tolist() == [2, 2, 0, 2, 2, 0]


def test_characters_are_padded_and_cut() -> None:
    words = Characters(["红车", "红猫"])
    tokens = words(["红车", "马", "红" * 99, ""])
    assert tokens.shape == (4, LENGTH)
    assert tokens[0, 2:].eq(PAD).all() and tokens[1, 0] == UNKNOWN == tokens[3, 0]
    model = Yardstick(len(words)).eval()
    # Padding changes nothing.
    assert torch.allclose(model.encode_text(words(["红车"])), model.encode_text(tokens[:1]), atol=1e-5)


def test_a_training_is_the_same_again_and_learns() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (24, 3, 1, 1), np.uint8)).expand(24, 3, 32, 32).contiguous()
    captions = [chr(0x4E00 + i) for i in range(24)]
    asked = Questions(images, {"original": captions})
    budget = Budget(steps=40, batch=24)
    one, two = (train(images, captions, Characters(captions), asked, budget, seed=1) for _ in range(2))
    assert one.answers["original"].ranks.tolist() == two.answers["original"].ranks.tolist()
    assert one.answers["original"].recall(5) > 0.8
    other = train(images, captions, Characters(captions), asked, budget, seed=2)
    assert one.loss != other.loss


def test_a_difference_is_proven_from_twice_its_spread_on() -> None:
    rng = np.random.default_rng(0)

    def asked(share: float) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return (rng.random(400) > share).astype(np.int32)

    clear = difference([asked(0.7) for _ in range(3)], [asked(0.3) for _ in range(3)])
    assert clear.proven and clear.low > 0.2 and clear.high < 0.6 and clear.describe()["verdict"] == "gain"
    same = difference([asked(0.5) for _ in range(3)], [asked(0.5) for _ in range(3)])
    assert not same.proven and same.describe()["verdict"] == "unproven"
    assert difference([asked(0.1)] * 3, [asked(0.9)] * 3).describe()["verdict"] == "loss"


def test_one_seed_proves_nothing() -> None:
    alone = difference([np.zeros(50, np.int32)], [np.ones(50, np.int32)])
    assert alone.mean == 1 and not alone.proven
    assert alone.describe()["low"] is None
    with pytest.raises(ValueError, match="1 and 0 trainings"):
        difference([np.zeros(2, np.int32)], [])


def test_seeds_that_disagree_widen_the_spread() -> None:
    better, worse = np.zeros(1000, np.int32), np.ones(1000, np.int32)
    wild = difference([better, worse, better], [worse, better, worse])
    assert wild.mean == pytest.approx(1 / 3)
    assert wild.spread > 1 and not wild.proven


def test_students_quantiles() -> None:
    for freedom, known in ((1, 12.706), (2, 4.303), (11, 2.201), (20, 2.086), (100, 1.984)):  # from the tables
        assert student(freedom) == pytest.approx(known, rel=2e-3)
    assert student(0) == float("inf")


def test_pairs_to_match_lie_between_measured_sizes() -> None:
    sizes, recalls = [100, 200, 400], [0.1, 0.2, 0.4]
    assert pairs_to_match(sizes, recalls, 0.05) == 100
    assert pairs_to_match(sizes, recalls, 0.4) == pytest.approx(400)
    assert pairs_to_match(sizes, recalls, 0.3) == pytest.approx(200 * 2**0.5)
    assert pairs_to_match(sizes, recalls, 0.5) is None
