from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from tests.conftest import here
from tests.trainers.compression.nets import Counted
from tuwen.pipeline.errors import InputError, RecipeError, UsageError
from tuwen.sample_data.shards import write_shards
from tuwen.scoring.scorer import load_scorer
from tuwen.trainers import shards
from tuwen.trainers.compression import designs, targets
from tuwen.trainers.compression import network as networks
from tuwen.trainers.compression import train as command
from tuwen.trainers.compression.models import open_model
from tuwen.trainers.compression.network import Network
from tuwen.trainers.compression.train import split, train
from tuwen.trainers.edge.search import check_sums
from tuwen.trainers.towers import ModelConfig, build, prepare, save_weights

SMALL = {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
READS = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
QUICK = ["compress.steps=8", "compress.refreshes=2", "data.batch=16", "compress.warmup=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 60, 3, per_shard=30, side=16, alone=True)
    return folder


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dual")
    config = ModelConfig(start="tiny", vocabulary="captions", embed_dim=16, vision_cfg=SMALL, text_cfg=READS)
    prepare(config, folder, ["一只红色的猫在草地上", "两辆蓝色的汽车"])
    save_weights(build(folder, 0)[0], folder)
    return folder


def reading(folder: Path) -> Path:
    """A recurrent net that reads captions."""
    torch.manual_seed(0)
    characters = "一只红色的猫在草地上蓝狗车花树船鱼鸟"
    task = {
        "kind": "classify",
        "field": "concept",
        "labels": ["猫", "狗", "汽车", "花", "树"],
        "characters": characters,
    }
    networks.save(Network(designs.recurrent(len(characters) + 2, 5, 8, 1)), folder, {"task": {**task, "length": 10}})
    return folder


def test_the_command_on_a_recurrent_net(data: Path, tmp_path: Path) -> None:
    model, out = reading(tmp_path / "model"), tmp_path / "out"
    words = ["train", "compression", model, data, "-o", out, "--target", "size_mb=0.7x", "--json"]
    changes = [w for s in [*QUICK, f"measure.table={tmp_path / 'blocks.json'}"] for w in ("--set", s)]
    told = json.loads(here(*map(str, words), *changes).stdout)
    assert told["missed"] == []
    assert told["measured"]["size_mb"] <= 1.05 * told["budgets"]["size_mb"] < told["reference"]["size_mb"]
    assert told["masked_difference"] < 1e-4
    assert told["quality_on"].startswith("the last shard")
    assert [h["step"] for h in told["history"]] == [0, 1]
    assert all(h["multiplier size_mb"] > 0 for h in told["history"])
    assert {r["unit"]: r["is"] for r in told["removed"]}["embed"] == "tokens"
    onnx.checker.check_model(str(out / "onnx" / "model.onnx"))
    page = (out / "report.html").read_text()
    assert "What was removed where" in page
    assert "multiplier size mb" in page
    cells = json.loads((tmp_path / "blocks.json").read_text())["cells"]
    assert len(cells) > 10
    assert all(c["latency_ms"] == [0, 0, 0] for c in cells.values()), "a size needs no clock"
    again = open_model(str(out / "network"), "image", [shards.find([str(data)])])
    assert sum(p.numel() for p in again.whole.parameters()) == told["removed_parameters"][1]


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_ends_as_a_scorer(
    tower: str, data: Path, dual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Table", lambda *given: Counted())
    told = train(str(dual), [str(data)], tmp_path / "out", ["mflops=0.6x"], tower, sets=QUICK)
    assert told["measured"]["mflops"] <= 1.05 * told["budgets"]["mflops"]
    check_sums(tmp_path / "out" / "onnx")
    before, after = (load_scorer(str(p), "cpu", 4) for p in (dual, tmp_path / "out" / "onnx"))
    assert after.embed_texts(["一只红色的猫"]).shape == before.embed_texts(["一只红色的猫"]).shape


def test_what_cannot_be_done_is_said(data: Path, dual: Path, tmp_path: Path) -> None:
    def fails(
        error: type[Exception], match: str, model: Path | str = dual, target: str = "mflops=0.5x", **more: object
    ) -> None:
        with pytest.raises(error, match=match):
            train(str(model), [str(data)], tmp_path / "out", [target], sets=QUICK, **more)  # type: ignore[arg-type]

    fails(UsageError, "not measured; expected one of", target="latency=1")
    fails(UsageError, "expected NAME=NUMBER", target="latency_ms=-1")
    fails(UsageError, "the uncompressed model needs", target="size_mb=1e9")
    fails(UsageError, "Did you mean 'image'", tower="imag")
    fails(RecipeError, "attentional pooling", model="embedded")
    (tmp_path / "other").mkdir()
    fails(UsageError, "holds no open_clip_config.json", model=tmp_path / "other")
    model = reading(tmp_path / "model")
    text = (model / networks.DESCRIPTION).read_text()
    (model / networks.DESCRIPTION).write_text(text.replace('"concept"', '"colour"'))
    fails(InputError, "has 'colour' in its JSON", model=model)
    (model / networks.DESCRIPTION).write_text(text.replace('"classify"', '"clasify"'))
    fails(InputError, "Did you mean 'classify'", model=model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    fails(UsageError, "is not empty")


def test_targets() -> None:
    found = targets.parse(["latency_ms=2.5, size_mb=0.5x", "mflops=30"])
    assert found == {"latency_ms": (2.5, False), "size_mb": (0.5, True), "mflops": (30.0, False)}
    whole = {"latency_ms": 4.0, "size_mb": 3.0, "mflops": 60.0}
    budgets = targets.absolute(found, whole)
    assert budgets == {"latency_ms": 2.5, "size_mb": 1.5, "mflops": 30.0}
    assert targets.missed(budgets, {"latency_ms": 2.7, "size_mb": 1.5, "mflops": 31.0}) == [
        "latency_ms is 2.7 and not 2.5"
    ]
    with pytest.raises(UsageError, match="this machine does not tell it"):
        targets.absolute(targets.parse(["energy_mj=1"]), whole)


def test_the_last_shard_is_kept_apart(data: Path) -> None:
    found = shards.find([str(data)])
    own, apart, _ = split(found, [])
    assert (len(own.paths), len(apart.paths)) == (1, 1)
    assert own.paths[0] != apart.paths[0]
    one = shards.find([own.paths[0]])
    assert split(one, [])[2].startswith("training samples")
