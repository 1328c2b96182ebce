"""Which pairs a run would have kept without one of its stages, with that stage alone, or with none.

All from the ledger, as ``curate replay`` decides again: the measure phase's reasons are expressions over recorded
measures, and what pairs are to one another is related anew from light columns. No image is opened, no model runs.

Of a pair that a stage dropped, later stages' measures are only there where the run was made with ``--measure-all``.
Elsewhere no one knows what else would have dropped it, so only ``everything`` and ``as_kept`` can be told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ...pipeline import files
from ...pipeline.columns import with_missing
from ...pipeline.errors import UsageError
from ...pipeline.ledger import scan_ledger
from ...pipeline.recipe import Recipe, from_description
from ...pipeline.relate import BASE, in_order, related
from ...pipeline.replay import rejudge
from ...pipeline.stage import StageModel

Mask = NDArray[np.bool_]
HEAVY = ("image_embedding", "caption_embedding")
"""Columns that no relate stage needs unless it asks for them."""


@dataclass(frozen=True)
class Variant:
    """What a recipe would have made of the run's pairs.

    ``kept`` (n,) and ``captions`` (n,) follow the ledger's rows; a caption is the one that would ship.
    """

    kept: Mask
    captions: pl.Series


@dataclass(frozen=True)
class Verdicts:
    """A finished run's pairs, and verdicts on them under other recipes.

    ``rows`` is the ledger in order of unit and ordinal; every mask of this class follows that order.
    """

    rows: pl.DataFrame
    recipe: Recipe
    told: dict[str, Any]

    @classmethod
    def of(cls, run: str) -> Verdicts:
        """Those of the run directory ``run``; ``UsageError`` where it is none that finished."""
        at = files.join(run, "run.json")
        if not files.exists(at):
            raise UsageError(f"{run} holds no run.json; expected a finished run directory, as `curate run` writes")
        told = json.loads(files.read_bytes(at))
        rows = scan_ledger(run).collect().sort("unit", "ordinal")
        return cls(rows, from_description(told["recipe"]), told)

    @property
    def all_measured(self) -> bool:
        """Whether dropped pairs were measured on, so that verdicts under other recipes can be told."""
        return bool(self.told["dropped_too"])

    @cached_property
    def as_kept(self) -> Mask:
        """The pairs that the run kept."""
        return (self.rows["status"] == "kept").to_numpy()

    def filters(self) -> list[str]:
        """The stages that may drop a pair by a reason of their own, in the order they run."""
        stages = [*self.recipe.phase("measure"), *self.recipe.phase("relate")]
        return [s.name for s in stages if s.reasons() and s.name != "split"]

    def without(self, stage: str) -> Variant:
        """What the recipe less ``stage`` keeps."""
        return self.under([s for s in self.recipe.stages if s.name != stage])

    def alone(self, stage: str) -> Variant:
        """What ``stage`` keeps where no other decides, not even the rule of one pair per key."""
        return self.under([s for s in self.recipe.stages if s.name == stage], one_per_key=False)

    def under(self, stages: Sequence[StageModel], one_per_key: bool = True) -> Variant:
        """What a recipe of ``stages``, some of the run's, keeps; raises ``UsageError`` where that is not known."""
        if not self.all_measured:
            raise UsageError(
                "the run did not measure on what it dropped, so nobody knows what its other stages say of those pairs; "
                "make it with `curate run … --measure-all`"
            )
        recipe = self.recipe.model_copy(update={"stages": tuple(stages)})
        late = recipe.phase("relate")
        again = rejudge(self.rows.drop(HEAVY, strict=False), self.recipe, recipe, dropped_too=True)
        wanted = list(dict.fromkeys([*BASE, "caption", *(c for s in late for c in getattr(s, "reads", ()))]))
        if vectors := [c for c in HEAVY if c in wanted]:
            again = again.hstack(self.rows.select(vectors))
        light = with_missing(again, wanted).select(wanted)
        # Two pairs may share a key, so the place in the ledger is what brings rows back into order.
        done, _ = related(light, in_order(late) if one_per_key else late)
        done = done.sort("unit", "ordinal")
        return Variant(done["status"].is_null().to_numpy(), done["caption"])
