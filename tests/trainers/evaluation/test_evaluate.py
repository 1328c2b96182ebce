from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import here
from tuwen.export.shards import write_shard
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.sample_data.shards import write_shards
from tuwen.trainers import bootstrap, shards
from tuwen.trainers.evaluation import blind
from tuwen.trainers.evaluation.hard_negatives import hard_negatives
from tuwen.trainers.evaluation.pairs import Pairs, load
from tuwen.trainers.evaluation.similarity import alignment, auc, ranks, retrieval, uniformity
from tuwen.trainers.evaluation.zero_shot import Labels, read_labels, zero_shot

WORDS = ("红", "蓝", "猫", "狗", "一", "两")


def f32(rows: Any) -> Any:
    return np.asarray(rows, np.float32)


class Bags:
    """A scorer whose images say in bytes which of ``WORDS`` they show."""

    name, hash = "bags", "0"

    def embed_texts(self, captions: Sequence[str]) -> Any:
        rows = np.array([[float(w in c) for w in WORDS] for c in captions], np.float32) + 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_images(self, images: Sequence[bytes]) -> Any:
        return self.embed_texts([i.decode() for i in images])


def pairs(captions: list[str], right: list[tuple[int, int]], images: Any, texts: Any) -> Pairs:
    return Pairs(captions, np.array(right), f32(images), f32(texts), [{} for _ in images])


def test_ranks_count_every_right_answer_and_no_lucky_ties() -> None:
    queries = np.eye(3, dtype=np.float32)
    keys = f32([[0.9, 0, 1], [0.8, 1, 0], [0.7, 0.5, 0], [0.8, 0, 0.2]])
    right = np.array([[0, 0], [0, 2], [1, 2], [2, 1]])
    # 0: its better answer is first; 1: second; 2: keys 1 and 2 tie at zero, so the worst place counts.
    assert ranks(queries, keys, right).tolist() == [1, 2, 4]
    constant = np.ones((4, 2), np.float32)
    assert ranks(constant, constant, np.array([[i, i] for i in range(4)])).tolist() == [4] * 4
    # Other right answers do not stand in the way of the best one.
    assert ranks(f32([[1]]), f32([[3], [3], [1]]), np.array([[0, 0], [0, 1]])).tolist() == [1]


def test_shared_captions_and_images_are_one(tmp_path: Path) -> None:
    rows: list[tuple[str, bytes, str, dict[str, Any]]] = [
        ("a", "一红猫".encode(), "一只红猫", {}),
        ("b", "红猫".encode(), "一只红猫", {}),
        ("c", "一红猫".encode(), "红猫", {"captions_merged": ["一只猫"]}),
        (
            "d",
            "蓝狗".encode(),
            "蓝狗",
            {"captions_beside": ["狗"], "negatives": [{"kind": "colour", "caption": "红狗"}]},
        ),
    ]
    write_shard(str(tmp_path / "test-000000.tar"), rows)
    found = load(shards.find([str(tmp_path)], "test"), Bags())
    assert found.captions == ["一只红猫", "红猫", "一只猫", "蓝狗", "狗"]
    assert found.right.tolist() == [[0, 0], [1, 0], [0, 1], [0, 2], [2, 3], [2, 4]]
    of_image, of_caption = found.clusters
    assert of_image[0] == of_image[1] != of_image[2]
    assert of_caption.tolist() == [of_image[0]] * 3 + [of_image[2]] * 2
    told = retrieval(found.images, found.texts, found.right, of_image)
    assert told["R@1"].value == pytest.approx(2 / 3)  # the second image shows no 一, as 红猫 does not either
    assert told["R@5"].value == 1.0
    made = hard_negatives(found, Bags())
    assert made["colour"]["model"].value == 1.0
    assert made["mined"]["model"].n == 3
    with pytest.raises(InputError, match="at least two"):
        load(shards.find([str(tmp_path)], "test"), Bags(), limit=1)


def test_auc_alignment_and_uniformity() -> None:
    n = 60
    draw = np.random.default_rng(0).normal(size=(n, 8))
    rows = f32(draw / np.linalg.norm(draw, axis=1, keepdims=True))
    own = [(i, i) for i in range(n)]
    same = pairs([str(i) for i in range(n)], own, rows, rows)
    assert auc(same).value == 1.0
    assert alignment(same).value == pytest.approx(0, abs=1e-5)
    other = pairs([str(i) for i in range(n)], own, rows, np.roll(rows, 1, 0))
    assert 0.35 < auc(other).value < 0.65
    told = uniformity(rows)
    expected = np.mean([math.exp(-2 * float(((a - b) ** 2).sum())) for i, a in enumerate(rows) for b in rows[:i]])
    assert told.value == pytest.approx(math.log(expected), abs=1e-4)
    assert told.low < told.value < told.high


def test_zero_shot_reads_the_class_from_json_or_caption(tmp_path: Path) -> None:
    captions = ["红猫", "蓝狗", "一只猫和一只狗", "两只狗"]
    rows = Bags().embed_texts(captions)
    found = pairs(captions, [(i, i) for i in range(4)], rows, rows)
    path = tmp_path / "labels.yaml"
    path.write_text("labels: {cat: [猫], dog: 狗}\ntemplates: ['一张{}的照片', '{}']\n", "utf-8")
    told = zero_shot(found, Bags(), read_labels(path))
    assert told["accuracy"].n == 3  # one caption names both
    assert told["accuracy"].value == 1.0
    assert told["commonest class"].value == pytest.approx(2 / 3)
    found.told = [{"class": "dog"}, {"class": "dog"}, {}, {"class": "cow"}]
    told = zero_shot(found, Bags(), Labels({"cat": ["猫"], "dog": ["狗"]}, ["{}"], "class"))
    assert (told["accuracy"].value, told["accuracy"].n) == (0.5, 2)
    path.write_text("labels: [猫]\n", "utf-8")
    with pytest.raises(UsageError, match=r"Expected YAML with labels"):
        read_labels(path)


