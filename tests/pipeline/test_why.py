"""A pair's story: what decided, and what would have kept it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.pipeline.comparisons import drops_with
from tuwen.pipeline.ledger import scan_ledger
from tuwen.pipeline.recipe import from_description
from tuwen.pipeline.remedies import first_drop, remedies, with_columns_for
from tuwen.pipeline.why import find, stories
from tuwen.pipeline.why_text import marked, page


@pytest.fixture(scope="module")
def ledger(finished: Finished) -> pl.DataFrame:
    return scan_ledger(str(finished.run)).collect()


def one(ledger: pl.DataFrame, reason: str | None) -> dict[str, Any]:
    """The first pair that ended for a reason and shares its key with no other."""
    rows = ledger.filter(pl.col("reason").eq_missing(pl.lit(reason)), ~pl.col("key").is_duplicated()).sort("key")
    return rows.row(0, named=True)


def test_every_remedy_really_lets_the_pair_through_its_stage(finished: Finished, ledger: pl.DataFrame) -> None:
    described = finished.told["recipe"]
    recipe = from_description(described)
    tried = 0
    dropped = ledger.filter(pl.col("status") == "dropped").sort("key").group_by("reason", maintain_order=True).head(2)
    for row in dropped.iter_slices(1):
        stage = next((s for s in recipe.stages if s.name == row["stage"].item()), None)
        if stage is None:
            continue
        full = with_columns_for(row, recipe.stages)
        assert full.select(drops_with(stage)).item()
        for change in remedies(stage, full):
            tried += 1
            other = from_description(described, change.split(" --set "))
            again = next(s for s in other.stages if s.name == stage.name)
            assert not full.select(drops_with(again)).item(), change
    assert tried >= 8


def test_a_dropped_pairs_page(finished: Finished, ledger: pl.DataFrame) -> None:
    small = one(ledger, "image_too_small")
    told = here("why", finished.run, small["key"]).stdout
    side = min(small["width"], small["height"])
    for words in (
        "dropped by decode, reason image_too_small: the image is too small",
        f"--set decode.shorter_side={side}",
        f"drops: width, height {side} < 100 (decode.shorter_side)",
        "passes: width / height 1 ≤ 3 (decode.max_aspect)",
        "not shipped",
    ):
        assert words in told
    word = page(stories(str(finished.run), one(ledger, "sensitive_word")["key"])[0])
    assert "⟦" in word.split("caption_raw: ")[1].splitlines()[0]
    assert "--set sensitive.drop=false" in word
    foreign = page(stories(str(finished.run), one(ledger, "not_chinese")["key"])[0])
    assert "--set language." in foreign


def test_a_failed_pair_says_whether_it_may_come_another_day(finished: Finished, ledger: pl.DataFrame) -> None:
    assert "curate retry RUN" in page(stories(str(finished.run), one(ledger, "fetch_http_500")["key"])[0])
    gone = page(stories(str(finished.run), one(ledger, "fetch_http_404")["key"])[0])
    assert "curate retry" not in gone
    assert "fetch  <- fetch_http_404" in gone


def test_a_duplicate_names_the_pair_that_stays(finished: Finished, ledger: pl.DataFrame) -> None:
    row = one(ledger, "pair_duplicate")
    story = stories(str(finished.run), row["key"])[0]
    stays = ledger.filter(pl.col("key") == row["duplicate_of"]).row(0, named=True)
    assert story["duplicate_of"]["key"] == stays["key"]
    assert story["duplicate_of"]["caption_raw"] == stays["caption_raw"]
    assert f"the pair that stays (pair): {stays['key']}" in page(story)
    same = ledger.filter(pl.col("reason") == "same_pair").row(0, named=True)
    told = [s for s in stories(str(finished.run), same["key"]) if s["reason"] == "same_pair"]
    assert told[0]["duplicate_of"]["origin"] != same["origin"]


def test_pairs_are_found_by_url_and_by_words_of_every_kind(finished: Finished, ledger: pl.DataFrame) -> None:
    lazy = scan_ledger(str(finished.run))
    kept = ledger.filter(pl.col("caption_synthetic").is_not_null()).row(0, named=True)
    assert kept["key"] in find(lazy, kept["image_url"])["key"]
    assert kept["key"] in find(lazy, kept["caption_raw"])["key"]
    assert kept["key"] in find(lazy, kept["caption_synthetic"])["key"]
    negative = ledger.filter(pl.col("negatives").list.len() > 0).row(0, named=True)
    assert negative["key"] in find(lazy, negative["negatives"][0]["caption"])["key"]
    told = json.loads(here("why", finished.run, kept["image_url"], "--json").stdout)
    assert told[0]["shard"] == kept["shard"]
    assert f"synthetic caption\n  {kept['caption_synthetic']}" in page(told[0])


def test_a_question_that_means_too_many_lists_some(finished: Finished) -> None:
    told = here("why", finished.run, "的", check=False)
    assert told.returncode == 3
    assert "give more of it, or one of these keys:" in told.stderr


def test_without_measure_all_the_story_ends_where_measuring_did(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "ledger").symlink_to(finished.run / "ledger")
    (tmp_path / "run.json").write_text(json.dumps(finished.told | {"dropped_too": False}))
    key = one(scan_ledger(str(tmp_path)).collect(), "image_too_small")["key"]
    assert "a run with --measure-all knows" in page(stories(str(tmp_path), key)[0])


def test_the_first_stage_that_drops_is_named(finished: Finished, ledger: pl.DataFrame) -> None:
    recipe = from_description(finished.told["recipe"])
    row = with_columns_for(ledger.filter(pl.col("reason") == "low_score").head(1), recipe.stages)
    found = first_drop(recipe.phase("measure"), row)
    assert found is not None
    assert (found[0].name, found[1]) == ("score", "low_score")


def test_spans_stand_in_brackets() -> None:
    spans = [{"start": 2, "end": 4}, {"start": 3, "end": 4}, {"start": 0, "end": 1}]
    assert marked("甲乙丙丁戊", spans) == "⟦甲⟧乙⟦丙丁⟧戊"
