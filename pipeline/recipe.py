"""Recipes: the stages in order, with their thresholds, read from YAML.

Every error names file, line, field, the value given, what is allowed and the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from .errors import RecipeError, nearest
from .registry import STAGES, spec, stage_class
from .stage import StageModel


class Shards(BaseModel):
    """How kept pairs are laid into shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(1000, ge=1, description="samples per shard, on average (img2dataset's default is 10,000)")
    seed: int = Field(0, description="key of the hash that places a sample in a shard")


class Recipe(BaseModel):
    """A named list of stages and the layout of the shards."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str
    about: str = ""
    source: str = ""
    stages: tuple[StageModel, ...]
    shards: Shards = Shards()

    def phase(self, phase: str) -> list[StageModel]:
        """The stages of one phase, in order, each knowing those it runs among."""
        return [s.among(self.stages) for s in self.stages if s.phase == phase]

    def describe(self, operational: bool = False) -> dict[str, Any]:
        """The recipe as plain values; fields that change nothing in the result only on request."""
        stages = []
        for stage in self.stages:
            hidden = set() if operational else set(stage.operational())
            stages.append({"name": spec(stage), **stage.model_dump(mode="json", exclude=hidden)})
        return {"name": self.name, "stages": stages, "shards": self.shards.model_dump()}

    @property
    def hash(self) -> str:
        """16 hex digits over all that enters the result: stages, fields, models and lexicons, layout."""
        described = {k: v for k, v in self.describe().items() if k != "name"}
        described["resources"] = [dict(s.resources()) for s in self.stages]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def shipped() -> dict[str, str]:
    """Names of the recipes that ship with the package, with their YAML text."""
    folder = package_files(__package__) / "recipes"
    return {p.name.removesuffix(".yaml"): p.read_text("utf-8") for p in folder.iterdir() if p.name.endswith(".yaml")}


def load(name_or_path: str, sets: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name or one from a file, with ``stage.field=value`` changes applied."""
    path = Path(name_or_path)
    if path.is_file():
        text = path.read_text("utf-8")
    elif name_or_path in shipped():
        text = shipped()[name_or_path]
    else:
        raise RecipeError(
            f"recipe {name_or_path!r} is neither a file nor a shipped recipe; {nearest(name_or_path, shipped())}"
        )
    return parse(text, str(path) if path.is_file() else f"recipes/{name_or_path}.yaml", sets)


