from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import here
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.sample_data.clips import write_clip_shards
from tuwen.sample_data.shards import write_shards
from tuwen.trainers.adaptation import devices, exchange, learn, study, task
from tuwen.trainers.adaptation.anchors import Selector
from tuwen.trainers.adaptation.client import Limits
from tuwen.trainers.adaptation.cloud import Cloud, CloudConfig, Encoder, Reasoner, moments
from tuwen.trainers.adaptation.device import KEPT, DeviceModel
from tuwen.trainers.adaptation.light import Light, LightConfig, answer_words
from tuwen.trainers.adaptation.measure import recall
from tuwen.trainers.adaptation.pick import pick, spaced
from tuwen.trainers.adaptation.samples import frame_files, read, several
from tuwen.trainers.adaptation.server import of_folder, serving
from tuwen.trainers.shards import find

TINY = (
    *("model.side=16", "model.width=8", "model.embed=16", "model.text=16", "base.steps=4", "base.batch=16"),
    "base.common=3",
    *("devices.clusters=3", "devices.train=4", "devices.validation=2", "devices.test=2", "devices.photos=6"),
    *("devices.gallery=4", "cloud.steps=3", "cloud.devices=2", "cloud.batch=4", "cloud.hidden=16"),
    *(
        "cloud.features=8",
        "cloud.anchors=4",
        "rivals.rates=[0.01]",
        "rivals.rates_all=[0.001]",
        "rivals.steps=[1, 2]",
        "rivals.batch=4",
    ),
)


