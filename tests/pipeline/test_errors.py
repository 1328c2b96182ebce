"""What the command line says when something is wrong: what was given, what was expected, what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished, here

TABLE = '{"url": "http://a.invalid/x.jpg", "caption": "红色的车停在路边"}\n'

RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "yaml": ("name: [a\n", ("not valid YAML",)),
    "list": ("- normalise\n", ("a recipe is a mapping with the keys name, stages, shards",)),
    "key": ("name: a\nstage: []\n", (":2: unknown key 'stage'", "Did you mean 'stages'?")),
    "no stages": ("name: a\nstages: 3\n", ("stages must be a list of stage names",)),
    "item": ("name: a\nstages:\n  - [1]\n", ("expected a stage's name, or its name with its fields under it",)),
    "stage": ("name: a\nstages:\n  - normalize\n", (":3: no stage is named 'normalize'", "'normalise'")),
    "fields": ("name: a\nstages:\n  - length: 3\n", ("length: given 3", "expected fields as `field: value` lines")),
    "field": ("name: a\nstages:\n  - length:\n      shortes: 3\n", (":4: length.shortes: no such field", "'shortest'")),
    "value": ("name: a\nstages:\n  - length:\n      shortest: x\n", (":4: length.shortest: given 'x'", "characters")),
    "twice": ("name: a\nstages:\n  - normalise\n  - normalise\n", ("stands twice (first on line 3)",)),
    "order": ("name: a\nstages:\n  - split\n  - length\n", ("belongs to the measure phase", "the order is measure")),
    "shards": (
        "name: a\nstages:\n  - normalise\nshards:\n  samples: 0\n",
        ("shards.samples: given 0", "samples per shard"),
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_recipe(name: str, tmp_path: Path) -> None:
    text, words = RECIPES[name]
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "in.jsonl").write_text(TABLE)
    told = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "o", "-r", tmp_path / "mine.yaml", check=False)
    assert told.returncode == 2, told.stderr
    assert "mine.yaml" in told.stderr
    for word in words:
        assert word in told.stderr


SETS: dict[str, tuple[str, ...]] = {
    "score": ("expected stage.field=value, e.g. --set score.threshold=0.28",),
    "scor.threshold=1": ("'scor' is not in this recipe", "Did you mean 'score'?"),
    "score.threshhold=1": ("no such field", "Did you mean 'threshold'?"),
    "decode.shorter_side=0": ("decode.shorter_side: given 0", "greater than or equal to 1"),
    "shards.samples=none": ("shards.samples: given 'none'",),
    "image_safety.detector=onnx:/nowhere.onnx": ("no file at '/nowhere.onnx'", "expected onnx:PATH of a classifier"),
    "image_safety.detector=perfect": ("expected one of: sample, none, nudenet, onnx:PATH",),
    "image_safety.blocklist=/nowhere.txt": ("image_safety.blocklist: no file at '/nowhere.txt'",),
    "score.prompts=/nowhere.txt": ("score.prompts: no file at '/nowhere.txt'", "'class: prompt' lines"),
    "sensitive.lexicons=[/nowhere.txt]": (
        "lexicon '/nowhere.txt' is no file; give a .txt, .csv or .yaml, or 'default'",
    ),
    "score.scorer=/nowhere": ("scorer '/nowhere' is neither 'embedded', nor a folder, nor an open_clip model",),
    "score.scorer=ViT-B-23/x": ("did you mean ViT-B-32",),
}


@pytest.mark.parametrize("change", SETS)
def test_a_wrong_change(change: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(TABLE)
    told = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "o", "--set", change, check=False)
    assert told.returncode == 2, told.stderr
    assert "Traceback" not in told.stderr
    for word in SETS[change]:
        assert word in told.stderr
    assert not (tmp_path / "o" / "run.json").exists()


def test_wrong_lines_in_lists_are_named(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(TABLE)
    blocked, prompts, classes = tmp_path / "b.txt", tmp_path / "p.txt", tmp_path / "c.txt"
    blocked.write_text("ff00\nxyz\n")
    prompts.write_text("safe: 一张风景照片\nnothing\n")
    classes.write_text("safe: 一张风景照片\n")
    for change, word in (
        (f"image_safety.blocklist={blocked}", f"{blocked}:2: given 'xyz'; expected up to 16 hex digits"),
        (f"score.prompts={prompts}", f"{prompts}:2: given 'nothing'; expected 'class: prompt'"),
        (f"score.prompts={classes}", "expected 'safe' and at least one unsafe class"),
    ):
        told = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "o", "--set", change, check=False)
        assert (told.returncode, word in told.stderr) == (2, True), told.stderr


def inputs(folder: Path) -> dict[str, tuple[list[Any], int, tuple[str, ...]]]:
    """Command lines on inputs that are wrong: words, exit code, what must be said."""
    (folder / "in.jsonl").write_text(TABLE)
    (folder / "empty.jsonl").write_text("")
    (folder / "strange.bin").write_bytes(b"\x00\x01\x02\x03" * 50)
    (folder / "latin.txt").write_bytes("脏话".encode("gbk"))
    (folder / "file").write_text("x")
    (folder / "mine").mkdir()
    (folder / "mine" / "a.txt").write_text("x")
    table, out = folder / "in.jsonl", folder / "o"
    run = ["run", table, "-o", out]
    crawl = ["crawl", "http://a.cn/", "-o", out, "--contact", "a@b.cn"]
    return {
        "no pairs": (["run", folder / "empty.jsonl", "-o", out], 3, ("the file is empty; expected",)),
        "unknown kind": (["run", folder / "strange.bin", "-o", out], 3, ("cannot tell what this file is",)),
        "no URL scheme": (["run", "nope://x/y", "-o", out], 3, ("expected a local path or a URL that fsspec knows",)),
        "option": ([*run, "--input", "captions=a"], 2, ("--input captions=…: no such option", "'caption'?")),
        "option form": ([*run, "--input", "caption"], 2, ("expected name=value, e.g. --input caption=title",)),
        "no input": (["run", "-o", out, "--", "--runner=x"], 2, ("no INPUT given before the Beam options",)),
        "recipe name": ([*run, "-r", "opovl"], 2, ("neither a file nor a shipped recipe", "Did you mean 'oppovl'?")),
        "text stage": (["text", table, "-o", "-", "--stage", "lenght"], 2, ("no such stage", "Did you mean 'length'?")),
        "image stage": (["text", table, "-o", "-", "--stage", "decode"], 2, ("does not look at one caption alone",)),
        "text option": (["text", table, "-o", "-", "--input", "image=a"], 2, ("only caption=COLUMN is known here",)),
        "lexicon code": (["lexicon", "check", folder / "latin.txt"], 3, ("save the lexicon as UTF-8",)),
        "resolve": ([*crawl, "--resolve", "a.cn"], 2, ("expected HOST=ADDRESS",)),
        "sample folder": (["sample", folder / "mine"], 2, ("is not empty and holds no sample",)),
        "stage": (["stages", "scor"], 2, ("no stage is named 'scor'", "Did you mean 'score'?")),
        "no run": (["report", folder / "mine"], 3, ("holds no run.json; expected a finished run directory",)),
        "no run to compare": (["report", folder / "mine", "--against", out], 3, ("holds no run.json",)),
        "no run to replay": (["replay", folder / "mine", "-o", out], 3, ("holds no run.json",)),
        "no run to retry": (["retry", folder / "mine"], 3, ("holds no run.json",)),
        "no run to ask": (["why", folder / "mine", "abc"], 3, ("holds no run.json",)),
        "nothing to remove": (["remove", folder / "mine"], 2, ("give a file with --urls, --keys or --sha256",)),
        "no list": (["remove", folder / "mine", "--keys", folder / "x"], 3, ("is no file; expected a text file",)),
        "nothing to look at": (["init", folder / "empty.jsonl", "-o", folder / "r.yaml"], 3, ("the file is empty",)),
        "recipe there": (["init", table, "-o", folder / "file"], 2, ("is there already", "--force")),
    }  # fmt: skip


NAMES = (
    *("no pairs", "unknown kind", "no URL scheme", "option", "option form", "no input", "recipe name", "text stage"),
    *("image stage", "text option", "lexicon code", "resolve", "sample folder", "stage", "no run", "no run to compare"),
    *("no run to replay", "no run to retry", "no run to ask", "nothing to remove", "no list", "nothing to look at"),
    "recipe there",
)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_words(name: str, tmp_path: Path) -> None:
    words, code, said = inputs(tmp_path)[name]
    told = here(*words, check=False)
    assert told.returncode == code, told.stderr
    for word in said:
        assert word in told.stderr
    assert "Traceback" not in told.stderr


def test_a_folder_with_another_run_says_what_changed(finished: Finished, tmp_path: Path) -> None:
    plan = json.loads((finished.run / "plan.json").read_text())
    plan["recipe"]["stages"] = [s for s in plan["recipe"]["stages"] if s["name"] != "jpeg"]
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "in.jsonl").write_text(TABLE)
    told = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "o", check=False)
    assert told.returncode == 2
    for word in ("holds a run of something else", "stage jpeg added", "--fresh to start over"):
        assert word in told.stderr


def test_a_calibration_of_a_run_that_never_ended(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "plan.json").write_text((finished.run / "plan.json").read_text())
    told = here("calibrate", tmp_path / "r", check=False)
    assert told.returncode in (1, 3)
    assert "Traceback" not in told.stderr
