"""`curate doctor` and `init`, shell completion, progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import here
from tests.pipeline.test_cli import photograph
from tuwen.pipeline import doctor, terminal
from tuwen.pipeline.init import choose, look, recipe_text
from tuwen.pipeline.recipe import load, parse


def test_doctor_runs_the_main_job_and_says_what_is_there(tmp_path: Path) -> None:
    told = json.loads(here("doctor", "--json", "-o", tmp_path).stdout)
    found = {c["name"]: c for c in told["checks"]}
    assert not told["broken"]
    assert found["self-test"]["said"].startswith("12 pairs = 10 kept + 2 dropped")
    assert "polars" in found["libraries"]["said"]
    assert {"java", "gpu", "disk", "memory", "embedded scorer", "model cache"} <= set(found)
    assert all(c["todo"] for c in told["checks"] if c["state"] != "ok")


def test_doctor_ends_with_one_where_something_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "IMPORTED", ("polars", "no_such_module_at_all"))
    told = here("doctor", "--no-self-test", check=False)
    assert told.returncode == 1
    assert "BROKEN  libraries: no_such_module_at_all does not load: ModuleNotFoundError" in told.stdout
    assert "self-test" not in told.stdout

    def wrong(_: Path) -> dict[str, Any]:
        return {"counts": {"inputs": 12, "kept": 0, "dropped": 12, "failed": 0}}

    monkeypatch.setattr(doctor, "run_small", wrong)
    assert doctor.small_run().state == "broken"
    assert "not what was drawn" in doctor.small_run().said


def test_doctor_says_where_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.disk(str(tmp_path / "not" / "there")).state == "ok"
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**60)
    assert doctor.disk(str(tmp_path)).todo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photographs with sidecars, four of them captioned in English; one is small."""
    made = tmp_path / "photos"
    made.mkdir()
    for i in range(12):
        (made / f"{i}.jpg").write_bytes(photograph(i, 64 if i == 0 else 160 + i))
        (made / f"{i}.txt").write_text("a red car by the road" if i % 3 == 0 else f"第{i}辆红色的汽车停在路边", "utf-8")
    return made


def test_init_measures_the_users_own_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    told = json.loads(here("init", folder, "-o", out, "--json").stdout)
    assert told["recipe"] == "photos"
    assert "languages: zh 67%" in " ".join(told["seen"])
    text = out.read_text("utf-8")
    assert "shorter_side: 100  # drops 8.3%; 90 in 100 lie in" in text
    assert "min_han: 0.5  # drops 33%" in text
    assert load(str(out)).stages == load("photos").stages
    assert f"curate run {folder} -o OUT -r {out}" == told["next"]


@pytest.mark.parametrize("name", ["oppovl", "photos", "images", "wukong", "laion", "danqing"])
def test_what_init_writes_is_the_shipped_recipe(name: str, folder: Path) -> None:
    text = recipe_text(look(str(folder), {}, 4), load(name), name, "for a test")
    again = parse(text, "mine.yaml")
    assert again.stages == load(name).stages
    assert again.shards == load(name).shards
    assert "# for" not in text.splitlines()[-1]


def test_init_chooses_by_what_the_input_is(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(f'{{"url": "http://a.cn/{i}.jpg", "caption": "第{i}张照片"}}\n' for i in range(5)))
    pages = tmp_path / "page.html"
    pages.write_text('<html><body><img src="http://a.cn/1.jpg" alt="红色的汽车停在路边"></body></html>', "utf-8")
    assert choose(look(str(folder), {}))[0] == "photos"
    assert choose(look(str(table), {}))[0] == "oppovl"
    assert choose(look(str(pages), {}))[0] == "oppovl"
    for path in folder.glob("*.txt"):
        path.unlink()
    for named in ((), ("--input", "caption=filename")):  # without captions their names are all there is
        told = json.loads(here("init", folder, "-o", tmp_path / "r.yaml", "--json", "--force", *named).stdout)
        assert told["recipe"] == "images"
        assert told["next"].endswith("--input caption=filename")
        assert any("12 images without a caption" in line for line in told["seen"]) == (not named)


def test_init_warns_where_the_captions_are_not_chinese(tmp_path: Path) -> None:
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(f'{{"url": "http://a.cn/{i}.jpg", "caption": "photo number {i}"}}\n' for i in range(5)))
    here("init", table, "-o", tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text("utf-8")
    assert "100% of the captions looked at are in other languages: is the right caption column read?" in text
    assert "# The embedded scorer knows the sample only" in text


def test_completion_is_offered_for_the_shells() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # Without a shell above it, the command cannot guess one and takes the name given.
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    command = [sys.executable, "-m", "tuwen.pipeline.cli", "--show-completion", "bash"]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=True).stdout
    assert "COMP_WORDS" in told


def test_progress_tells_rate_and_time_left() -> None:
    said: list[str] = []
    moments = iter([0.0, 5.0, 12.0, 13.0, 30.0])
    tell = terminal.Lines(lambda step: said.append(step.said()), lambda: next(moments))
    for done in (2, 4, 8, 9, 22):  # two were done by an earlier run
        tell("measure", done, 22)
    assert said == [
        "measure: 2 of 22 units",
        "measure: 8 of 22 units, 0.5/s, 0:28 left",
        "measure: 22 of 22 units, 0.667/s (0:30)",
    ]
    assert terminal.clock(3723) == "1:02:03"


def test_progress_for_machines_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[dict[str, Any]] = []
    tell = terminal.Lines(lambda step: told.append(json.loads(json.dumps(step.describe()))), iter([0.0, 4.0]).__next__)
    tell("emit", 0, 8)
    tell("emit", 8, 8)
    assert told[-1] == {
        "phase": "emit",
        "done": 8,
        "total": 8,
        "unit": "shards",
        "seconds": 4.0,
        "rate": 2.0,
        "left": 0.0,
    }
    assert told[0]["rate"] is None
