from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tuwen.pipeline.beam_run import pipeline_options
from tuwen.pipeline.columns import COLUMNS, with_missing
from tuwen.pipeline.errors import RecipeError, RunError
from tuwen.pipeline.recipe import parse
from tuwen.pipeline.relate import relate
from tuwen.pipeline.stage import VERDICT, StageModel, judge
from tuwen.scoring.percentile import ScorePercentile
from tuwen.scoring.rank import RankRule
from tuwen.scoring.score import Score
from tuwen.scoring.scorer import default_threshold


def unit(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    """A part file as the measure phase leaves it."""
    given = [{"unit": name, "ordinal": i, "origin": f"{name}#{i}", "caption": "湖", **r} for i, r in enumerate(rows)]
    columns = dict.fromkeys(["unit", "ordinal", "key", "origin", "caption", *VERDICT, *(c for r in given for c in r)])
    frame = pl.DataFrame(given, schema={n: COLUMNS[n].dtype for n in columns if any(n in r for r in given)})
    path = folder / f"{name}.parquet"
    with_missing(frame, tuple(columns)).write_parquet(path)
    return str(path)


def related(folder: Path, parts: dict[str, list[dict[str, Any]]], stage: StageModel, spread: bool) -> pl.DataFrame:
    folder.mkdir()
    paths = [unit(folder, name, rows) for name, rows in parts.items()]
    relate(paths, [stage], str(folder), pipeline_options(), spread=spread)
    found = [pl.read_parquet(p.replace(".parquet", ".relate.parquet")).with_columns(u=pl.lit(p[-10:])) for p in paths]
    return pl.concat(found)


def scored(n: int, units: int) -> dict[str, list[dict[str, Any]]]:
    drawn = np.random.default_rng(3).integers(0, 60, n) / 100
    rows: list[dict[str, Any]] = [{"key": f"{i:032x}", "score": float(s)} for i, s in enumerate(drawn)]
    gone = {"status": "dropped", "stage": "score", "reason": "low_score"}
    rows = [r | (gone if r["score"] < 0.1 else {}) for r in rows]
    return {f"u{u}": rows[u::units] for u in range(units)}


@pytest.mark.parametrize("spread", [False, True])
def test_the_best_share_of_the_living_stays_and_equal_scores_go_together(tmp_path: Path, spread: bool) -> None:
    parts = scored(300, 4)
    out = related(tmp_path / "a", parts, ScorePercentile(best=0.25), spread)
    scores = pl.Series([r["score"] for rows in parts.values() for r in rows])
    alive = np.sort(scores.filter(scores >= 0.1).to_numpy())[::-1]
    least = alive[int(np.ceil(0.25 * len(alive))) - 1]
    kept = scores.filter(out["status"].is_null())
    assert kept.min() == least
    assert len(kept) == (alive >= least).sum() >= 0.25 * len(alive)
    assert set(out.filter(pl.col("stage") == "score_percentile")["reason"]) == {"below_percentile"}
    assert out.filter(pl.col("stage") == "score")["score_better"].null_count() == (scores < 0.1).sum()


def test_the_percentile_is_the_same_over_beam_and_for_any_units(tmp_path: Path) -> None:
    def told(name: str, units: int, spread: bool) -> list[Any]:
        parts = scored(200, units)
        keys = [r["key"] for rows in parts.values() for r in rows]
        out = related(tmp_path / name, parts, ScorePercentile(best=0.4), spread)
        return sorted(zip(keys, out["status"], out["score_better"], strict=True))

    assert told("a", 1, False) == told("b", 5, False) == told("c", 3, True)


def test_a_ledger_answers_other_percentiles() -> None:
    rows = pl.DataFrame({"unit": "u", "key": list("abcd"), "score": pl.Series([0.1, 0.4, 0.2, 0.3], dtype=pl.Float32)})
    measured = ScorePercentile().relate(rows)
    assert measured["score_better"].to_list() == [0.75, 0.0, 0.5, 0.25]
    for best, kept in ((0.25, 1), (0.5, 2), (0.51, 3), (1.0, 4)):
        assert judge(ScorePercentile(best=best), measured)["status"].null_count() == kept


def vectors(n: int, noise: float = 0.5) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Unit vectors of images and captions; with little noise all find each other."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((n, 24))
    captions = images + rng.standard_normal((n, 24)) * noise
    return tuple(v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, captions))


def embedded(images: Any, captions: Any) -> list[dict[str, Any]]:
    return [
        {
            "key": f"{i:032x}",
            "image_embedding": a.astype("<f2").tobytes(),
            "caption_embedding": b.astype("<f2").tobytes(),
        }
        for i, (a, b) in enumerate(zip(images, captions, strict=True))
    ]


