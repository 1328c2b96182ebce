from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np

from tuwen.sample_data.clips import STEPS, Clip, caption, frames, questions, random_clip, write_clip_shards
from tuwen.sample_data.world import Thing


def test_a_thing_moves_as_the_caption_says() -> None:
    for move, (dx, dy) in STEPS.items():
        clip = Clip((Thing("ball", "红色"),), (move,), "雪地", 5)
        first, *_, last = (f.astype(float) for f in frames(clip, 4, 48))
        centres = []
        for frame in (first, last):
            red = np.clip(frame[..., 0] - frame[..., 1:].mean(-1), 60, None) - 60
            ys, xs = np.mgrid[0:48, 0:48]
            centres.append((float((red * xs).sum() / red.sum()), float((red * ys).sum() / red.sum())))
        moved = (centres[1][0] - centres[0][0], centres[1][1] - centres[0][1])
        assert abs(moved[0] - dx * 0.3 * 48) < 3, move
        assert abs(moved[1] - dy * 0.3 * 48) < 3, move
        assert (move or "停着不动") in caption(clip, np.random.default_rng(0))


def test_questions_have_one_answer_each() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        clip = random_clip(rng, two=0.8)
        asked = questions(clip, rng)
        assert len({q["question"] for q in asked}) == len(asked)
        told = {q["question"]: q["answer"] for q in asked}
        assert told["有几样东西？"] == "一两"[len(clip.things) - 1]
        for thing in clip.things:
            assert thing.colour in told.values()


def test_shards_hold_frames_in_order_and_are_the_same_again(tmp_path: Path) -> None:
    made = [write_clip_shards(tmp_path / name, 5, 2, per_shard=3, side=32, count=3) for name in "ab"]
    assert made[0] == made[1]
    assert [s.samples for s in made[0]] == [3, 2]
    with tarfile.open(tmp_path / "a" / "train-000000.tar") as tar:
        names = [m.name for m in tar]
        told = json.load(tar.extractfile(names[3]))  # type: ignore[arg-type]
    assert [n.partition(".")[2] for n in names[:5]] == ["00.jpg", "01.jpg", "02.jpg", "json", "txt"]
    assert told["frames"] == 3
    assert {"kind", "question", "answer"} == set(told["qa"][0])
