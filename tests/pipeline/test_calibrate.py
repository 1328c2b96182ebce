from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.pipeline import calibrate, engine
from tuwen.pipeline.errors import InputError, RunError, UsageError
from tuwen.pipeline.recipe import load, parse
from tuwen.pipeline.replay import replay
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.score import Score

PLAIN = parse("name: plain\nstages: [normalise, decode, score]\n", "plain.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of the sample world with their captions beside them."""
    made = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(9)
    for i in range(60):
        scene = random_scene(rng)
        (made / f"{i:03}.jpg").write_bytes(encode(render(scene, 160), quality=85))
        (made / f"{i:03}.txt").write_text(caption(scene, rng), encoding="utf-8")
    return made


def test_an_input_gives_a_threshold_a_picture_and_a_line_that_a_recipe_takes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = json.loads(here("calibrate", folder, "-r", "photos", "-o", out, "--json").stdout)
    assert told == json.loads((out / "calibration.json").read_text("utf-8"))
    assert told["auc"] > 0.95 and told["separates"]
    assert told["threshold_interval"][0] <= told["threshold"] <= told["threshold_interval"][1]
    assert "only" in told["warnings"][-1], "60 pairs are few, and it says so"
    assert (out / "calibration.svg").read_text("utf-8").startswith("<svg")
    stage = parse(f"name: pasted\nstages:\n  {told['recipe_line']}\n", "pasted.yaml").stages[0]
    assert isinstance(stage, Score)
    assert (stage.scorer, stage.threshold) == ("embedded", told["threshold"])


def test_the_sample_is_bounded_seeded_and_independent_of_the_units(folder: Path) -> None:
    def keys(seed: int) -> list[float]:
        held = calibrate.from_input((str(folder),), PLAIN, None, 25, seed, {})
        assert held.told["sampled"] == 25
        return sorted(held.images[:, 0].tolist())

    assert keys(0) == keys(0)
    assert keys(0) != keys(1)


def test_a_run_is_calibrated_from_its_images_or_its_vectors(finished: Finished, tmp_path: Path) -> None:
    from_images = calibrate.find(calibrate.from_run(str(finished.run), None, 150, 0), 0.9, 0.5)
    assert from_images.calibration.pairs == 150
    assert from_images.calibration.auc > 0.85
    assert not from_images.gathered.notes, "all was measured, so what the score dropped is there as well"
    ledger = pl.read_parquet(finished.run / "ledger" / "*.parquet")
    expected = ledger.filter(pl.col("score").is_not_null())["score"].to_numpy()
    for value in from_images.scores.true[:20]:
        assert np.abs(expected - value).min() < 2e-4


def test_recorded_vectors_give_what_the_images_give(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: plain\nstages:\n  - normalise\n  - decode\n  - jpeg\n  - score: {embeddings: true, threshold: 0.6}\n"
    )
    here("run", folder, "-r", recipe, "-o", tmp_path / "run", "-j", "1")
    held = calibrate.from_run(str(tmp_path / "run"), None, 2000, 0)
    assert held.told["vectors"] == "recorded"
    found = calibrate.find(held, 0.9, 0.5)
    assert found.calibration.pairs == 60, "pairs that the threshold dropped are there too"
    ledger = pl.read_parquet(tmp_path / "run" / "ledger" / "*.parquet")
    assert sorted(ledger["score"].to_list()) == pytest.approx(sorted(found.scores.true.tolist()), abs=2e-3)
    # Vectors of another scorer are of no use; then the images of kept pairs are read, and it says what that means.
    plain = json.loads((tmp_path / "run" / "run.json").read_text())
    plain["recipe"]["stages"][-1]["embeddings"] = False
    (tmp_path / "run" / "run.json").write_text(json.dumps(plain))
    for part in (tmp_path / "run" / "ledger").glob("*.parquet"):
        nothing = pl.lit(None, dtype=pl.Binary)
        pl.read_parquet(part).with_columns(image_embedding=nothing, caption_embedding=nothing).write_parquet(part)
    again = calibrate.from_run(str(tmp_path / "run"), None, 2000, 0)
    assert again.told["vectors"] == "made"
    assert "the lowest true scores are missing" in again.notes[0]


def test_bad_input_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 20 are needed"):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "a.jpg").write_bytes((folder / "000.jpg").read_bytes())
        (tmp_path / "one" / "a.txt").write_text("一辆红色的汽车")
        calibrate.from_input((str(tmp_path / "one"),), load("photos"), None, 100, 0, {})
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(RunError, match="did not finish"):
        calibrate.from_run(str(tmp_path), None, 100, 0)
    held = calibrate.from_input((str(folder),), PLAIN, None, 30, 0, {})
    with pytest.raises(UsageError, match="--precision 95: expected a share"):
        calibrate.find(held, 95, 0.5)
    same = calibrate.Gathered("s", "s", held.images, held.captions, held.image, held.caption * 0, {"source": "x"})
    with pytest.raises(InputError, match="all captions are equal"):
        calibrate.find(same, 0.9, 0.5)
    assert here("calibrate", tmp_path / "nowhere", check=False).returncode == 3


def test_a_scorer_with_an_odd_path_makes_a_valid_line() -> None:
    line = calibrate.recipe_line("模型/a b: {c}", 0.25)
    stage = parse(f"name: x\nstages:\n  {line}\n", "x.yaml").stages[0]
    assert isinstance(stage, Score) and stage.scorer == "模型/a b: {c}"


RULES = (
    "name: rules\nstages:\n  - normalise\n  - decode\n  - jpeg\n"
    "  - score: {embeddings: true, threshold: %s, ceiling: %s}\n"
    "  - rank_rule: {block: 12, needs: %s}\n  - score_percentile: {best: %s}\n"
)


def test_a_replay_answers_every_decision_rule_as_a_run_would(folder: Path, tmp_path: Path) -> None:
    first, second = (parse(RULES % rule, "r.yaml") for rule in ((0.0, 1.0, "either", 0.9), (0.3, 0.68, "both", 0.4)))
    told = [
        engine.run(engine.RunConfig((str(folder),), str(tmp_path / name), workers=1), recipe)
        for name, recipe in (("first", first), ("second", second))
    ]
    again = replay(str(tmp_path / "first"), [], engine.RunConfig((), str(tmp_path / "again"), workers=1), second)
    assert again["counts"] == told[1]["counts"] != told[0]["counts"]
    columns = ["key", "status", "stage", "reason", "score_better", "rank_caption", "rank_image", "rank_block"]
    ledgers = [pl.read_parquet(tmp_path / n / "ledger" / "*.parquet").sort("key") for n in ("second", "again")]
    assert ledgers[0].select(columns).equals(ledgers[1].select(columns))
    reasons = set(ledgers[0]["reason"])
    assert {"below_percentile", "high_score"} <= reasons
