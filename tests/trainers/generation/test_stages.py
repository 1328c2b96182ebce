"""All stages in turn through the command's own function, on a network of a few thousand parameters."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from typer.testing import CliRunner

from tuwen.pipeline.cli import app
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.sample_data import placed
from tuwen.trainers import lora
from tuwen.trainers.generation import base, domain, evaluate, model, needs, prune, train
from tuwen.trainers.generation.onnx_model import OnnxModel
from tuwen.trainers.generation.sampling import sample
from tuwen.trainers.shards import PairStream, find

UNET = "model.unet={sample_size: 4, block_out_channels: [8, 16], norm_num_groups: 4, cross_attention_dim: 16}"
TEXT = "model.text={width: 16, heads: 2}"
COMMON = ["data.batch=8", "data.shuffle=16", "train.steps=2", "train.warmup=1", "train.log_every=1"]


class Stages:
    """Trains each stage when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.told = root, dict[str, dict[str, Any]]()
        placed.write_shards(root / "old", 40, 0, side=32)
        placed.write_shards(root / "old", 24, 1, "test", side=32)
        placed.write_shards(root / "new", 24, 2, side=32, colours=placed.NEW_COLOURS)

    def __call__(self, stage: str) -> Path:
        own: dict[str, tuple[str, list[str]]] = {
            "base": ("", [UNET, TEXT, "data.caption=caption_en", f"data.more_captions=[{self.root}/new]"]),
            "align": ("base", ["data.parallel=caption_en", "align.text={width: 16, heads: 2}"]),
            "domain": ("align", [f"domain.old=[{self.root}/old]", "data.negatives=1", "domain.wrong=0.5"]),
            "prune": ("align", ["prune.remove=[level-0, middle]"]),
            "guidance": ("prune", ["guidance.width=16"]),
            "steps": ("guidance", ["steps.targets=[4, 2]"]),
        }
        begin, sets = own[stage]
        if stage not in self.told:
            start = str(self(begin)) if begin else ""
            shards = [str(self.root / ("new" if stage == "domain" else "old"))]
            self.told[stage] = train.train(shards, self.root / stage, stage, start, None, [*COMMON, *sets], "cpu")
        return self.root / stage


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Stages(tmp_path_factory.mktemp("stages"))
    torch.set_num_threads(threads)


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return dict(getattr(model.load(folder), part).state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_base_opens_in_diffusers(stages: Stages) -> None:
    folder = stages("base")
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
    assert unet.config.sample_size == 4
    assert DDIMScheduler.from_pretrained(folder, subfolder="scheduler").config.prediction_type == "v_prediction"
    told = json.loads((folder / "training.json").read_text())
    assert told["images_seen"] == 16
    assert "data:image/png" in (folder / "report.html").read_text()
    assert len((folder / "train.jsonl").read_text().splitlines()) == 2


def test_images_depend_on_seed_and_prompt_alone(stages: Stages) -> None:
    made = model.load(stages("base"))
    prompts = ["a red car on the left", "two blue balls at the top", "a red car on the left"]
    images = sample(made, prompts, 2)
    assert images.shape == (3, 3, 8, 8)
    assert not torch.equal(images[0], images[1])
    torch.testing.assert_close(sample(made, prompts, 2, batch=2), images, rtol=0, atol=1e-5)
    assert not torch.allclose(sample(made, prompts, 2, seed=1), images)


def test_alignment_leaves_the_foundation_alone(stages: Stages) -> None:
    base, aligned = stages("base"), stages("align")
    assert same(weights(base, "unet"), weights(aligned, "unet"))
    assert "adapter" in model.load(aligned).modules_named()
    last = stages.told["align"]["last"]
    assert {"task", "output", "features", "embedding"} <= last.keys()
    assert stages.told["align"]["trained"] < stages.told["align"]["parameters"] / 5


def test_alignment_needs_parallel_captions(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.parallel"):
        train.train([str(stages.root / "old")], tmp_path, "align", str(stages("base")), None, COMMON, "cpu")


def test_domain_merges_its_adapters(stages: Stages) -> None:
    before, after = weights(stages("align"), "unet"), weights(stages("domain"), "unet")
    assert before.keys() == after.keys()
    assert not same(before, after)
    assert {"task", "replay", "keep", "wrong"} <= stages.told["domain"]["last"].keys()


def test_adapters_sit_where_they_are_asked_for(stages: Stages) -> None:
    def tuned(target: str) -> domain.Domain:
        config = domain.DomainConfig(lora.LoraConfig(rank=2, targets=(target,)), replay=0, keep=0)
        return domain.Domain(model.load(stages("prune")), config, base.DiffusionConfig())

    named = [n for n, p in tuned("to_q").trained.named_parameters() if p.requires_grad]
    assert named
    assert all(n.startswith("unet.") and ".to_q." in n for n in named)
    with pytest.raises(UsageError, match="named to_nothing"):
        tuned("to_nothing")


def test_domain_needs_to_know_the_old(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"domain\.old"):
        train.train([str(stages.root / "new")], tmp_path, "domain", str(stages("align")), None, COMMON, "cpu")


def test_pruned_weights_are_the_teachers(stages: Stages) -> None:
    unet = model.load(stages("align")).unet
    assert prune.units(unet) == ["level-0", "level-1", "middle"]
    small = prune.without(unet, ["level-1"])
    assert prune.units(small) == ["level-0", "middle"]
    assert torch.equal(
        small.up_blocks[0].resnets[1].conv1.weight, unet.up_blocks[0].resnets[2].conv1.weight
    )  # the last on the way up stays: it takes the other level's skip
    assert torch.equal(small.down_blocks[1].resnets[0].conv1.weight, unet.down_blocks[1].resnets[0].conv1.weight)
    z, step, states = torch.randn(1, 12, 4, 4), torch.tensor([3]), torch.randn(1, 5, 16)
    assert small(z, step, states).sample.shape == z.shape
    assert stages.told.get("prune") or stages("prune")
    assert stages.told["prune"]["removed"] == ["level-0", "middle"]
    with pytest.raises(UsageError, match="cannot be taken out"):
        prune.without(small, ["level-1"])


def test_sensitivity_is_measured_and_obeyed(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(one: model.TextToImage, *_: Any) -> float:  # a clock that nothing else on the machine disturbs
        return model.parameters(one, "unet") / 1e6

    monkeypatch.setattr(prune, "_seconds", seconds)
    made = model.load(stages("align"))
    batch = PairStream(find([str(stages.root / "old")]), train.GenerationData(batch=4, shuffle=8), 8)
    removed, table = prune.chosen(made, next(iter(batch)), prune.PruneConfig(speed=1.02))
    assert len(removed) == 1
    first = [row for row in table if row["after"] == "nothing"]
    assert {row["name"] for row in first} == {"level-0", "level-1", "middle"}
    assert all(row["error"] > 0 and row["saved"] > 0 for row in table)
    assert min(first, key=lambda row: row["error"] / row["saved"])["name"] == removed[0]
    with pytest.raises(UsageError, match="Ask for less"):
        prune.chosen(made, next(iter(batch)), prune.PruneConfig(speed=1e6))


def test_guided_student_starts_as_its_teacher_and_takes_one_pass(stages: Stages) -> None:
    teacher = model.load(stages("prune"))
    student = model.load(stages("guidance"))
    assert student.takes_weight
    assert not teacher.takes_weight
    from tuwen.trainers.generation import guidance

    fresh = guidance.student(teacher, guidance.GuidanceConfig(width=16))
    z, steps = torch.randn(2, 12, 4, 4), torch.tensor([3, 900])
    context = teacher.encode(["左边有一辆红色的汽车"] * 2)
    with torch.no_grad():
        torch.testing.assert_close(
            model.velocity(fresh, z, steps, context, torch.tensor([0.0, 2.0])),
            model.velocity(teacher, z, steps, context),
        )


def test_steps_are_halved_in_turn(stages: Stages) -> None:
    folder = stages("steps")
    assert (folder / "steps-4" / "training.json").is_file()
    assert same(weights(folder, "unet"), weights(folder / "steps-2", "unet"))
    assert not same(weights(folder / "steps-4", "unet"), weights(folder / "steps-2", "unet"))


def test_interrupted_training_goes_on_as_if_it_had_not_been(stages: Stages, tmp_path: Path) -> None:
    start, shards = str(stages("prune")), [str(stages.root / "new")]
    sets = [*COMMON, f"domain.old=[{stages.root}/old]", "domain.lora.targets=[to_q, conv1]"]
    train.train(shards, tmp_path / "whole", "domain", start, None, [*sets, "train.steps=3"], "cpu")
    sets += ["train.steps=3", "train.checkpoint_every=1"]

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(shards, tmp_path / "cut", "domain", start, None, sets, "cpu", tell=stop)
    told = train.train(shards, tmp_path / "cut", "domain", start, None, sets, "cpu")
    assert told["resumed_at"] == 1
    assert same(weights(tmp_path / "whole", "unet"), weights(tmp_path / "cut", "unet"))
    with pytest.raises(UsageError, match="other settings"):
        train.train(shards, tmp_path / "cut", "domain", start, None, [*sets, "domain.keep=2"], "cpu")


def test_export_draws_what_torch_draws(stages: Stages, tmp_path: Path) -> None:
    told = train.train(
        [str(stages.root / "old")], tmp_path / "onnx", "export", str(stages("steps")), None,
        ["export.steps=2", "export.calibrate=4"], "cpu",
    )  # fmt: skip
    assert told["difference"] < 1e-4
    assert {"bytes", "error", "milliseconds", "pays", "kept"} == told["int8"].keys()
    made = OnnxModel(tmp_path / "onnx", threads=1)
    one = made.generate(["左边有一辆红色的汽车"], seed=3)
    assert one.shape == (1, 3, 8, 8)
    assert np.array_equal(one, made.generate(["左边有一辆红色的汽车"], seed=3))
    assert not np.array_equal(one, made.generate(["左边有一辆红色的汽车"], seed=4))
    words = ["generate", str(tmp_path / "onnx"), "左边有一辆红色的汽车", "-o", str(tmp_path / "car.png")]
    done = CliRunner().invoke(app, [*words, "-n", "2", "--size", "20", "--seed", "3", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["steps"] == 2
    sheet = cv2.imread(str(tmp_path / "car.png"))
    assert sheet is not None
    assert sheet.shape == (24, 48, 3)
    np.testing.assert_array_equal(sheet[::3, :24:3, ::-1], (one[0].transpose(1, 2, 0) * 255).round())
    with pytest.raises(InputError, match="steps"):
        made.generate(["树"], steps=5000)
    with pytest.raises(InputError, match="export"):
        OnnxModel(tmp_path)


def test_guided_export_draws_what_torch_draws(stages: Stages, tmp_path: Path) -> None:
    told = train.train(
        [str(stages.root / "old")], tmp_path, "export", str(stages("prune")), None,
        ["export.steps=2", "export.weight=1.5", "export.int8=never"], "cpu",
    )  # fmt: skip
    assert told["difference"] < 1e-4
    assert "int8" not in told


def test_evaluation_has_all_figures(stages: Stages, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    asked = [p for p in placed.every() if p.held_out][:4]
    lines = (json.dumps({"caption": placed.caption(p), "truth": p._asdict()}, ensure_ascii=False) for p in asked)
    prompts.write_text("\n".join(lines))
    sets = [
        "evaluate.samples=12", "evaluate.steps=2", f"evaluate.train=[{stages.root}/old]",
        "evaluate.probe_steps=40",
        f"evaluate.prompts={prompts}", f"evaluate.before={stages('align')}",
    ]  # fmt: skip
    told = train.train(
        [str(stages.root / "old")], tmp_path / "out", "evaluate", str(stages("domain")), None, sets, "cpu"
    )
    assert told["evaluations"] == 4
    assert told["held-out prompts"] == 4
    assert set(told["attributes"]) == {"kind", "colour", "count", "place", "all"}
    assert told["attributes"].keys() == told["forgotten"].keys()
    assert set(told["frechet"]) == {"probe", "scorer"}
    assert told["chance"]["all"] < told["ceiling"]["all"].value + 1e-9 or told["ceiling"]["all"].value == 0
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["cosine"]["real"]["n"] == 12
    assert any("held out" in line for line in evaluate.lines(told))


@pytest.mark.parametrize(
    ("stage", "start", "message"),
    [("bass", "", "Did you mean 'base'"), ("align", "", "--start"), ("prune", "nowhere", "model_index")],
)
def test_wrong_commands_are_told(stages: Stages, tmp_path: Path, stage: str, start: str, message: str) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        train.train([str(stages.root / "old")], tmp_path / "out", stage, start, None, COMMON, "cpu")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"pip install 'tuwen\[generation\]'"):
        needs.diffusers()
