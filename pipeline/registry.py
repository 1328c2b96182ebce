"""The stages that a recipe can name, and where each is defined.

Modules are imported when a stage is first asked for, so that listing a text recipe does not load
the image libraries. A stage that does not ship is named ``module:Class`` (docs/stage.md).
"""

from __future__ import annotations

import importlib
from functools import cache

from .columns import COLUMNS
from .errors import RecipeError, nearest
from .stage import StageModel

STAGES: dict[str, str] = {
    "normalise": "filters.normalise:Normalise",
    "social": "filters.social:Social",
    "language": "filters.language:Language",
    "fragments": "filters.fragments:Fragments",
    "boilerplate": "filters.boilerplate:Boilerplate",
    "sensitive": "filters.sensitive:Sensitive",
    "length": "filters.length:Length",
    "names": "filters.names:Names",
    "removed_pairs": "filters.removed:RemovedPairs",
    "fetch": "filters.fetch:Fetch",
    "decode": "filters.decode:Decode",
    "removed_images": "filters.removed:RemovedImages",
    "overlays": "filters.overlays:Overlays",
    "image_safety": "filters.image_safety:ImageSafety",
    "jpeg": "filters.jpeg:Jpeg",
    "score": "scoring.score:Score",
    "score_percentile": "scoring.percentile:ScorePercentile",
    "rank_rule": "scoring.rank:RankRule",
    "templates": "filters.templates:Templates",
    "site_tails": "filters.site_tails:SiteTails",
    "caption_frequency": "filters.frequency:CaptionFrequency",
    "pair_duplicates": "filters.duplicates:PairDuplicates",
    "decontaminate": "filters.decontaminate:Decontaminate",
    "image_repeats": "filters.repeats:ImageRepeats",
    "caption_repeats": "filters.repeats:CaptionRepeats",
    "semantic_duplicates": "filters.semantic:SemanticDuplicates",
    "captions_beside": "scoring.beside:CaptionsBeside",
    "split": "filters.split:Split",
    "synthetic_captions": "scoring.captioner:SyntheticCaptions",
    "hard_negatives": "scoring.negatives:HardNegatives",
}


@cache
def stage_class(name: str) -> type[StageModel]:
    """The class behind a stage's name; ``RecipeError`` with the nearest name where there is none."""
    if ":" in name:
        return _own(name)
    if name not in STAGES:
        raise RecipeError(f"no stage is named {name!r}; {nearest(name, STAGES)}")
    module, _, attribute = STAGES[name].partition(":")
    found = getattr(importlib.import_module(f"..{module}", __package__), attribute)
    if not (isinstance(found, type) and issubclass(found, StageModel) and found.name == name):
        raise TypeError(f"{STAGES[name]} must be a StageModel named {name!r}")
    return found


def spec(stage: StageModel) -> str:
    """What names this stage in a recipe: its name, or ``module:Class`` where it does not ship."""
    own = STAGES.get(stage.name)
    kind = type(stage)
    return stage.name if own and own.endswith(f":{kind.__name__}") else f"{kind.__module__}:{kind.__name__}"


def _own(name: str) -> type[StageModel]:
    """A stage of the user's own, from a module that Python finds."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"stage {name!r} cannot be imported: {error}. Expected module:Class; is the module's folder on PYTHONPATH?"
        ) from None
    if not (
        isinstance(found, type) and issubclass(found, StageModel) and isinstance(getattr(found, "name", None), str)
    ):
        raise RecipeError(f"stage {name!r}: expected a subclass of tuwen.pipeline.stage.StageModel with a name")
    if found.name in STAGES:
        raise RecipeError(f"stage {name!r} is named {found.name!r} as one that ships; give it another name")
    if unknown := sorted(set(found.adds) - set(COLUMNS)):
        raise RecipeError(
            f"stage {name!r} adds {', '.join(unknown)}, which the ledger does not know; columns are registered in "
            "pipeline/columns.py"
        )
    return found
