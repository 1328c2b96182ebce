"""The report, the card and Croissant of a finished run; the page in a real browser."""

from __future__ import annotations

import json

import polars as pl

from tests.conftest import Finished
from tuwen.export.aggregate import aggregate
from tuwen.export.card import card
from tuwen.export.funnel import funnel_table
from tuwen.export.words import words
from tuwen.pipeline.recipe import load


def test_the_gallery_shows_every_reason_with_its_words(finished: Finished) -> None:
    told = aggregate(str(finished.run), finished.told)
    reasons = {r for s in finished.told["stages"].values() for r in (*s["dropped"], *s["failures"])} | {"kept"}
    assert set(told["gallery"]) == reasons <= set(told["words"])
    assert all("thumb" in p for p in told["gallery"]["kept"])
    assert any("thumb" in p for p in told["gallery"]["low_score"])
    assert words("fetch_http_404") == ("fetch failed: http 404", "下载失败：http 404")


def test_the_card_has_a_valid_head_and_says_what_a_reader_must_know(finished: Finished) -> None:
    from ruamel.yaml import YAML

    text = card(finished.told)
    assert text == (finished.run / "README.md").read_text()
    head = YAML(typ="safe").load(text.split("---")[1])
    assert head["language"] == ["zh"]
    assert {f["split"] for f in head["configs"][0]["data_files"]} <= {"train", "validation", "test"}
    for word in (
        "No real detector",
        "knows the sample world only",
        "【人名】",
        "EXIF",
        "noai",
        str(finished.told["counts"]["kept"]),
    ):
        assert word in text


def test_croissant_names_every_file_and_its_hash(finished: Finished) -> None:
    import hashlib

    told = json.loads((finished.run / "croissant.json").read_text())
    for item in told["distribution"]:
        assert hashlib.sha256((finished.run / item["contentUrl"]).read_bytes()).hexdigest() == item["sha256"]
    columns = set(pl.read_parquet_schema(next((finished.run / "ledger").glob("*.parquet"))))
    for record in told["recordSet"]:
        assert {f["source"]["extract"]["column"] for f in record["field"]} <= columns


def test_the_funnel_has_a_row_per_stage(finished: Finished) -> None:
    assert funnel_table(finished.told).row_count == len(finished.told["stages"])
    assert {s.name for s in load("oppovl").stages} <= set(finished.told["stages"])
