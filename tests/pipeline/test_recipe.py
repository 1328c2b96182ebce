from __future__ import annotations

import pytest

from tuwen.pipeline.errors import RecipeError, UsageError
from tuwen.pipeline.recipe import from_description, load, parse, shipped

GOOD = """\
name: mine
stages:
  - normalise
  - length:
      shortest: 3
  - score
"""


def test_a_recipe_is_read_and_changed() -> None:
    recipe = parse(GOOD, "mine.yaml", ["length.longest=50", "score.threshold=0.28", "shards.samples=10"])
    assert [s.name for s in recipe.stages] == ["normalise", "length", "score"]
    assert recipe.stages[1].model_dump()["shortest"] == 3
    assert recipe.stages[1].model_dump()["longest"] == 50
    assert recipe.stages[2].model_dump()["threshold"] == 0.28
    assert recipe.shards.samples == 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nstages:\n  - normalize\n", ["x.yaml:3", "'normalize'", "Did you mean 'normalise'"]),
        (
            "name: x\nstages:\n  - length:\n      shortes: 3\n",
            ["x.yaml:4", "length.shortes", "Did you mean 'shortest'"],
        ),
        (
            "name: x\nstages:\n  - score:\n      threshold: 7\n",
            ["x.yaml:4", "score.threshold", "given 7", "less than or equal to 1"],
        ),
        ("name: x\nstages:\n  - length:\n      shortest: many\n", ["x.yaml:4", "given 'many'", "valid integer"]),
        ("name: x\nstags: []\n", ["x.yaml:2", "unknown key 'stags'", "Did you mean 'stages'"]),
        ("name: x\nstages: 3\n", ["x.yaml:2", "list of stage names"]),
        ("name: x\nstages:\n  - [a]\n", ["x.yaml:3", "expected a stage's name"]),
        ("name: [\n", ["x.yaml:", "not valid YAML"]),
        ("name: x\nstages:\n  - split\n  - length\n", ["x.yaml:4", "measure phase", "order"]),
        ("name: x\nstages:\n  - length\n  - length\n", ["x.yaml:4", "stands twice", "line 3"]),
        ("name: x\nstages: [length]\nshards:\n  samples: 0\n", ["shards.samples", "given 0"]),
    ],
)
def test_errors_name_place_value_and_way_out(text: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as raised:
        parse(text, "x.yaml")
    for word in words:
        assert word in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("threshold=1", "expected stage.field=value"),
        ("names.placeholder=x", "not in this recipe"),
        ("score.treshold=0.3", "Did you mean 'threshold'"),
    ],
)
def test_wrong_changes_are_refused(change: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(GOOD, "mine.yaml", [change])


def test_the_hash_follows_what_enters_the_result_and_nothing_else() -> None:
    base = parse(GOOD, "a.yaml").hash
    assert parse(GOOD.replace("mine", "other"), "b.yaml").hash == base
    assert parse(GOOD, "a.yaml", ["score.threads=3"]).hash == base
    assert parse(GOOD, "a.yaml", ["score.threshold=0.2"]).hash != base
    assert parse(GOOD, "a.yaml", ["shards.samples=7"]).hash != base


def test_shipped_recipes_hold_and_name_their_source() -> None:
    assert {"oppovl", "photos", "wukong", "laion", "danqing"} <= set(shipped())
    for name in shipped():
        recipe = load(name)
        assert recipe.name == name
        assert recipe.source
        assert from_description(recipe.describe(operational=True)).hash == recipe.hash


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'oppovl'"):
        load("oppovI")