def sets() -> list[str]:
    return [word for one in TINY for word in ("--set", one)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip_shards(folder, 180, 1, side=32, count=3)
    return folder


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("adapted") / "out"
    done = here("train", "adaptation", clips, "-o", out, "--json", "--threads", "1", *sets())
    return out, json.loads(done.stdout)


def test_what_the_command_writes_and_says(trained: tuple[Path, dict[str, Any]]) -> None:
    out, told = trained
    assert {p.name for p in (out / "device").iterdir()} == {
        *("frames.onnx", "clip.onnx", "text.onnx", "question.onnx", "answer.onnx", "device.json", "anchors.npy"),
    }
    assert {p.name for p in (out / "cloud").iterdir()} == {"cloud.onnx", "cloud.json"}
    assert told["frames"] == 4  # of three, one comes twice
    assert told["onnx_difference"] < 1e-3
    rows = told["measures"]
    assert set(rows["adapted"]) == {"retrieval", "answers"}
    assert set(rows) >= {"none", "labelled", "one for all", "another device's", "no camera", "blind", "labelled, norm"}
    assert all(0 <= value <= 1 for found in rows.values() for value in found.values())
    assert {c["backward_passes"] for c in told["costs"].values()} <= {1, 2}
    journal = (out / "adaptation.jsonl").read_text()
    assert journal.index("base_loss") < journal.index("common_loss") < journal.index("cloud_loss")
    assert "<svg" in (out / "report.html").read_text()


def test_the_same_command_goes_on_and_another_is_refused(trained: tuple[Path, dict[str, Any]], clips: Path) -> None:
    out, told = trained
    before = (out / "base.safetensors").stat().st_mtime_ns
    again = here("train", "adaptation", clips, "-o", out, "--json", "--no-rivals", *sets())
    assert (out / "base.safetensors").stat().st_mtime_ns == before
    assert json.loads(again.stdout)["policy"] == told["policy"]
    other = here("train", "adaptation", clips, "-o", out, *sets(), "--set", "cloud.steps=9", check=False)
    assert other.returncode == 2
    assert "cloud.steps" in other.stderr


def test_the_device_adapts_over_http_and_falls_back(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = trained
    model = DeviceModel(out / "device", tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), np.uint8)
    clip = frames[:8].reshape(2, 4, 3, 16, 16)
    static = model.clips(clip)
    failed = model.adapt(frames, "http://127.0.0.1:9", Limits(seconds=0.3, tries=1))
    assert (failed.working, model.working) == ("static", "static")
    assert failed.reason
    np.testing.assert_array_equal(model.clips(clip), static)
    with serving(of_folder(out / "cloud")) as server:
        told = model.adapt(frames, server.url)
    assert (told.working, told.reason, told.anchors) == ("adapted", "", 4)
    assert told.sent < 4096
    adapted = model.clips(clip)
    assert np.abs(adapted - static).max() > 1e-4
    assert model.answers(adapted, ["猫是什么颜色的？", "这是在哪里？"])[0] in model.told["answers"]
    np.testing.assert_allclose(np.linalg.norm(model.texts(["红色的猫"]), axis=1), 1, atol=1e-5)
    again = DeviceModel(out / "device", tmp_path)
    assert again.working == "adapted"
    np.testing.assert_allclose(again.clips(clip), adapted, atol=1e-3)
    (tmp_path / KEPT).write_bytes(b"\x93NUMPY broken")
    broken = DeviceModel(out / "device", tmp_path)
    assert broken.working == "static"
    assert KEPT in broken.note
    np.testing.assert_array_equal(broken.clips(clip), static)
    again.forget()
    assert not (tmp_path / KEPT).exists()
    (tmp_path / "file").write_text("where a folder should be")
    nowhere = DeviceModel(out / "device", tmp_path / "file" / "state")
    nowhere.take(model.parameters[0])
    assert (nowhere.working, "cannot be kept" in nowhere.note) == ("adapted", True)
    with pytest.raises(UsageError, match="at least one photo"):
        model.adapt(frames[:0], server.url)


def test_a_device_does_not_load_torch(trained: tuple[Path, dict[str, Any]]) -> None:
    code = (
        "import sys, pathlib, numpy as np; from tuwen.trainers.adaptation.device import DeviceModel; "
        "import tuwen.trainers.adaptation.server; m = DeviceModel(pathlib.Path(sys.argv[1])); "
        "m.features(np.zeros((2, 3, 16, 16), np.uint8)); print('torch' in sys.modules)"
    )
    told = subprocess.check_output([sys.executable, "-c", code, str(trained[0] / "device")], text=True)
    assert told.strip() == "False"


def test_the_commands_of_both_sides(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = trained
    (tmp_path / "roll").mkdir()
    for i in range(6):
        Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(tmp_path / "roll" / f"{i}.jpg")
    (tmp_path / "roll" / "broken.jpg").write_bytes(b"no image")
    with serving(of_folder(out / "cloud")) as server:
        done = here(
            "adapt",
            out / "device",
            tmp_path / "roll",
            server.url,
            "--state",
            tmp_path / "s",
            "--anchors",
            "2",
            "--json",
        )
    told = json.loads(done.stdout)
    assert (told["working"], told["frames"], told["passed_over"], told["anchors"]) == ("adapted", 6, 1, 2)
    gone = here("adapt", out / "device", tmp_path / "roll", server.url, "--state", tmp_path / "n", "--seconds", "0.3")
    assert "the static model works" in gone.stdout
    assert "not adapted" in gone.stderr
    assert here("adapt-serve", out / "device", check=False).returncode == 3


def test_photographs_are_clips_of_one_frame(tmp_path: Path) -> None:
    write_shards(tmp_path, 6, 4, side=32)
    found = find([str(tmp_path)])
    assert not several(found)
    read_ = read(found, 16, 1)
    assert read_.frames.shape == (6, 1, 3, 16, 16)
    assert read_.questions == [[]] * 6
    with pytest.raises(UsageError, match="clusters"):
        devices.clusters(torch.zeros(3, 2), 4, 0)
    with pytest.raises(UsageError, match="a device holds"):
        devices.draw(np.zeros(6, np.int64), devices.DevicesConfig(), 2, [0], 64)


def test_frames_are_found_by_their_names() -> None:
    held = {"01.jpg": b"b", "00.jpg": b"a", "json": b"{}", "10.jpg": b"c", "02.png": b""}
    assert frame_files(held) == ["00.jpg", "01.jpg", "10.jpg"]
    assert frame_files({"jpg": b"x", "txt": b"y"}) == ["jpg"]
    assert spaced(10, 2) == [2, 7]
    assert spaced(2, 4) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model.side=20", "multiple of 8"),
        ("cloud.policy=best", "learned"),
        ("cloud.anchors=1000", "4,096"),
        ("devices.test=1", "2 or more"),
        ("cloud.step=1", "steps"),
    ],
)
def test_settings_that_do_not_hold(change: str, told: str, tmp_path: Path) -> None:
    done = here("train", "adaptation", tmp_path, "-o", tmp_path / "o", "--set", change, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_device_and_selector_choose_alike() -> None:
    torch.manual_seed(0)
    selector, features = Selector(8), torch.rand(3, 20, 8) * 2 - 1
    anchors, places = selector.choose(features, 5)
    projection = selector.project.weight.detach().numpy()
    for row, chosen in zip(features, places, strict=True):
        assert pick("learned", row.numpy(), 5, projection) == sorted(chosen.tolist())
        # An orthogonal projection keeps distances: what is not trained yet is herding.
        assert pick("herding", row.numpy(), 5) == sorted(chosen.tolist())
    np.testing.assert_allclose(anchors[0].detach(), features[0][places[0]], atol=1e-6)
    anchors.square().sum().backward()
    assert selector.project.weight.grad is not None
    assert selector.project.weight.grad.abs().sum() > 0


def test_herding_comes_closer_than_chance() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    wanted = rows.mean(0)
    herd = np.linalg.norm(rows[pick("herding", rows, 6)].mean(0) - wanted)
    chance = [np.linalg.norm(rows[pick("random", rows, 6, seed=s)].mean(0) - wanted) for s in range(20)]
    assert herd < min(chance)
    assert pick("uniform", rows, 100) == list(range(60))
    with pytest.raises(UsageError, match="trained projection"):
        pick("learned", rows, 3)


def test_zero_parameters_are_the_static_model() -> None:
    torch.manual_seed(0)
    light = Light(LightConfig(side=16, frames=2, width=8, embed=16, text=16), 30, 5).eval()
    frames = torch.rand(3, 2, 3, 16, 16) * 2 - 1
    each = torch.randn(3, light.dynamic) * 0.1
    together = light.clip(frames, each)
    for i in range(3):
        torch.testing.assert_close(light.clip(frames[i : i + 1], each[i : i + 1]), together[i : i + 1])
    torch.testing.assert_close(light.clip(frames, torch.zeros(3, light.dynamic)), light.clip(frames, light.static()))
    invert = light.static()
    invert[0, [0, 4, 8]] = -2.0  # the identity becomes minus it
    torch.testing.assert_close(light.clip(frames, invert), light.clip(-frames, light.static()))
    before = light.clip(frames, light.static())
    light.common += invert
    torch.testing.assert_close(light.clip(frames, light.static()), light.clip(-frames, light.plain()))
    torch.testing.assert_close(light.clip(frames, light.plain()), before)


def test_what_all_devices_share_is_in_the_static_model(clips: Path) -> None:
    held = read(find([str(clips)]), 16, 2)
    words = task.vocabulary(held, answer_words([q.answer for asked in held.questions for q in asked]))
    samples = task.Task(held, words)
    torch.manual_seed(0)
    config = LightConfig(side=16, frames=2, width=8, embed=16, text=16)
    light = Light(config, len(words.characters), len(words.answers)).eval()
    weights = {name: value.clone() for name, value in light.state_dict().items() if name != "common"}
    drawn = devices.draw(np.zeros(len(samples), np.int64), devices.DevicesConfig(photos=12), 8, [0], 0)
    cloud = CloudConfig(devices=8, batch=12)
    learn.train_common(light, samples, drawn, learn.BaseConfig(common=40), cloud, 0)
    texts, rng = learn.encoded(light, samples), np.random.default_rng(1)
    _, batches = learn.draws(samples, drawn, cloud, rng)
    with torch.no_grad():
        shared = learn.batches_loss(light, batches, light.static(), texts)
        assert shared < learn.batches_loss(light, batches, light.plain(), texts) - 0.05
    assert all(torch.equal(light.state_dict()[name], value) for name, value in weights.items())
    assert all(p.requires_grad for p in light.parameters())


def test_a_rotation_of_the_hue_keeps_grey() -> None:
    for angle in (0.3, -1.2, 2 * np.pi / 3):
        turned = devices.hue(angle)
        torch.testing.assert_close(turned @ turned.T, torch.eye(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(turned @ torch.ones(3), torch.ones(3))
    torch.testing.assert_close(devices.hue(2 * np.pi / 3) @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


def test_devices_differ_in_what_they_see_and_hold_nothing_twice() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 600)
    config = devices.DevicesConfig(concentration=0.2, photos=20, gallery=20)
    drawn = devices.draw(labels, config, 12, [1], 20)
    assert all(len(set(d.photos) | set(d.gallery)) == 40 for d in drawn)
    shares = [np.bincount(labels[d.photos], minlength=6).max() / 20 for d in drawn]
    even = devices.draw(labels, devices.DevicesConfig(concentration=100.0, photos=20, gallery=20), 12, [1], 20)
    assert np.mean(shares) > 1.5 * np.mean([np.bincount(labels[d.photos], minlength=6).max() / 20 for d in even])
    assert all((np.diff(labels[d.photos]) >= 0).all() for d in drawn)  # by outing
    beyond = devices.draw(labels, config, 3, [1], 20, outside=True)
    assert all(d.camera.matrix.isfinite().all() for d in beyond)


def test_the_reasoner_begins_with_the_anchors_own_moments() -> None:
    features = torch.rand(2, 9, 8) * 2 - 1
    seen = Reasoner(8, 16)(features)
    torch.testing.assert_close(seen.mean, features.mean(1))
    order = torch.randperm(9)
    cloud = Cloud(CloudConfig(features=8, hidden=16), 12).eval()
    torch.testing.assert_close(cloud(features), cloud(features[:, order]))
    assert moments(features[:, :1])[1].max() < 1e-3


def test_what_the_encoder_gives_is_what_is_uploaded() -> None:
    torch.manual_seed(0)
    encoder = Encoder(10, 8)
    rows = encoder(torch.randn(5, 10)).detach().numpy()
    packed = exchange.pack_features(rows)
    assert len(packed) == 40
    np.testing.assert_allclose(exchange.unpack_features(packed, 8), rows, atol=1e-6)


def test_recall_counts_equal_captions_as_right() -> None:
    cosines = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 0.7]])
    assert recall(cosines, torch.tensor([1, 1, 2])) == 1.0
    assert recall(cosines, torch.tensor([1, 2, 3])) == pytest.approx(1 / 3)


def test_share_of_the_gain() -> None:
    rows = {"none": [{"a": 0.2}], "labelled": [{"a": 0.4}], "adapted": [{"a": 0.5}]}
    assert study.recovered(rows, "a") == pytest.approx(1.5)
    assert np.isnan(study.recovered(rows | {"labelled": [{"a": 0.1}]}, "a"))


def test_shards_without_samples_say_what_is_missing(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(InputError, match=r"KEY\.00\.jpg"):
        read(find([str(tmp_path / "x.tar")]), 16, 1)
