from __future__ import annotations

from pathlib import Path

from tuwen.pipeline.columns import COLUMNS
from tuwen.pipeline.ledger_docs import ledger_docs
from tuwen.pipeline.recipe import load, shipped
from tuwen.pipeline.registry import STAGES, stage_class

ROOT = Path(__file__).parents[2]


def test_the_page_on_the_ledger_is_current() -> None:
    assert (ROOT / "docs" / "ledger.md").read_text() == ledger_docs(), (
        "python -m tuwen.pipeline.ledger_docs > docs/ledger.md"
    )


def test_stages_write_registered_columns_only() -> None:
    for name in STAGES:
        assert set(stage_class(name).adds) <= set(COLUMNS), name


def test_no_reason_reads_a_column_that_a_later_stage_changes() -> None:
    for name in shipped():
        stages = load(name).stages
        for i, stage in enumerate(stages):
            later = {c for s in stages[i + 1 :] for c in s.adds if s.phase == stage.phase}
            for reason, expr in stage.reasons().items():
                assert later.isdisjoint(expr.meta.root_names()), (name, stage.name, reason)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    import re

    text = (ROOT / "README.md").read_text()
    assert text.count("\n") < 200
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target
