from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import Finished
from tuwen.export.browse.service import Browser, Selection
from tuwen.export.browse.table import Table
from tuwen.pipeline.errors import RunError, UsageError


@pytest.fixture(scope="module")
def browser(finished: Finished) -> Browser:
    return Browser(str(finished.run))


@pytest.fixture(scope="module")
def ledger(finished: Finished) -> pl.DataFrame:
    """The whole ledger, read naively."""
    paths = sorted((finished.run / "ledger").glob("*.parquet"))
    return pl.concat([pl.read_parquet(p) for p in paths]).with_row_index("row")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"status": "kept"},
        {"status": "kept", "split": "test"},
        {"stage": "score", "reason": "low_score"},
        {"holding": "红色"},
        {"holding": "://img.sample"},
        {"order": "-score", "status": "kept"},
        {"order": "score", "least": "0.2", "most": "0.5"},
        {"order": "chars", "least": "10", "status": "dropped"},
    ],
)
def test_a_selection_is_what_a_full_read_gives(browser: Browser, ledger: pl.DataFrame, given: dict[str, str]) -> None:
    wanted = ledger.filter(**{n: given[n] for n in ("status", "stage", "reason", "split") if n in given})
    if "holding" in given:
        columns = ["image_url", "page_url"] if "://" in given["holding"] else ["caption_raw", "caption"]
        held = [pl.col(c).str.contains(given["holding"], literal=True).fill_null(False) for c in columns]
        wanted = wanted.filter(pl.any_horizontal(held))
    if order := given.get("order"):
        name = order.removeprefix("-")
        wanted = wanted.drop_nulls(name).filter(
            pl.col(name).is_between(float(given.get("least", "-inf")), float(given.get("most", "inf")))
        )
        wanted = wanted.sort(name, descending=order.startswith("-"), maintain_order=True)
    assert wanted.height > 3
    assert browser.select(Selection.of(given)).rows.tolist() == wanted["row"].to_list()


def test_pages_together_are_the_selection(browser: Browser, ledger: pl.DataFrame) -> None:
    keys: list[str] = []
    for start in range(0, 400, 7):
        page = browser.page(Selection.of({"order": "-chars"}), start, 7)
        keys += [p["key"] for p in page["pairs"]]
        if len(keys) == page["total"]:
            break
    assert keys == ledger.drop_nulls("chars").sort("chars", descending=True, maintain_order=True)["key"].to_list()


def test_rows_come_in_the_order_asked_for_from_any_file(finished: Finished, ledger: pl.DataFrame) -> None:
    table = Table(str(finished.run))
    rows = np.random.default_rng(0).permutation(table.height)[:50]
    assert table.read(rows, ["key"])["key"].to_list() == ledger["key"].to_numpy()[rows].tolist()


def test_what_no_pair_has_is_named_with_the_nearest_that_one_has(browser: Browser) -> None:
    with pytest.raises(UsageError, match=r"reason 'low_scores'.*Did you mean 'low_score'"):
        browser.select(Selection.of({"reason": "low_scores"}))
    with pytest.raises(UsageError, match=r"order by 'scores'.*Did you mean 'score'"):
        browser.select(Selection.of({"order": "scores"}))
    with pytest.raises(UsageError, match="'colour' is no field"):
        Selection.of({"colour": "red"})
    with pytest.raises(UsageError, match="expected a number"):
        browser.select(Selection.of({"order": "score", "least": "much"}))


def test_a_run_without_vectors_says_how_to_get_them(browser: Browser) -> None:
    with pytest.raises(UsageError, match=r"score\.embeddings=true"):
        browser.select(Selection.of({"text": "红色的房子"}))
    assert browser.about()["meaning"] is False


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no ledger"):
        Table(str(tmp_path))


def test_a_story_tells_the_stage_that_decided_and_its_thresholds(browser: Browser) -> None:
    row = int(browser.table.facet({"reason": "low_score"})[0])
    told = browser.pair(str(row))
    decided = [s for s in told["stages"] if s["decided"]]
    assert [s["name"] for s in decided] == ["score"]
    assert {"score.threshold"} <= {t["name"] for t in decided[0]["thresholds"]}
    assert any(m["name"] == "score" for m in decided[0]["measures"])
    assert told["words"] == ("image and caption do not match", "图文不匹配")


def test_a_duplicate_leads_to_the_pair_that_stays(browser: Browser) -> None:
    row = int(browser.table.facet({"reason": "pair_duplicate"})[0])
    told = browser.pair(str(row))
    assert browser.pair(str(told["original"][0]))["key"] == told["duplicate_of"]


def test_unsafe_pairs_are_marked_whatever_stage_dropped_them(browser: Browser) -> None:
    nsfw = browser.table.measure("nsfw")
    told = {p["row"]: p["unsafe"] for s in (0, 200, 400) for p in browser.page(Selection(), s, 200)["pairs"]}
    assert {r for r, unsafe in told.items() if unsafe} == set(np.flatnonzero(nsfw > 0.5).tolist())
    assert sum(told.values()) >= 10
