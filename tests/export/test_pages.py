"""The report, the card and Croissant of a finished run; the page in a real browser."""

from __future__ import annotations

from tests.conftest import Finished
from tuwen.export.aggregate import aggregate
from tuwen.export.funnel import funnel_table
from tuwen.export.words import words
from tuwen.pipeline.recipe import load


def test_the_gallery_shows_every_reason_with_its_words(finished: Finished) -> None:
    told = aggregate(str(finished.run), finished.told)
    reasons = {r for s in finished.told["stages"].values() for r in (*s["dropped"], *s["failures"])} | {"kept"}
    assert set(told["gallery"]) == reasons <= set(told["words"])
    assert all("thumb" in p for p in told["gallery"]["kept"])
    assert any("thumb" in p for p in told["gallery"]["low_score"])
    assert words("fetch_http_404") == ("fetch failed: HTTP 404", "下载失败：HTTP 404")
    assert words("fetch_opted_out") == ("fetch failed: the site opted out", "下载失败：网站声明不可采集")


def test_the_funnel_has_a_row_per_stage(finished: Finished) -> None:
    assert funnel_table(finished.told).row_count == len(finished.told["stages"])
    assert {s.name for s in load("oppovl").stages} <= set(finished.told["stages"])
