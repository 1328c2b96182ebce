"""The report and the comparison in a real browser."""

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
from tuwen.export.compare import changes
from tuwen.export.report import LIMIT, write_comparison, write_report
from tuwen.export.report import page as page_of
from tuwen.pipeline.ledger import scan_ledger

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

FOUND: dict[str, Any] = {
    "samples_seen": 19200,
    "questions": 300,
    "settings": {"seeds": 3},
    "main": {
        "verdict": "gain",
        "ratio": 2.5,
        "pairs_share": 0.41,
        "arms": [{"arm": "raw", "pairs": 900, "r1": 0.123}, {"arm": "curated", "pairs": 369, "r1": 0.308}],
    },
    "stages": [
        {
            "stage": "score",
            "only_it_drops": 321,
            "seconds_per_point": 1.5,
            "leave_out": {
                "gain": {"mean": 0.15, "low": 0.1, "high": 0.2, "verdict": "gain"},
                "over_random": {"mean": 0.01, "low": -0.04, "high": 0.06, "verdict": "unproven"},
            },
        },
        {"stage": "length", "only_it_drops": 2, "seconds_per_point": None},
    ],
}
"""As much of a value.json as the report reads."""


@pytest.fixture(scope="module")
def run(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run in which one caption is hostile."""
    copied = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(finished.run, copied, ignore=shutil.ignore_patterns("parts"))
    path = next((copied / "ledger").glob("train-*.parquet"))
    rows = pl.read_parquet(path).sort("key")
    rows = rows.with_columns(
        caption_raw=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(HOSTILE)).otherwise("caption_raw")
    )
    rows.write_parquet(path)
    (copied / "value.html").write_text("<p>what the data is worth</p>")
    (copied / "value.json").write_text(json.dumps(FOUND))
    write_report(str(copied))
    return copied


@pytest.fixture
def opened(browser: Any, run: Path) -> Iterator[Any]:
    browser.get((run / "report.html").as_uri())
    yield browser
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def find(browser: Any, css: str) -> list[Any]:
    return list(browser.find_elements("css selector", css))


def press(browser: Any, key: str) -> None:
    browser.execute_script(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))",
        key,
    )


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def test_hostile_captions_stay_text_and_nothing_is_fetched(opened: Any) -> None:
    assert opened.execute_script("return window.hacked") is None
    assert "</script><script>window.hacked" in opened.find_element("id", "shown").text
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_every_slider_shows_its_counts(opened: Any, run: Path) -> None:
    told = aggregate(str(run), json.loads((run / "run.json").read_text()))
    opened.execute_script("document.getElementById('quiet').open = true")
    for control in told["controls"]:
        panel = find(opened, f'[data-panel="{control["name"]}"]')[0]
        for i in {0, control["now"], len(control["stops"]) - 1}:
            opened.execute_script(
                """const [name, i] = arguments, inputs = [...document.querySelectorAll(`[data-control="${name}"]`)];
                if (inputs[0].type === "range") { inputs[0].value = i; inputs[0].dispatchEvent(new Event("input")); }
                else { inputs[i].click(); }""",
                control["name"],
                i,
            )
            assert number(panel.find_element("class name", "passes").text) == control["kept"][i], control["name"]
            value = control["stops"][i]
            said = json.dumps(value) if value != int(value) or isinstance(value, bool) else str(int(value))
            assert panel.find_element("css selector", ".set code").text == f"--set {control['name']}={said}"
    assert "--set score.threshold=" in opened.find_element("id", "command").text


def test_a_slider_moves_by_keyboard_and_is_reset(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    slider = find(opened, '[data-control="score.threshold"]')[0]
    panel = find(opened, '[data-panel="score.threshold"]')[0]
    before = panel.find_element("class name", "passes").text
    for _ in range(12):
        slider.send_keys(Keys.ARROW_RIGHT)
    assert number(panel.find_element("class name", "passes").text) < number(before)
    assert re.fullmatch(r"[\d.]+: [\d,]+", slider.get_attribute("aria-valuetext"))
    find(opened, "#change button")[-1].click()
    panel = find(opened, '[data-panel="score.threshold"]')[0]
    assert panel.find_element("class name", "passes").text == before
    assert not find(opened, "#change")[0].is_displayed()


def test_galleries_filter_and_reasons_open_from_the_funnel(opened: Any) -> None:
    find(opened, '[data-open="low_score"]')[0].click()
    assert find(opened, '[data-reason="low_score"]')[0].get_attribute("aria-pressed") == "true"
    assert re.search(r"score -?[\d.]+ < 0.3 \(score.threshold\)", opened.find_element("id", "shown").text)
    shown = find(opened, "#shown article")
    words = shown[0].find_element("css selector", "p").text
    find(opened, "#filter")[0].send_keys(words)
    left = find(opened, "#shown article")
    assert 1 <= len(left) < len(shown)
    assert all(words in card.text for card in left)
    press(opened, "j")
    assert find(opened, '[data-reason="low_score"]')[0].get_attribute("aria-pressed") == "false"


def test_masked_and_cut_words_are_marked(opened: Any) -> None:
    marks = {m.get_attribute("class") for m in find(opened, "#shown mark")}
    assert marks & {"mask", "cut"}


def test_unsafe_pictures_are_blurred_until_asked_for(opened: Any) -> None:
    find(opened, '[data-reason="image_unsafe"]')[0].click()
    boxes = find(opened, "#shown .see")
    assert boxes
    assert all("hidden" in b.get_attribute("class") for b in boxes)
    image = boxes[0].find_element("css selector", "img")
    assert "blur" in image.value_of_css_property("filter")
    assert "unsafe" in image.get_attribute("alt")
    boxes[0].find_element("css selector", "button").click()
    assert image.value_of_css_property("filter") == "none"
    assert "hidden" in boxes[1].get_attribute("class")
    press(opened, "b")
    assert not find(opened, "#shown .see.hidden")


def test_dark_light_and_chinese(opened: Any) -> None:
    root = opened.find_element("tag name", "html")
    body = opened.find_element("tag name", "body")
    before = root.get_attribute("data-theme"), body.value_of_css_property("background-color")
    press(opened, "t")
    assert root.get_attribute("data-theme") != before[0]
    assert body.value_of_css_property("background-color") != before[1]
    press(opened, "l")
    assert root.get_attribute("lang") == "zh-CN"
    text = opened.find_element("tag name", "body").text
    assert all(word in text for word in ("漏斗", "阈值", "图文不匹配", "图文对", "深色"))
    english = re.findall(r"nothing lost|as now|pairs read|at the end", text)
    assert english == []
    press(opened, "?")
    assert "快捷键" in opened.find_element("id", "keys").text


NAMELESS = """
const labels = (n) => (n.labels ? [...n.labels].map((l) => l.textContent).join("") : "");
const name = (n) => (n.getAttribute("aria-label") || n.textContent || n.title || labels(n)).trim();
const controls = document.querySelectorAll("button, a[href], input, select, summary, [role=img]");
const images = [...document.querySelectorAll("img")].filter((n) => !n.hasAttribute("alt"));
const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
const levels = [...document.querySelectorAll("h1, h2, h3")].map((n) => +n.tagName[1]);
return [
  [...controls].filter((n) => !name(n)).map((n) => n.outerHTML.slice(0, 120)),
  images.length,
  ids.filter((x, i) => ids.indexOf(x) !== i),
  levels.filter((h, i) => i && h > levels[i - 1] + 1),
  document.querySelectorAll("main").length,
];
"""
"""Controls without a name, pictures without words, ids given twice, headings that skip a level, main landmarks."""

CONTRAST = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const linear = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (n) => {
  for (; n; n = n.parentElement) {
    const c = parse(getComputedStyle(n).backgroundColor);
    if (c.length < 4 || c[3] > 0.9) return c;
  }
  return [255, 255, 255];
};
const bad = [];
for (const n of document.querySelectorAll("body *")) {
  const own = [...n.childNodes].some((k) => k.nodeType === 3 && k.textContent.trim());
  const away = n.closest("svg, script, noscript, [hidden], dialog:not([open])") || !n.getClientRects().length;
  if (!own || away) continue;
  const a = light(parse(getComputedStyle(n).color)), b = light(ground(n));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) bad.push([n.className || n.tagName, n.textContent.slice(0, 20), Math.round(ratio * 10) / 10]);
}
return bad;
"""
"""Text whose contrast with its ground is under 4.5, which WCAG 2 asks of small text."""


def test_every_control_has_a_name_and_text_stands_out(opened: Any) -> None:
    opened.execute_script("document.getElementById('quiet').open = true")
    nameless, images, twice, jumps, mains = opened.execute_script(NAMELESS)
    assert (nameless, images, twice, jumps, mains) == ([], 0, [], [], 1)
    for _ in range(2):
        assert opened.execute_script(CONTRAST) == []
        press(opened, "t")


def test_pictures_of_two_measures_follow_their_axes(opened: Any) -> None:
    from selenium.webdriver.support.select import Select

    before = len(find(opened, "#measures svg")[0].find_elements("css selector", "rect"))
    assert before > 20
    Select(find(opened, '[data-axis="01"]')[0]).select_by_visible_text("sharpness")
    picture = find(opened, "#measures svg")[0]
    assert picture.get_attribute("aria-label").endswith("× sharpness")


def test_duplicates_stand_beside_the_pair_that_stays(opened: Any) -> None:
    twins = find(opened, "#duplicates .twin")
    assert twins
    pictured = [t for t in twins if len(t.find_elements("css selector", "img")) == 2]
    assert len(pictured) >= 3


def test_what_lies_beside_the_report_is_linked(opened: Any) -> None:
    links = {a.get_attribute("href").rsplit("/", 1)[-1] for a in find(opened, "#summary a")}
    assert {"value.html", "README.md", "croissant.json"} <= links


def test_what_each_filter_bought(opened: Any) -> None:
    part = opened.find_element("id", "worth")
    assert "2.5 times the R@1 of raw data with 41 %" in part.text
    rows = [r.text.replace("\n", " ") for r in part.find_elements("css selector", ".wide tbody tr")]
    assert len(rows) == 1  # stages that were not trained with and without are not here
    assert all(w in rows[0] for w in ("score", "321", "+15.0 [10.0, 20.0]", "+1.0 [-4.0, 6.0] unproven", "1.5"))
    arms = part.find_elements("css selector", ".arms tbody tr")
    assert [a.text for a in arms] == ["raw 900 12.3", "curated 369 30.8"]


def test_it_prints_without_controls(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not any(n.is_displayed() for n in find(opened, "input[type=range], .tools, #contents, .set button"))
        assert any(n.is_displayed() for n in find(opened, "#shown article"))
        assert opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_page_is_small(run: Path) -> None:
    assert (run / "report.html").stat().st_size < LIMIT


@pytest.fixture(scope="module")
def stricter(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stricter") / "replayed"
    here("replay", finished.run, "-o", out, "--set", "score.threshold=0.6")
    return out


def test_two_runs_beside_one_another(browser: Any, finished: Finished, stricter: Path) -> None:
    printed = here("report", stricter, "--against", finished.run).stdout
    found = changes(scan_ledger(str(finished.run)), scan_ledger(str(stricter)))
    assert f"{found.height} pairs end otherwise" in printed
    lost = found.filter(pl.col("was") == "kept", pl.col("now") == "low_score").height
    browser.get((stricter / "comparison.html").as_uri())
    chip = find(browser, '[data-change="kept>low_score"]')[0]
    assert lost == number(chip.text)
    chip.click()
    cards = find(browser, "#shown article")
    assert cards
    assert all("score.threshold" in c.text for c in cards)
    row = next(r for r in find(browser, "#summary tr") if "score.threshold" in r.text)
    assert "0.3" in row.text
    assert "0.6" in row.text
    assert browser.execute_script(NAMELESS)[0] == []
    press(browser, "t")
    assert browser.execute_script(CONTRAST) == []
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_a_run_against_itself_has_no_change(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "r", ignore=shutil.ignore_patterns("parts", "shards"))
    told = write_comparison(str(tmp_path / "r"), str(finished.run))
    assert (told["changed"], told["fields"], told["changes"]) == (0, [], [])
    assert b"comparison" in page_of(told)


def test_a_pair_that_one_run_alone_has_is_absent_in_the_other(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "r", ignore=shutil.ignore_patterns("parts", "shards"))
    path = sorted((tmp_path / "r" / "ledger").glob("*.parquet"))[0]
    rows = pl.read_parquet(path)
    rows.slice(1).write_parquet(path)
    found = changes(scan_ledger(str(tmp_path / "r")), scan_ledger(str(finished.run)))
    assert found.select("was", "key").rows() == [("absent", rows["key"][0])]
    told = write_comparison(str(tmp_path / "r"), str(finished.run))
    assert told["changes"][0][1] == "absent"