def frame(rows: list[dict[str, Any]], name: str = "u") -> pl.DataFrame:
    return pl.DataFrame(rows).with_columns(unit=pl.lit(name), origin=pl.lit("o"))


def test_ranks_are_those_of_the_whole_matrix_where_all_is_one_block() -> None:
    images, captions = vectors(50)
    out = RankRule(block=60).relate(frame(embedded(images, captions)))
    a, b = (v.astype("<f2").astype(np.float64) for v in (images, captions))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    cosine = a @ b.T
    own = np.diag(cosine)
    assert out["rank_caption"].to_list() == (cosine > own[:, None] + 1e-4).sum(1).tolist()
    assert out["rank_image"].to_list() == (cosine > own[None] + 1e-4).sum(0).tolist()
    assert out["rank_block"].unique().to_list() == [50]


def test_swapped_captions_are_dropped_and_equal_captions_are_no_rivals() -> None:
    images, captions = vectors(40)
    captions = images + 0.05 * (captions - images)
    swapped = captions.copy()
    swapped[[3, 8]] = captions[[8, 3]]
    swapped[20] = swapped[21]
    images = images.copy()
    images[20] = images[21]
    out = judge(RankRule(block=40), RankRule(block=40).relate(frame(embedded(images, swapped))))
    dropped = out.with_row_index().filter(pl.col("status") == "dropped")
    assert dropped["index"].to_list() == [3, 8]
    assert dropped["reason"].to_list() == ["low_rank"] * 2


def test_either_and_both_and_top_are_answered_from_the_ledger() -> None:
    rows = pl.DataFrame({"rank_caption": [0, 0, 2, 1], "rank_image": [0, 3, 2, 0]}, schema_overrides={})
    kept = {
        (top, needs): judge(RankRule(top=top, needs=needs), rows)["status"].is_null().to_list()
        for top, needs in ((1, "either"), (1, "both"), (3, "both"))
    }
    assert kept[1, "either"] == [True, True, False, True]
    assert kept[1, "both"] == [True, False, False, False]
    assert kept[3, "both"] == [True, False, True, True]


def test_blocks_do_not_depend_on_order_units_beside_or_beam(tmp_path: Path) -> None:
    rows = embedded(*vectors(130, noise=2))
    whole = RankRule(block=20).relate(frame(rows)).sort("key")
    turned = RankRule(block=20).relate(frame(rows[::-1])).sort("key")
    beside = RankRule(block=20).relate(pl.concat([frame(rows[::-1]), frame(rows[:9], "v")]))
    assert whole.equals(turned)
    assert beside.filter(pl.col("unit") == "u").sort("key").equals(whole)
    sizes = whole["rank_block"].unique().to_list()
    assert min(sizes) >= 18 and max(sizes) <= 22, "no pair stands in a small last block"
    parts = {"u0": rows[:70], "u1": rows[70:]}
    here = related(tmp_path / "here", parts, RankRule(block=20), False)
    spread = related(tmp_path / "beam", parts, RankRule(block=20), True)
    assert here.equals(spread)
    assert 60 < here["status"].null_count() < 130


def test_pairs_without_vectors_say_what_the_recipe_needs() -> None:
    rows = pl.DataFrame({"key": ["a"], "unit": ["u"], "origin": ["o"]})
    with pytest.raises(RunError, match="embeddings: true"):
        RankRule().relate(rows)


def test_a_threshold_belongs_to_its_scorer(tmp_path: Path) -> None:
    assert Score().threshold == 0.3
    assert Score(scorer="ViT-B-32/openai").threshold == default_threshold("ViT-B-32/openai") == 0.28
    assert Score(scorer="ViT-B-32/openai", threshold=0.5).threshold == 0.5
    (tmp_path / "calibration.json").write_text(json.dumps({"threshold": 0.4321}))
    assert Score(scorer=str(tmp_path)).threshold == 0.4321
    assert Score(scorer=str(tmp_path)).model_dump()["threshold"] == 0.4321, "a run records the number"
    (tmp_path / "calibration.json").write_text(json.dumps({"threshold": None}))
    with pytest.raises(RecipeError, match="holds no threshold"):
        Score(scorer=str(tmp_path))
    stage = parse("name: n\nstages:\n  - score: {scorer: embedded, threshold: 0.2}\n", "n.yaml").stages[0]
    assert isinstance(stage, Score) and stage.threshold == 0.2
