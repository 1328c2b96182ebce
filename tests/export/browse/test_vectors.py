from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import here
from tuwen.export.browse import vectors
from tuwen.export.browse.service import Browser, NotThere, Selection
from tuwen.pipeline.errors import UsageError


@pytest.fixture
def bare(small: Path, tmp_path: Path) -> Path:
    """A copy of the small run that kept no vectors."""
    run = tmp_path / "bare"
    shutil.copytree(small, run)
    for path in (run / "ledger").glob("*.parquet"):
        nothing = pl.lit(None, dtype=pl.Binary)
        pl.read_parquet(path).with_columns(image_embedding=nothing, caption_embedding=nothing).write_parquet(path)
    told = (run / "run.json").read_text()
    (run / "run.json").write_text(told.replace('"embeddings": true', '"embeddings": false'))
    return run


def test_a_search_is_the_exact_order_of_cosines(small: Path) -> None:
    browser = Browser(str(small))
    paths = sorted((small / "ledger").glob("*.parquet"))
    ledger = pl.concat([pl.read_parquet(p) for p in paths]).with_row_index("row").drop_nulls("image_embedding")
    for against in vectors.KINDS:
        query = browser.scorer().embed_texts(["湖边的红色房子"])[0].astype(np.float64)
        cosines = [float(np.frombuffer(b, "<f2").astype(np.float64) @ query) for b in ledger[f"{against}_embedding"]]
        wanted = ledger["row"].to_numpy()[np.argsort(-np.array(cosines), kind="stable")]
        found = browser.select(Selection.of({"text": "湖边的红色房子", "against": against}))
        assert found.rows.tolist() == wanted.tolist()
        assert found.values is not None
        assert np.allclose(found.values, sorted(cosines, reverse=True), atol=1e-5)


def test_a_selection_narrows_a_search_and_keeps_its_order(small: Path) -> None:
    browser = Browser(str(small))
    every = browser.select(Selection.of({"text": "一只猫"})).rows
    kept = set(browser.table.facet({"status": "kept"}).tolist())
    found = browser.select(Selection.of({"text": "一只猫", "status": "kept"})).rows
    assert found.tolist() == [r for r in every if r in kept]
    assert 0 < len(found) < len(every)


def test_a_picture_finds_itself(small: Path) -> None:
    browser = Browser(str(small))
    row = int(browser.table.facet({"status": "kept"})[3])
    told = browser.table.read(np.array([row]), ["unit", "ordinal", "key", "shard", "stage"]).to_dicts()[0]
    data = browser.pictures.bytes_of(told)
    assert data is not None
    for chosen in ({"upload": browser.keep_image(data)}, {"like": str(row)}):
        found = browser.select(Selection.of(chosen))
        assert found.values is not None
        assert found.values[0] > 0.99
        assert row in found.rows[found.values > found.values[0] - 0.02]


def test_best_breaks_ties_by_place() -> None:
    values = np.array([0.5, 0.9, 0.5, 0.5, 0.1], np.float32)
    assert vectors.best(values, np.arange(5), 3).tolist() == [1, 0, 2]
    assert vectors.best(values, np.array([4, 3, 2]), 2).tolist() == [2, 3]
    assert vectors.best(values, np.array([], np.int64), 2).tolist() == []


def test_vectors_made_afterwards_are_those_that_the_run_would_have_kept(small: Path, bare: Path) -> None:
    with pytest.raises(UsageError, match="--embed"):
        Browser(str(bare)).space("image")
    done = list(Browser(str(bare)).embed())
    assert done[-1][0] == done[-1][1] > 0
    made, kept = Browser(str(bare)).space("image"), Browser(str(small)).space("image")
    assert set(made.rows.tolist()) < set(kept.rows.tolist())
    for row in made.rows.tolist():
        a, b = made.of(row), kept.of(row)
        assert a is not None
        assert b is not None
        assert np.abs(a - b).max() < 2e-3  # half floats; JPEG or not, the run scored what it shipped


def test_what_is_removed_on_request_is_gone_from_the_vectors_too(bare: Path, tmp_path: Path) -> None:
    list(Browser(str(bare)).embed())
    before = pl.read_parquet(bare / vectors.MADE)
    browser = Browser(str(bare))
    row = int(browser.table.facet({"status": "kept"})[0])
    (tmp_path / "keys.txt").write_text(browser.pair(str(row))["key"] + "\n")
    here("remove", bare, "--keys", tmp_path / "keys.txt")
    assert pl.read_parquet(bare / vectors.MADE).height == before.height - 1


def test_another_scorer_than_the_runs_is_refused(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small, run)
    browser = Browser(str(run))
    used = browser.told["resources"]["score"]["embedded"]
    (run / "run.json").write_text((run / "run.json").read_text().replace(used, "0" * 16))
    with pytest.raises(UsageError, match="other weights now"):
        Browser(str(run)).select(Selection.of({"text": "猫"}))


def test_a_pair_without_vector_and_picture_is_told_so(small: Path) -> None:
    browser = Browser(str(small))
    with pytest.raises(NotThere, match="row '999'"):
        browser.select(Selection.of({"like": "999"}))
