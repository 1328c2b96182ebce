"""What a slider shows is what a replay then gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.export.sliders import Control, controls, narrow, sliders
from tuwen.pipeline.comparisons import choices, comparisons
from tuwen.pipeline.ledger import scan_ledger
from tuwen.pipeline.recipe import Recipe, from_description, load, shipped
from tuwen.pipeline.registry import STAGES, stage_class
from tuwen.pipeline.relate import relate
from tuwen.pipeline.replay import rejudge
from tuwen.pipeline.stage import StageModel, threshold

SHOWN = controls(load("oppovl"))


@pytest.fixture(scope="module")
def recipe(finished: Finished) -> Recipe:
    return from_description(finished.told["recipe"])


@pytest.fixture(scope="module")
def shown(finished: Finished, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The page's sliders of the finished run, by name."""
    rows = narrow(scan_ledger(str(finished.run)), recipe, SHOWN)
    return {c["name"]: c for c in sliders(rows, recipe, finished.told, SHOWN)}


@pytest.fixture(scope="module")
def ledger(finished: Finished) -> pl.DataFrame:
    return scan_ledger(str(finished.run)).collect()


def some(control: dict[str, Any]) -> list[int]:
    """The stops at the ends, in force, and next to it."""
    last, now = len(control["stops"]) - 1, control["now"]
    return sorted({0, max(0, now - 1), now, min(last, now + 1), last // 2, last})


def changed(recipe: Recipe, control: dict[str, Any], value: Any) -> Recipe:
    stages = (
        type(s).model_validate({**s.model_dump(), control["field"]: value}) if s.name == control["stage"] else s
        for s in recipe.stages
    )
    return recipe.model_copy(update={"stages": tuple(stages)})


@pytest.mark.parametrize("name", [c.name for c in SHOWN if c.stage.phase == "measure"])
def test_a_measuring_sliders_count_is_the_replays(
    name: str, finished: Finished, recipe: Recipe, shown: dict[str, Any], ledger: pl.DataFrame
) -> None:
    if name not in shown:
        pytest.skip("the sample has no pair with this measure")
    control = shown[name]
    for i in some(control):
        again = rejudge(ledger, recipe, changed(recipe, control, control["stops"][i]), finished.told["dropped_too"])
        assert again["status"].null_count() == control["kept"][i], (name, control["stops"][i])
    assert control["final"][control["now"]] == finished.told["counts"]["kept"]


@pytest.mark.parametrize("name", [c.name for c in SHOWN if c.stage.phase == "relate"])
def test_a_relating_sliders_count_is_the_relate_phases(
    name: str, finished: Finished, recipe: Recipe, shown: dict[str, Any], tmp_path: Path
) -> None:
    control = shown[name]
    units = [u.name.removesuffix(".relate.parquet") for u in (finished.run / "parts").glob("*.relate.parquet")]
    parts = [str(finished.run / "parts" / f"{u}.parquet") for u in units]
    assert parts
    for i in some(control):
        stages = changed(recipe, control, control["stops"][i]).phase("relate")
        counted = relate(parts, stages, str(tmp_path)).stages[control["stage"]]
        assert counted["kept"] == control["kept"][i], (name, control["stops"][i])


def test_the_command_gives_the_count_too(finished: Finished, shown: dict[str, Any], tmp_path: Path) -> None:
    control = shown["score.threshold"]
    i = len(control["stops"]) * 3 // 4
    assert control["kept"][i] != control["kept"][control["now"]]
    words = ("--set", f"score.threshold={control['stops'][i]}", "--json")
    told = json.loads(here("replay", finished.run, "-o", tmp_path / "r", *words).stdout)
    assert told["stages"]["score"]["kept"] == control["kept"][i]
    assert told["counts"]["kept"] >= control["final"][i]


def test_what_a_run_measured_no_further_is_counted_apart(finished: Finished, recipe: Recipe) -> None:
    """Without --measure-all a loosened threshold lets pairs through that end as not_measured."""
    early = scan_ledger(str(finished.run)).with_columns(blocked=pl.lit(None, dtype=pl.String))
    told = finished.told | {"dropped_too": False}
    rows = narrow(early, recipe, SHOWN)
    control = next(c for c in sliders(rows, recipe, told, SHOWN) if c["name"] == "decode.shorter_side")
    assert control["unmeasured"][0] > 0 == control["unmeasured"][control["now"]]
    again = rejudge(early.collect(), recipe, changed(recipe, control, control["stops"][0]), dropped_too=False)
    assert (again["reason"] == "not_measured").sum() == control["unmeasured"][0]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_numeric_threshold_has_something_that_it_is_compared_with(name: str) -> None:
    """A stage whose reasons hide a comparison from the probe would have no slider."""
    stage = stage_class(name)()
    if name == "score":
        stage = stage.model_copy(update={"prompts": "default"})
    numbers = {
        f
        for f in stage.thresholds()
        if isinstance(getattr(stage, f), (int, float)) and not isinstance(getattr(stage, f), bool)
    }
    assert {c.field for c in comparisons(stage)} == numbers
    for c in comparisons(stage):
        assert c.columns
        assert c.reason in stage.reasons()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_recipe_has_its_thresholds(name: str) -> None:
    recipe = load(name)
    found = {c.name for c in controls(recipe)}
    for stage in recipe.stages:
        for field in stage.thresholds():
            value = getattr(stage, field)
            if isinstance(value, (int, float)) and stage.name != "score":
                assert f"{stage.name}.{field}" in found, name


class Ratio(StageModel):
    """A stage as a user may write it: a product, both signs, a switch."""

    name: ClassVar[str] = "ratio"
    wide: float = threshold(2.0, "width over height; more drops", ge=0, le=3)
    low: int = threshold(10, "pixels; at most so many drop", ge=0)
    strict: bool = threshold(False, "drop where the height is unknown")

    def reasons(self) -> dict[str, pl.Expr]:
        return {
            "too_wide": pl.col("width") > pl.col("height") * self.wide,
            "too_low": pl.lit(self.low > 0) & (pl.col("height") <= self.low),
            "unknown": pl.lit(self.strict) & pl.col("height").is_null(),
        }


def test_a_stage_of_ones_own_is_understood() -> None:
    found = {c.field: c for c in comparisons(Ratio())}
    assert {f: (c.sign, c.columns, c.reason) for f, c in found.items()} == {
        "wide": (">", ("width", "height"), "too_wide"),
        "low": ("<=", ("height",), "too_low"),
    }
    rows = pl.DataFrame({"width": [30, 10], "height": [10, 40]})
    assert rows.select(found["wide"].value).to_series().to_list() == [3.0, 0.25]
    assert rows.select(found["low"].drops()).to_series().to_list() == [True, False]
    assert choices(Ratio(), "strict") == [False, True]
    assert choices(Ratio(), "low") is None


def test_stops_are_values_that_the_field_allows(finished: Finished, shown: dict[str, Any], recipe: Recipe) -> None:
    for control in shown.values():
        assert control["stops"] == sorted(control["stops"]) or not isinstance(control["stops"][0], (int, float))
        for value in control["stops"]:
            changed(recipe, control, value)


def test_a_control_knows_its_columns() -> None:
    held = {c.name: c for c in SHOWN}
    assert isinstance(held["score.threshold"], Control)
    assert held["length.max_repetition"].roots == ("distinct_chars", "repetition", "has_noun")
    assert held["sensitive.drop"].switch == (False, True)
