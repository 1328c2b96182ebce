"""What a study found, as ``value.json`` holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from .. import diversity
from .arms import Arm, StageArms
from .judge import pairs_to_match
from .model import SIDE
from .points import settings
from .study import Study


def tell(made: Study, arm: Arm) -> dict[str, Any]:
    """An arm's pairs and scores as plain values."""
    each = [p.answers["original"].recall(1) for p in made.points(arm)]
    return {
        "arm": arm.name,
        "pairs": arm.pairs,
        "r1": round(float(np.mean(each)), 4),
        "r1_by_seed": [round(r, 4) for r in each],
        "r5": round(made.recall(arm, 5), 4),
        "median_rank": float(np.median([np.median(p.answers["original"].ranks) for p in made.points(arm)]) + 1),
    }


def findings(made: Study) -> dict[str, Any]:
    """Everything that was found, as value.json holds it."""
    arms, parts = made.arms, made.options.parts
    told: dict[str, Any] = {
        "settings": {**settings(made.options.budget), "seeds": made.options.budget.seeds, "side": SIDE},
        "samples_seen": made.options.budget.steps * made.options.budget.batch,
        "questions": len(made.questions.images),
        "chance": round(1 / len(made.questions.images), 5),
        "ties": list(made.options.ties),
        "largest_cluster": int(np.bincount(made.cluster).max()),
        "held_out": int(made.verdicts.rows.height - made.arms.trainable.sum()),
        "notes": made.notes,
        "main": _main(made),
    }
    if "sizes" in parts:
        told["sizes"] = _sizes(made)
    told["stages"] = [_stage(made, s) for s in made.stages]
    if "style" in parts and made.styled is not None:
        told["style"] = _style(made, arms.styles())
    told["diversity"] = _diversity(made)
    return told


def _main(made: Study) -> dict[str, Any]:
    arms = made.arms
    ceiling = arms.oracle or arms.curated
    room = made.gain(ceiling, arms.raw)
    chance = 1 / len(made.questions.images)
    raw, curated = made.recall(arms.raw), made.recall(arms.curated)
    above = all(made.recall(a) > 3 * chance for a in (arms.raw, ceiling))
    told = [arms.raw, arms.small, arms.mended, arms.curated, *([arms.oracle] if arms.oracle else [])]
    against = {"raw": arms.raw, "raw, as few": arms.small, "mended": arms.mended}
    verdict = "INVALID: baseline and ceiling are within noise of each other"
    if not above:
        verdict = "INVALID: an arm is at chance; give more --steps"
    elif room.proven:
        verdict = made.gain(arms.curated, arms.raw).describe()["verdict"]
    return {
        "arms": [tell(made, a) for a in told],
        "curated_less": {name: made.gain(arms.curated, arm).describe() for name, arm in against.items()},
        "ceiling_less_raw": room.describe(),
        "ratio": round(curated / raw, 3) if raw else None,
        "pairs_share": round(arms.curated.pairs / arms.raw.pairs, 4),
        "verdict": verdict,
    }


def _sizes(made: Study) -> dict[str, Any]:
    arms = made.arms
    part = list(arms.sizes())
    curves = {}
    for whole in (arms.raw, arms.curated):
        own = [*(a for a in part if a.name.startswith(f"{whole.name} ")), whole]
        curves[whole.name] = [tell(made, a) for a in own]
    curve = curves["curated"]
    needed = pairs_to_match([p["pairs"] for p in curve], [p["r1"] for p in curve], made.recall(arms.raw))
    return {
        "curves": curves,
        "pairs_to_match_raw": None if needed is None else round(needed),
        "at_most": needed is not None and round(needed) == curve[0]["pairs"],
        "raw_pairs": arms.raw.pairs,
    }


def _stage(made: Study, stage: StageArms) -> dict[str, Any]:
    told: dict[str, Any] = {
        "stage": stage.name,
        "dropped_alone": stage.dropped,
        "only_it_drops": int(stage.lone.sum()),
        "seconds": made.verdicts.told["stages"].get(stage.name, {}).get("seconds"),
    }
    if made.arms.truth is not None and stage.lone.any():
        told["planted_share"] = round(float((~made.arms.truth.right)[stage.lone].mean()), 4)
    if stage.without and stage.without_control:
        told["leave_out"] = {
            **tell(made, stage.without),
            "gain": made.gain(made.arms.curated, stage.without).describe(),
            "over_random": made.gain(made.arms.curated, stage.without_control).describe(),
            "random": tell(made, stage.without_control),
        }
    if stage.only and stage.only_control:
        told["add_in"] = {
            **tell(made, stage.only),
            "gain": made.gain(stage.only, made.arms.raw).describe(),
            "over_random": made.gain(stage.only, stage.only_control).describe(),
            "random": tell(made, stage.only_control),
        }
    if cost := _cost(told):
        told["seconds_per_point"] = cost
    return told


def _style(made: Study, arms: Sequence[Arm]) -> dict[str, Any]:
    own = arms[0]
    return {
        "questions": len(made.styled.images) if made.styled else 0,
        "arms": [
            {
                "arm": a.name,
                "pairs": a.pairs,
                **{style: round(made.recall(a, 1, style), 4) for style in ("original", "synthetic")},
                **{f"{style}_gain": made.gain(a, own, style).describe() for style in ("original", "synthetic")},
            }
            for a in arms
        ],
    }


def _diversity(made: Study) -> dict[str, Any]:
    arms, rows = made.arms, made.verdicts.rows
    chosen = [arms.raw, arms.curated, *([arms.oracle] if arms.oracle else [])]
    known = diversity.concepts(pl.Series(arms.oracle.captions if arms.oracle else arms.raw.captions))
    told = []
    for arm in chosen:
        one = {"arm": arm.name, **diversity.describe(rows[arm.rows.tolist()], arm.captions, made.cluster[arm.rows])}
        held = diversity.concepts(pl.Series(arm.captions))
        one["concepts"] = len(held)
        one["concept_coverage"] = round(len(held & known) / len(known), 4) if known else None
        told.append(one)
    dropped = pl.Series(~made.verdicts.as_kept)
    return {
        "sets": told,
        "concepts_of": "oracle" if arms.oracle else "raw",
        "scores": {
            "kept": diversity.histogram(rows["score"].filter(~dropped)),
            "dropped": diversity.histogram(rows["score"].filter(dropped)),
        },
    }


def _cost(told: dict[str, Any]) -> float | None:
    """Seconds of the stage per point of R@1 that it gained over leaving it out; None where no gain is proven."""
    gain = told.get("leave_out", {}).get("gain")
    if not gain or gain["verdict"] != "gain" or not told["seconds"]:
        return None
    return round(float(told["seconds"]) / (100 * float(gain["mean"])), 3)
