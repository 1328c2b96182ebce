from __future__ import annotations

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
from tuwen.trainers.value.arms import Arms, Truth
from tuwen.trainers.value.pixels import check, gather
from tuwen.trainers.value.subsets import Verdicts


def test_the_whole_recipe_gives_the_runs_own_verdicts(verdicts: Verdicts) -> None:
    again = verdicts.under(verdicts.recipe.stages)
    assert (again.kept == verdicts.as_kept).all()
    shipped = verdicts.rows["caption"].filter(pl.Series(verdicts.as_kept))
    assert again.captions.filter(pl.Series(again.kept)).equals(shipped, null_equal=True)


def test_leaving_a_stage_out_is_what_a_replay_without_it_keeps(
    verdicts: Verdicts, finished: Finished, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    names = [s.name for s in verdicts.recipe.stages if s.name not in ("score", "synthetic_captions", "hard_negatives")]
    recipe.write_text("name: less\nstages:\n" + "".join(f"  - {n}\n" for n in names))
    here("replay", finished.run, "-o", tmp_path / "out", "-r", recipe)
    ledger = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet").sort("unit", "ordinal")
    ours = verdicts.without("score")
    assert (ours.kept == (ledger["status"] == "kept").to_numpy()).all()
    assert ours.kept.sum() > verdicts.as_kept.sum()


def test_a_stage_alone_drops_what_its_own_reasons_say(verdicts: Verdicts) -> None:
    kept = verdicts.alone("score").kept
    score = next(s for s in verdicts.recipe.stages if s.name == "score")
    low = verdicts.rows.select(pl.any_horizontal(*score.reasons().values()).fill_null(False)).to_series().to_numpy()
    seen = verdicts.rows["score"].is_not_null().to_numpy()
    assert (kept[seen] == ~low[seen]).all()
    assert 0 < low.sum() < len(low)


def test_a_run_that_measured_no_further_cannot_answer(finished: Finished) -> None:
    made = Verdicts.of(str(finished.run))
    short = Verdicts(made.rows, made.recipe, {**made.told, "dropped_too": False})
    with pytest.raises(UsageError, match="--measure-all"):
        short.without("score")


def test_pictures_of_dropped_pairs_come_from_the_parts(finished: Finished, verdicts: Verdicts) -> None:
    pixels, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    assert found[verdicts.as_kept].all()
    dropped = (verdicts.rows["reason"] == "low_score").fill_null(False).to_numpy()
    assert found[dropped].all()
    assert pixels[dropped].std() > 10
    assert not found[(verdicts.rows["status"] == "failed").to_numpy()].any()
    assert check(verdicts.rows, found) == 0


def test_pictures_that_are_gone_are_an_error_that_says_what_keeps_them(finished: Finished, tmp_path: Path) -> None:
    for name in ("ledger", "shards"):
        shutil.copytree(finished.run / name, tmp_path / name)
    made = Verdicts.of(str(finished.run))
    _, found = gather(str(tmp_path), made.rows, made.told, 32)
    assert found.sum() == made.as_kept.sum()  # the shards still have those
    with pytest.raises(UsageError, match=r"are gone: .*--measure-all"):
        check(made.rows, found)


def test_pictures_come_from_the_input_again_where_it_holds_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        scene = random_scene(rng)
        (folder / f"{i}.jpg").write_bytes(encode(render(scene, 128 if i % 2 else 64)))  # every other one too small
        (folder / f"{i}.txt").write_text(caption(scene, rng), "utf-8")
    here("run", folder, "-o", tmp_path / "run", "-r", "images", "--json", "-j", "1")
    made = Verdicts.of(str(tmp_path / "run"))
    assert 0 < made.as_kept.sum() < 8 and not made.all_measured
    _, found = gather(str(tmp_path / "run"), made.rows, made.told, 32)
    assert found.all()
    assert check(made.rows, found) == 0


def test_controls_have_the_size_of_what_they_stand_beside(finished: Finished, verdicts: Verdicts) -> None:
    truth = Truth.read(str(finished.sample / "labels.jsonl"), verdicts.rows)
    _, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    arms = Arms(verdicts, found, truth)
    assert arms.oracle is not None
    assert arms.curated.pairs == arms.small.pairs < arms.raw.pairs
    stage = arms.stage("score")
    assert stage.without and stage.without_control and stage.only and stage.only_control
    assert stage.without.pairs == arms.curated.pairs + stage.lone.sum()
    assert stage.without_control.pairs == arms.curated.pairs
    assert stage.only.pairs == stage.only_control.pairs == arms.raw.pairs - stage.dropped
    assert (~truth.right)[stage.lone].mean() > 0.8  # what only the score drops is mostly planted
    one, two = stage.only_control.drawn(0), stage.only_control.drawn(1)
    assert len(one[0]) == len(one[1]) == stage.only_control.pairs
    assert one[0].tolist() == stage.only_control.drawn(0)[0].tolist() != two[0].tolist()
    assert set(one[0]) <= set(arms.raw.rows)
    quiet = arms.stage("rank_rule") if "rank_rule" in verdicts.filters() else arms.stage("sensitive")
    assert quiet.lone.sum() >= 0.02 * arms.curated.pairs or quiet.without is None


def test_raw_trains_on_captions_as_found_and_mended_on_those_that_ship(finished: Finished, verdicts: Verdicts) -> None:
    _, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    arms = Arms(verdicts, found)
    assert arms.raw.rows.tolist() == arms.mended.rows.tolist()
    changed = [(a, b) for a, b in zip(arms.raw.captions, arms.mended.captions, strict=True) if a != b]
    assert any("视觉中国" in a and "视觉中国" not in b for a, b in changed)
    styles = {a.name: a for a in arms.styles()}
    assert styles["both"].pairs == 2 * styles["original"].pairs == 2 * styles["synthetic"].pairs
    assert styles["synthetic"].captions != styles["original"].captions
