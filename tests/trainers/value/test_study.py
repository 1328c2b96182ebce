from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.pipeline.errors import UsageError
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.trainers.value.page import page
from tuwen.trainers.value.questions import External, external
from tuwen.trainers.value.split import TIES
from tuwen.trainers.value.subsets import Verdicts


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The finished run, to write into."""
    return Path(shutil.copytree(finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("shards")))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs to evaluate on, as a folder of images with captions."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rng = np.random.default_rng(77)
    for i in range(80):
        scene = random_scene(rng)
        (folder / f"{i}.jpg").write_bytes(encode(render(scene, 96)))
        (folder / f"{i}.txt").write_text(caption(scene, rng), "utf-8")
    return folder


def test_the_command_tells_what_the_data_is_worth(finished: Finished, copied: Path, elsewhere: Path) -> None:
    given = ("value", copied, "--truth", finished.sample / "labels.jsonl", "--eval", elsewhere, "--steps", "2")
    words = (*given, "--batch", "16", "--seeds", "2", "--part", "main", "--part", "stages")
    told = json.loads(here(*words, "--json").stdout)
    assert [a["arm"] for a in told["main"]["arms"]] == ["raw", "raw, as few", "mended", "curated", "oracle"]
    assert told["main"]["verdict"].startswith("INVALID")  # two steps teach nothing, and it says so
    score = next(s for s in told["stages"] if s["stage"] == "score")
    assert score["leave_out"]["random"]["pairs"] == told["main"]["arms"][3]["pairs"]
    assert score["planted_share"] > 0.8 and score["seconds"] > 0
    written = (copied / "value.html").read_text("utf-8")
    assert not re.search(r'(src|href)="http', written) and "prefers-color-scheme:dark" in written
    assert json.loads((copied / "value.json").read_text("utf-8")) == told
    assert '"worth":{"samples":32,' in (copied / "report.html").read_text("utf-8")  # the report was written anew
    before = {p.name: p.stat().st_mtime_ns for p in (copied / "value-points").iterdir()}
    printed = here(*words).stdout  # nothing is trained again
    assert {p.name: p.stat().st_mtime_ns for p in (copied / "value-points").iterdir()} == before
    assert "curated better by" in printed and "INVALID" in printed
    refused = here(*words, "--part", "stage", check=False)
    assert refused.returncode == 2 and "--part stage: expected some of main, sizes, stages, style" in refused.stderr


def test_too_few_questions_are_an_error_that_says_what_to_do(copied: Path) -> None:
    refused = here("value", copied, check=False)
    assert refused.returncode == 2
    assert re.search(r"\d+ held-out pairs to evaluate on; at least 50 are needed.*split.test", refused.stderr, re.S)


def test_pairs_from_elsewhere_that_are_trained_on_are_not_asked(verdicts: Verdicts, elsewhere: Path) -> None:
    outside = external(str(elsewhere), 32)
    trainable = verdicts.as_kept
    assert len(outside.apart_from(verdicts.rows, trainable, TIES, 999).images) > 50
    one = verdicts.rows.filter(pl.Series(trainable))["caption"][0]
    known = outside.rows.with_columns(
        caption_raw=pl.when(pl.int_range(pl.len()) < 9).then(pl.lit(one)).otherwise("caption_raw")
    )
    asked = External("x", known, outside.pixels).apart_from(verdicts.rows, trainable, TIES, 999)
    assert one not in asked.captions["original"]
    same = outside.rows.with_columns(phash=pl.lit(verdicts.rows.filter(pl.Series(trainable))["phash"][0], pl.UInt64))
    with pytest.raises(UsageError, match="0 of its 80 pairs"):
        External("x", same, outside.pixels).apart_from(verdicts.rows, trainable, TIES, 999)


def test_the_page_escapes_what_came_from_elsewhere() -> None:
    gain = {"mean": 0.1, "spread": 0.01, "low": 0.05, "high": 0.15, "verdict": "gain"}
    evil = "<script>alert(1)</script>"
    arm = {"arm": evil, "pairs": 10, "r1": 0.1, "r1_by_seed": [0.1], "r5": 0.2, "median_rank": 3.0}
    told = {
        "settings": {"steps": 1, "batch": 2, "seeds": 1},
        "samples_seen": 2,
        "questions": 50,
        "chance": 0.02,
        "ties": ["image"],
        "held_out": 5,
        "notes": [evil],
        "main": {
            "arms": [arm],
            "curated_less": {evil: gain},
            "ceiling_less_raw": gain,
            "ratio": 2.0,
            "pairs_share": 0.4,
            "verdict": "gain",
        },
        "stages": [
            {
                "stage": evil,
                "dropped_alone": 3,
                "only_it_drops": 2,
                "seconds": None,
                "leave_out": {"gain": gain, "over_random": gain},
            }
        ],
        "sizes": {
            "curves": {evil: [arm, {**arm, "pairs": 20}]},
            "pairs_to_match_raw": 5,
            "at_most": True,
            "raw_pairs": 9,
        },
        "diversity": {"sets": [{"arm": evil, "pairs": 3}], "concepts_of": evil, "scores": {}},
    }
    made = page(told)
    assert "<script" not in made
    assert made.count("&lt;script&gt;") >= 6
