from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tuwen.pipeline.errors import RecipeError
from tuwen.pipeline.stage import Tally, apply_stage, judge
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import KINDS, caption, random_scene
from tuwen.scoring.prompts import margins, read_prompts
from tuwen.scoring.score import Score


def scenes(n: int) -> tuple[pl.DataFrame, list[set[str]]]:
    """Pictures of the sample world with their captions, and the kinds of things that each shows."""
    rng = np.random.default_rng(5)
    made = [random_scene(rng) for _ in range(n)]
    images = [encode(render(s, 160), quality=85) for s in made]
    frame = pl.DataFrame(
        {"key": [f"{i:03}" for i in range(n)], "image": images, "caption": [caption(s, rng) for s in made]}
    )
    return frame, [{t.kind for t in s.things} for s in made]


def test_margin_is_nearest_unsafe_less_nearest_safe() -> None:
    vectors = np.eye(4, dtype=np.float32)
    images = np.array([[0.9, 0.3, 0.1, 0.2], [0.1, 0.2, 0.4, 0.8]], np.float32)
    margin, kinds = margins(images, vectors, ("a", "safe", "b", "safe"))
    assert margin.tolist() == pytest.approx([0.9 - 0.3, 0.4 - 0.8])
    assert kinds == ["a", "b"]


def test_the_operators_prompts_decide_what_is_dropped(tmp_path: Path) -> None:
    kinds = sorted(KINDS)
    unwanted = kinds[0]
    lines = [
        f"{'unwanted' if k == unwanted else 'safe'}: 一张{name}的照片" for k in kinds for name in KINDS[k].names[:1]
    ]
    (tmp_path / "prompts.txt").write_text("# 说明\n\n" + "\n".join(lines), encoding="utf-8")
    frame, shown = scenes(120)
    stage = Score(threshold=-1, prompts=str(tmp_path / "prompts.txt"))
    out = apply_stage(stage, frame, Tally())
    dropped = (out["reason"] == "unsafe_by_prompt").fill_null(False).to_list()
    has = [unwanted in s and len(s) == 1 for s in shown]
    hasnt = [unwanted not in s for s in shown]
    assert sum(has) >= 3, "the drawn scenes show the unwanted kind"
    assert sum(d for d, h in zip(dropped, has, strict=True) if h) >= 0.6 * sum(has)
    assert sum(d for d, h in zip(dropped, hasnt, strict=True) if h) <= 0.25 * sum(hasnt)
    assert set(out["prompt_class"]) == {"unwanted"}
    clear = {c: pl.lit(None, dtype=pl.String) for c in ("status", "stage", "reason", "detail")}
    loose = judge(stage.model_copy(update={"prompt_margin": 2.0}), out.with_columns(**clear))
    assert loose["status"].null_count() == 120, "a ledger answers other margins"


def test_without_prompts_nothing_is_measured() -> None:
    frame, _ = scenes(2)
    out = apply_stage(Score(threshold=-1), frame, Tally())
    assert out["prompt_margin"].null_count() == 2
    assert "unsafe_by_prompt" not in Score().reasons()


def test_the_shipped_prompts_read_and_enter_the_recipes_hash(tmp_path: Path) -> None:
    prompts = read_prompts("default")
    assert {"色情", "血腥", "safe"} <= set(prompts.classes)
    assert len(prompts.texts) == len(set(prompts.texts))
    path = tmp_path / "p.txt"
    path.write_text("safe: 风景\n色情：裸体\n", encoding="utf-8")
    assert read_prompts(str(path)).classes == ("safe", "色情")
    before = Score(prompts=str(path)).resources()
    path.write_text("safe: 山\n色情：裸体\n", encoding="utf-8")
    assert Score(prompts=str(path)).resources() != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("safe: 山\n裸体\n", r":2: given '裸体'"),
        ("safe: 山\n", "at least one unsafe class"),
        ("a: 裸体\n", "expected 'safe'"),
    ],
)
def test_wrong_prompts_name_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        read_prompts(str(tmp_path / "p.txt"))
    with pytest.raises(RecipeError, match="no file at"):
        read_prompts(str(tmp_path / "gone.txt"))
