"""The report, the card and Croissant of a finished run; the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.export.aggregate import aggregate
from tuwen.export.funnel import funnel_table
from tuwen.export.report import write_report
from tuwen.export.words import words
from tuwen.pipeline.recipe import load


@pytest.fixture(scope="module")
def page(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a copy of the run in which one caption is hostile."""
    run = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(finished.run, run, ignore=shutil.ignore_patterns("parts"))
    path = next((run / "ledger").glob("train-*.parquet"))
    rows = pl.read_parquet(path).sort("key")
    hostile = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    rows = rows.with_columns(
        caption_raw=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(hostile)).otherwise("caption_raw")
    )
    rows.write_parquet(path)
    write_report(str(run))
    return run / "report.html"


def test_the_sliders_counts_at_the_thresholds_are_what_the_stages_passed(finished: Finished) -> None:
    told = aggregate(str(finished.run), finished.told)
    assert len(told["measures"]) >= 8
    for m in told["measures"]:
        passes = sum(
            n
            for e, n in zip(m["edges"], m["counts"], strict=True)
            if (e >= m["threshold"] if m["least"] else e <= m["threshold"])
        )
        stage = finished.told["stages"][m["stage"]]
        lost_otherwise = stage["in"] - stage["kept"] - stage["dropped"].get(m["reason"], 0) - stage["failed"]
        mine = stage["kept"] + (sum(m["counts"]) - passes) + lost_otherwise + stage["failed"]
        assert passes == stage["kept"], (m["stage"], m["field"])
        assert mine <= stage["in"]


def test_a_sliders_other_value_is_what_replay_then_gives(finished: Finished, tmp_path: Path) -> None:
    told = aggregate(str(finished.run), finished.told)
    score = next(m for m in told["measures"] if m["stage"] == "score")
    edge = score["edges"][len(score["edges"]) * 3 // 4]
    expected = sum(n for e, n in zip(score["edges"], score["counts"], strict=True) if e >= edge)
    printed = here("replay", finished.run, "-o", tmp_path / "r", "--set", f"score.threshold={edge}", "--json").stdout
    assert json.loads(printed)["stages"]["score"]["kept"] == expected


def test_the_gallery_shows_every_reason_with_its_words(finished: Finished) -> None:
    told = aggregate(str(finished.run), finished.told)
    reasons = {r for s in finished.told["stages"].values() for r in (*s["dropped"], *s["failures"])} | {"kept"}
    assert set(told["gallery"]) == reasons == set(told["words"])
    assert all("thumb" in p for p in told["gallery"]["kept"])
    assert any("thumb" in p for p in told["gallery"]["low_score"])
    assert words("fetch_http_404") == ("fetch failed: http 404", "下载失败：http 404")


def test_the_funnel_has_a_row_per_stage(finished: Finished) -> None:
    assert funnel_table(finished.told).row_count == len(finished.told["stages"])
    assert {s.name for s in load("oppovl").stages} <= set(finished.told["stages"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("the page test needs Debian's chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "no-first-run",
        "disable-sync",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1200,1600")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, Service(driver))
    yield opened
    opened.quit()


def test_the_page_in_a_browser(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    assert browser.execute_script("return window.hacked") is None
    assert "</script><script>window.hacked" in browser.find_element("id", "pairs").text
    slider = browser.find_element("css selector", '[data-measure="score.threshold"]')
    panel = slider.find_element("xpath", "..")
    before = panel.find_element("class name", "passes").text
    browser.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", slider)
    after = panel.find_element("class name", "passes").text
    assert int(after.replace(",", "")) > int(before.replace(",", ""))
    assert re.search(r"--set score\.threshold=-?[\d.]+", panel.text)
    browser.find_element("css selector", '[data-reason="image_unsafe"]').click()
    images = browser.find_elements("css selector", "#pairs img")
    assert images
    assert all("blurred" in i.get_attribute("class") for i in images)
    images[0].click()
    assert "blurred" not in images[0].get_attribute("class")
    browser.find_element("id", "language").click()
    assert "漏斗" in browser.find_element("tag name", "main").text
    assert browser.find_element("tag name", "html").get_attribute("lang") == "zh-CN"
