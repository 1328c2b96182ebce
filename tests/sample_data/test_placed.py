from __future__ import annotations

from pathlib import Path

import numpy as np

from tuwen.sample_data import placed
from tuwen.trainers import shards


def test_every_kind_and_every_colour_has_something_unseen() -> None:
    unseen = [p for p in placed.every() if p.held_out]
    assert {p.kind for p in unseen} == set(placed.SHAPES)
    assert {p.colour for p in unseen} == set(placed.COLOURS)
    rng = np.random.default_rng(0)
    assert not any(placed.drawn(rng).held_out for _ in range(300))


def test_things_are_where_the_caption_says() -> None:
    told = placed.Placed("ball", "红色", 1, "左边")
    picture = placed.render(told, np.random.default_rng(0)).astype(int)
    red = (picture[..., 0] - picture[..., 1:].max(-1)).clip(0)
    assert red[:, :32].sum() > 20 * max(1, red[:, 32:].sum())
    two = placed.render(told._replace(count=2), np.random.default_rng(0)).astype(int)
    reds = (two[..., 0] - two[..., 1:].max(-1) > 60).sum(1) > 0
    assert np.abs(np.diff(reds.astype(int))).sum() == 4  # two runs of rows


def test_captions_in_two_languages() -> None:
    told = placed.Placed("umbrella", "橙色", 1, "上面")
    assert placed.caption(told) == "上面有一把橙色的雨伞"
    assert placed.caption_en(told) == "an orange umbrella at the top"
    assert placed.caption_en(told._replace(count=2)) == "two orange umbrellas at the top"


def test_shards_tell_the_truth(tmp_path: Path) -> None:
    placed.write_shards(tmp_path, 60, 0, per_shard=40, mismatched=0.5)
    found = shards.find([str(tmp_path)])
    assert (found.samples, len(found.paths)) == (60, 2)
    told = list(shards.every(found))
    wrong = [s for s in told if s.told["mismatched"]]
    assert 15 < len(wrong) < 45
    for s in told:
        says = s.told["truth"]["place"] in s.caption and s.told["truth"]["colour"] in s.caption
        assert says or s.told["mismatched"]
        assert s.negatives()