def parse(text: str, file: str, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML; ``file`` is its name in error messages."""
    try:
        document = YAML(typ="rt").load(StringIO(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(document, CommentedMap):
        raise RecipeError(f"{file}:1: a recipe is a mapping with the keys name, stages, shards")
    for key in document:
        if key not in Recipe.model_fields:
            raise RecipeError(
                f"{file}:{_line(document, key)}: unknown key {key!r}; {nearest(key, Recipe.model_fields)}"
            )
    if not isinstance(document.get("stages"), CommentedSeq):
        raise RecipeError(f"{file}:{_line(document, 'stages')}: stages must be a list of stage names")
    entries = [_entry(file, document["stages"], i) for i in range(len(document["stages"]))]
    _apply_sets(entries, sets, document)
    stages = tuple(_stage(file, name, fields, line) for name, fields, line in entries)
    _check_order(file, stages, [line for _, _, line in entries])
    plain = {k: v for k, v in document.items() if k not in ("stages", "shards")}
    layout = document.get("shards") or CommentedMap()
    try:
        shards = Shards(**layout)
    except ValidationError as error:
        raise RecipeError(_explain(file, "shards", layout, _line(document, "shards"), error, Shards)) from None
    return Recipe(stages=stages, shards=shards, **plain)


def from_description(described: Mapping[str, Any], sets: Sequence[str] = ()) -> Recipe:
    """The recipe that a run.json holds, with ``stage.field=value`` changes applied."""
    stages = [{s["name"]: {k: v for k, v in s.items() if k != "name"}} for s in described["stages"]]
    document = {"name": described["name"], "stages": stages, "shards": described["shards"]}
    document |= {k: described[k] for k in ("about", "source") if described.get(k)}
    text = StringIO()
    YAML(typ="rt").dump(document, text)
    return parse(text.getvalue(), "run.json", sets)


def with_removed(recipe: Recipe, lists: Sequence[str]) -> Recipe:
    """``recipe`` with the stages that keep out what ``lists`` say was taken down: before the fetch, after decoding."""
    from ..filters.removed import RemovedImages, RemovedPairs

    early, late = RemovedPairs(lists=tuple(lists)), RemovedImages(lists=tuple(lists))
    stages: list[StageModel] = []
    for stage in recipe.stages:
        if stage.on_images and early not in stages:
            stages.append(early)
        stages.append(stage)
        if stage.name == "decode":
            stages.append(late)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _line(node: CommentedMap, key: Any) -> int:
    position = node.lc.data.get(key) if node.lc.data else None
    return int(position[0] if position else node.lc.line) + 1


def _entry(file: str, stages: CommentedSeq, i: int) -> tuple[str, CommentedMap, int]:
    """One item of ``stages``: its name, fields and line. Either ``- name`` or ``- name: {fields}``."""
    item, line = stages[i], stages.lc.item(i)[0] + 1
    if isinstance(item, str):
        name, fields = item, CommentedMap()
    elif isinstance(item, CommentedMap) and len(item) == 1:
        name, fields = next(iter(item.items()))
        fields = CommentedMap() if fields is None else fields
    else:
        raise RecipeError(
            f"{file}:{line}: given {item!r}; expected a stage's name, or its name with its fields under it"
        )
    if name not in STAGES and ":" not in name:
        raise RecipeError(f"{file}:{line}: no stage is named {name!r}; {nearest(name, STAGES)}")
    if not isinstance(fields, CommentedMap):
        raise RecipeError(f"{file}:{line}: {name}: given {fields!r}; expected fields as `field: value` lines")
    return name, fields, line


def _apply_sets(entries: list[tuple[str, CommentedMap, int]], sets: Sequence[str], document: CommentedMap) -> None:
    for change in sets:
        target, equals, value = change.partition("=")
        stage, dot, field = target.partition(".")
        if not (equals and dot and stage and field):
            raise RecipeError(f"--set {change!r}: expected stage.field=value, e.g. --set score.threshold=0.28")
        parsed = YAML(typ="safe").load(value)
        if stage == "shards":
            document.setdefault("shards", CommentedMap())[field] = parsed
            continue
        named = [fields for name, fields, _ in entries if _called(name) == stage]
        if not named:
            raise RecipeError(
                f"--set {change!r}: {stage!r} is not in this recipe; {nearest(stage, [_called(e[0]) for e in entries])}"
            )
        for fields in named:
            fields[field] = parsed


def _called(name: str) -> str:
    """The name that a stage goes by in the ledger, from what names it in the recipe."""
    return stage_class(name).name if ":" in name else name


def _stage(file: str, name: str, fields: CommentedMap, line: int) -> StageModel:
    cls = stage_class(name)
    try:
        return cls(**fields)
    except ValidationError as error:
        raise RecipeError(_explain(file, name, fields, line, error, cls)) from None


def _explain(
    file: str, owner: str, fields: CommentedMap, line: int, error: ValidationError, model: type[BaseModel]
) -> str:
    """One line per problem: file, line, field, given, allowed."""
    return "\n".join(_problem(file, owner, fields, line, d, model) for d in error.errors())


def _problem(
    file: str, owner: str, fields: CommentedMap, line: int, details: ErrorDetails, model: type[BaseModel]
) -> str:
    field = str(details["loc"][0]) if details["loc"] else ""
    at = _line(fields, field) if field in fields and fields.lc.data and field in fields.lc.data else line
    place = f"{file}:{at}: {owner}.{field}"
    if details["type"] == "extra_forbidden":
        return f"{place}: no such field; {nearest(field, model.model_fields)}"
    info = model.model_fields.get(field)
    about = f" ({info.description})" if info and info.description else ""
    return f"{place}: given {details['input']!r}; {details['msg'][0].lower()}{details['msg'][1:]}{about}"


def _check_order(file: str, stages: Sequence[StageModel], lines: Sequence[int]) -> None:
    """Stages of the measure phase come first, then relate, then emit; no stage twice."""
    ranks = {"measure": 0, "relate": 1, "emit": 2}
    seen: dict[str, int] = {}
    highest = 0
    for stage, line in zip(stages, lines, strict=True):
        if stage.name in seen:
            raise RecipeError(f"{file}:{line}: {stage.name!r} stands twice (first on line {seen[stage.name]})")
        seen[stage.name] = line
        rank = ranks[stage.phase]
        if rank < highest:
            raise RecipeError(
                f"{file}:{line}: {stage.name!r} belongs to the {stage.phase} phase and cannot come after a later "
                "phase; the order is measure (text, images, score), relate (duplicates, split), emit (captions)"
            )
        highest = rank
