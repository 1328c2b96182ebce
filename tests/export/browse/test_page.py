"""The page in a real browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.export.browse.conftest import Served, ask

pytest.importorskip("selenium")
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys


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
        "lang=en",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, Service(driver))
    yield opened
    opened.quit()


def until(test: Callable[[], Any], seconds: float = 20) -> Any:
    """What ``test`` gives, once it gives something; the page may redraw what ``test`` is just looking at."""
    end = time.monotonic() + seconds
    while True:
        try:
            told = test()
        except StaleElementReferenceException:
            told = None
        if told or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert told
    return told


def test_the_page(browser: Any, small: Path, served: Served, tmp_path: Path) -> None:
    server = served(small)

    def one(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    def total() -> int:
        return int("".join(c for c in one("#total").text if c.isdigit()) or -1)

    def press(*keys: str) -> None:
        for key in keys:
            browser.switch_to.active_element.send_keys(key)

    browser.get(server.url)
    everything = until(lambda: len(browser.find_elements("css selector", ".pair")))
    assert everything == total() == ask(server.url + "api/pairs").json["total"]

    # A search by meaning, then by words; what is hostile in a caption stays text.
    one("#query").send_keys("湖边的红色房子", Keys.ENTER)
    until(lambda: "the nearest" in one("#total").text)
    first = ask(
        server.url
        + "api/pairs?text=湖边的红色房子".replace(
            "湖边的红色房子", "%E6%B9%96%E8%BE%B9%E7%9A%84%E7%BA%A2%E8%89%B2%E6%88%BF%E5%AD%90"
        )
    ).json
    assert one(".pair").get_attribute("data-row") == str(first["pairs"][0]["row"])
    if folder := os.environ.get("TUWEN_SCREENSHOTS"):
        time.sleep(1)
        browser.save_screenshot(str(Path(folder) / "browse.png"))
    one("#chips button").click()
    until(lambda: total() == everything)
    one("[value=holding] + span").click()
    one("#query").clear()
    one("#query").send_keys("</script>", Keys.ENTER)
    until(lambda: total() == 1)
    assert "</script><script>window.hacked" in one(".pair").text
    assert browser.execute_script("return window.hacked") is None

    # By the keyboard: a pair, its story, the next, closed.
    one("#chips button").click()
    until(lambda: total() == everything)
    browser.execute_script("document.activeElement.blur()")
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    second = browser.find_elements("css selector", ".pair")[1]
    assert browser.switch_to.active_element == second
    press(Keys.ENTER)
    until(lambda: one("#story").is_displayed())
    key = one("#story .soft").text.split()[0]
    assert key == ask(server.url + "api/pair?row=" + second.get_attribute("data-row")).json["key"]
    assert "score" in one("#story").text
    press("n")
    until(lambda: one("#story .soft").text.split()[0] != key)
    press("m")
    until(lambda: "like=" in browser.current_url)
    assert not one("#story").is_displayed()

    # Unsafe pictures are blurred until they are asked for.
    one('[data-reason="all"]').click()
    one("#chips button").click()
    one('[data-reason="image_unsafe"]').click()
    until(lambda: total() == 2)
    assert len(browser.find_elements("css selector", "#pairs .blurred img")) == 2
    one(".reveal").click()
    assert len(browser.find_elements("css selector", "#pairs .blurred img")) == 1
    assert not one("#story").is_displayed()

    # The list of this selection, a search by a picture, one that is none.
    keys = ask(one("#txt").get_attribute("href")).body.decode().split()
    assert len(keys) == 2
    one('[data-reason="all"]').click()
    until(lambda: total() == everything)
    kept = ask(server.url + "api/pairs?status=kept&count=1").json["pairs"][0]["row"]
    picture = tmp_path / "query.png"
    Image.open(io.BytesIO(ask(f"{server.url}image?row={kept}&size=large").body)).save(picture)
    one("#file").send_keys(str(picture))
    until(lambda: "upload=" in browser.current_url and one(".pair .soft").text.startswith("cosine"))
    (tmp_path / "no.png").write_text("nothing")
    one("#file").send_keys(str(tmp_path / "no.png"))
    until(lambda: "no picture that can be read" in one("#error").text)

    # Order by a measure with bounds; Chinese; dark; both are remembered.
    one("#chips button").click()
    browser.execute_script(
        "const o = document.getElementById('order'); o.value = 'score'; o.dispatchEvent(new Event('change'))"
    )
    until(lambda: "order=-score" in browser.current_url and "score" in one(".pair .soft").text)
    one("#least").send_keys("0.45", Keys.ENTER)
    until(lambda: total() < everything)
    one("#language").click()
    assert "全部图文" in one("#facets").text
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    one("#theme").click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    browser.refresh()
    until(lambda: "全部图文" in one("#facets").text)
    assert one("html").get_attribute("lang") == "zh-CN"

    # Every control has a name, nothing failed but the upload that had to, and nothing else was asked for.
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, a')].filter(n => n.type !== 'file' && "
        "!(n.textContent.trim() || n.getAttribute('aria-label') || n.closest('label'))).map(n => n.outerHTML)"
    )
    assert unnamed == []
    severe = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert [m for m in severe if "/api/image" not in m] == []
    asked = [e["message"] for e in browser.get_log("performance") if '"Network.requestWillBeSent"' in e["message"]]
    urls = {json.loads(m)["message"]["params"]["request"]["url"] for m in asked}
    assert {u for u in urls if not u.startswith((server.url, "blob:" + server.url))} == set()