def test_a_blind_model_finds_what_gives_itself_away_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    colours = ("红", "蓝", "绿", "黄")
    fair, marked = [], []
    for _ in range(400):
        a, b = draw.choice(4, 2, replace=False)
        fair.append((f"{colours[a]}猫", f"{colours[b]}猫"))
        marked.append((f"{colours[a]}猫", f"{colours[b]}色猫"))
    clusters = np.arange(400)
    assert blind.across_folds(marked, clusters).mean() > 0.95
    assert abs(blind.across_folds(fair, clusters).mean() - 0.5) < 0.1
    assert blind.preferred([], fair).tolist() == [0.5] * 400


def test_intervals_cover_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for i in range(100):
        clusters = np.repeat(np.arange(60), 4)
        values = (draw.normal(size=60)[clusters] > 0).astype(np.float64)  # clusters all alike
        told = bootstrap.mean(values, clusters, replicates=300, seed=i)
        covered += told.low <= 0.5 <= told.high
    assert 88 <= covered <= 100
    naive = bootstrap.mean(values, replicates=300)
    assert told.high - told.low > 1.5 * (naive.high - naive.low)
    seeds = bootstrap.over_seeds([1.0, 2.0, 3.0])
    assert seeds.low == pytest.approx(2 - 4.303 / 3**0.5, abs=1e-3)
    middle = bootstrap.median(np.arange(1.0, 102.0), replicates=200)
    assert middle.value == 51 and 35 < middle.low < middle.value < middle.high < 67


def test_clusters_follow_chains() -> None:
    left, right = bootstrap.components(np.array([0, 1, 1, 2, 3]), np.array([0, 0, 1, 1, 2]))
    assert left[0] == left[1] == left[2] != left[3]
    assert right.tolist() == [left[0], left[0], left[3]]


SETS = (
    *("--set", "train.steps=3", "--set", "train.warmup=1", "--set", "train.log_every=1", "--set", "data.batch=8"),
    *("--set", "model.vocabulary=captions", "--set", "model.embed_dim=16", "--set", "data.negatives=1"),
    *("--set", "model.vision_cfg={layers: 1, width: 16, head_width: 8, patch_size: 16}"),
    *("--set", "model.text_cfg={layers: 1, width: 16, heads: 2}"),
)


def test_from_shards_to_a_model_to_its_figures(tmp_path: Path) -> None:
    write_shards(tmp_path / "data", 30, seed=0, per_shard=20, side=32)
    write_shards(tmp_path / "data", 24, seed=1, split="test", side=32)
    command = ("train", "retrieval", tmp_path / "data", "-o", tmp_path / "model", "--device", "cpu", *SETS)
    told = json.loads(here(*command, "--json").stdout)
    assert (told["steps"], told["samples"], told["resumed_at"], told["last"]["step"]) == (3, 30, 0, 2)
    assert {p.name for p in (tmp_path / "model").iterdir()} >= {
        *("open_clip_model.safetensors", "open_clip_config.json", "tokenizer.json"),
        *("train.jsonl", "training.svg", "report.html", "training.json", "checkpoints"),
    }
    page = (tmp_path / "model" / "report.html").read_text("utf-8")
    assert "polyline" in page and "data.batch" in page
    weights = (tmp_path / "model" / "open_clip_model.safetensors").read_bytes()
    assert "trained on 24 pairs" in here(*command).stdout  # nothing is left to do, and nothing changes
    assert (tmp_path / "model" / "open_clip_model.safetensors").read_bytes() == weights
    other = here(*command, "--set", "data.batch=4", check=False)
    assert other.returncode == 2 and "data.batch: 8, 4" in other.stderr

    import open_clip

    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    assert prepare.transforms and model.visual.image_size in (32, (32, 32))

    words = ("evaluate", tmp_path / "model", tmp_path / "data", "--train", tmp_path / "data", "--device", "cpu")
    told = json.loads(here(*words, "--json").stdout)
    assert told["data"]["images"] == 24
    assert told["also in the training shards"]["images"] == 0
    assert 0 <= told["text to image"]["R@10"]["low"] <= told["text to image"]["R@10"]["value"]
    assert told["hard negatives"]["colour"].keys() == {"model", "blind", "blind, trained"}
    assert "image to text" in here(*words).stdout


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--set", "train.step=3"), "Did you mean 'steps'", 2),
        (("--set", "train.steps=many"), "train.steps='many'", 2),
        (("--set", "steps=3"), "expected section.field=value", 2),
        (("--set", "train.negatives=3"), "comes from data", 2),
        (("--set", "model.start=tny"), "Did you mean 'tiny'", 2),
        (("--set", "model.vision_cfg={depth: 3}", "--set", "model.vocabulary=captions"), "cannot build this model", 2),
        (("--set", "data.batch=0"), "data.batch 0", 2),
        (("--config", "gone.yaml"), "cannot be read as YAML", 2),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, words: tuple[str, ...], message: str, code: int) -> None:
    write_shard(str(tmp_path / "a.tar"), [("a", b"", "猫", {})])
    done = here(
        "train", "retrieval", tmp_path / "a.tar", "-o", tmp_path / "out", "--device", "cpu", *words, check=False
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
