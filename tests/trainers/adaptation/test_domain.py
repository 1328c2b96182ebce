from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import here
from tuwen.sample_data.shards import write_shards
from tuwen.trainers import lora, towers
from tuwen.trainers.adaptation import domain
from tuwen.trainers.distributed import ALONE
from tuwen.trainers.retrieval import RetrievalConfig
from tuwen.trainers.stream import Pairs
from tuwen.trainers.towers import ModelConfig

pytest.importorskip("peft")
CAPTIONS = ["红色的猫", "蓝色的狗", "绿色的鸟", "黄色的鱼"]
SMALL = ModelConfig(
    vocabulary="captions",
    embed_dim=16,
    vision_cfg={"image_size": 16, "layers": 1, "width": 16, "head_width": 8},
    text_cfg={"width": 16, "heads": 2, "layers": 1},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    towers.prepare(SMALL, out, CAPTIONS)
    model, *_ = towers.build(out, 0)
    towers.save_weights(model, out)
    return out


def batch(seed: int = 0) -> Pairs:
    draw = torch.Generator().manual_seed(seed)
    return Pairs(torch.randint(256, (4, 3, 16, 16), generator=draw).to(torch.uint8), CAPTIONS)


def test_old_pairs_follow_the_new_ones() -> None:
    (one,) = domain.mixed(iter([batch(0)]), iter([batch(1)]))
    assert len(one.images) == len(one.captions) == 8
    assert torch.equal(one.images[4:], batch(1).images)
    assert next(iter(domain.mixed([batch(0)], None))) is not None


@pytest.mark.parametrize("adapters", [True, False])
def test_keeping_costs_nothing_at_first_and_holds_the_model_later(adapters: bool, folder: Path) -> None:
    moved = []
    model: Any
    for keep in (0.0, 300.0):
        model, tokenize, _ = towers.build(folder, 0, str(folder))
        names = set(model.state_dict())
        start = model.encode_image(batch().images.float(), normalize=True).detach()
        config = RetrievalConfig(steps=6, warmup=1, learning_rate=1e-2, threshold_weight=0.0, log_every=1)
        way = domain.DomainConfig(adapters, 0.0, keep)
        records = domain.adapt(model, tokenize, iter([batch()] * 6), config, way, lora.LoraConfig(rank=2))
        assert set(model.state_dict()) == names  # the layout of before
        model.eval()
        with torch.no_grad():
            now = model.encode_image(batch().images.float(), normalize=True)
            logits = now @ model.encode_text(tokenize(CAPTIONS), normalize=True).T
        moved.append(float((now - start).abs().max()))
        assert logits.isfinite().all()
        assert ("keep" in records[0]) == bool(keep)
    assert moved[0] > 1e-3
    assert records[-1]["keep"] < records[1]["keep"] * 3


def test_with_replay_only_what_the_old_model_says_of_old_pairs_is_kept(folder: Path) -> None:
    model, tokenize, _ = towers.build(folder, 0, str(folder))
    config = RetrievalConfig(threshold_weight=0.0)
    loop = domain.keeping(1.0, model, replayed=2)(model, tokenize, config, ALONE)
    draw = torch.Generator().manual_seed(0)
    rows = {n: torch.randn(4, 16, generator=draw) for n in ("image", "text", "before_image", "before_text")}
    rows |= {"before_scale": torch.ones(4), "scale": torch.ones(())}
    groups = {"captions": torch.arange(4)}

    def kept(changed: slice) -> float:
        before = rows["before_image"].clone()
        before[changed] += 1
        return float(loop.objective(rows | {"before_image": before}, groups)["keep"])

    assert kept(slice(0, 2)) == kept(slice(0, 0)) != kept(slice(2, 4))


def test_adapters_sit_where_they_are_called(folder: Path) -> None:
    model: Any
    model, tokenize, _ = towers.build(folder, 0, str(folder))
    lora.attach(model, lora.LoraConfig(rank=2))
    images, ids = batch().images.float(), tokenize(CAPTIONS)
    (model.encode_image(images).square().sum() + model.encode_text(ids).square().sum()).backward()
    made = {n: p.grad for n, p in model.named_parameters() if n.endswith("lora_B.default.weight")}
    unused = [n for n, gradient in made.items() if gradient is None or not gradient.abs().sum()]
    assert made
    assert unused == []


def test_the_command(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("new", 1), ("old", 2)):
        write_shards(tmp_path / name, 24, seed, side=32, alone=True)
    new, old = tmp_path / "new" / "train-000000.tar", tmp_path / "old" / "train-000000.tar"
    out = tmp_path / "out"
    given = ("train", "adaptation", new, "--task", "domain", "-o", out)
    done = here(
        *given, "--model", folder, "--replay", old, "--test", new, "--old", old, "--set", "data.batch=8",
        "--set", "train.steps=2", "--set", "lora.rank=2", "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["replayed"] == 4
    assert 0 <= told["new"]["after"]["text to image"]["value"] <= 1
    assert (out / "adapter" / lora.ADAPTER).is_file()
    model, *_ = towers.build(out, 0, str(out))
    before, *_ = towers.build(folder, 0, str(folder))
    assert any((a != b).any() for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert here(*given, "--model", folder, check=False).returncode == 2  # OUT is not empty
    lacking = here("train", "adaptation", new, "--task", "domain", "-o", tmp_path / "o", check=False)
    assert "--model" in lacking.stderr
    odd = here("train", "adaptation", new, "--task", "domains", "-o", tmp_path / "o", check=False)
    assert "domain" in odd.stderr
    assert here("train", "adaptation", new, "--old", old, "-o", tmp_path / "o", check=False).returncode == 2
