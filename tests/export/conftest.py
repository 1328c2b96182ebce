"""A headless Chromium for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "disable-sync")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, speaking English, with what it logs."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("the page test needs Debian's chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, "window-size=1200,1600", "lang=en-US", "force-prefers-reduced-motion"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, Service(driver))
    yield opened
    opened.quit()
