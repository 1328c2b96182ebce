"""A newcomer's path, timed: from a clone to the opened report, on the sample and on a folder of images with sidecars.

    python benchmarks/newcomer.py [--source REPOSITORY] [--environment PYTHON] [--pictures 200] [--check]

Each path is two commands, typed here as a newcomer would in a new folder:

    git clone REPOSITORY tuwen
    tuwen/scripts/demo                                       (the sample)
    tuwen/scripts/curate run photos -o mine -r photos        (their own folder; the environment is there by then)

``opened`` is a headless Chromium that has loaded the report without an error on its console. Setting up the
environment downloads about 3 GB and is told apart (until its stamp is written). ``--environment`` names a Python that
has tuwen's dependencies instead; nothing is then set up, and that time is missing, which the output says. The pictures
of the folder are the sample's, saved with a .txt beside each before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pictures(folder: Path, sample: Path, most: int) -> int:
    """Pictures of a sample crawl as a folder of images with sidecars; how many."""
    folder.mkdir()
    made = 0
    for line in (sample / "pairs.jsonl").read_text("utf-8").splitlines():
        pair = json.loads(line)
        path = sample / "web" / pair["url"].split("://", 1)[1] if "url" in pair else None
        if made < most and path and path.is_file() and path.suffix in (".jpg", ".png"):
            shutil.copy(path, folder / f"{made:04d}{path.suffix}")
            (folder / f"{made:04d}.txt").write_text(pair["caption"], "utf-8")
            made += 1
    return made


def opened(page: Path) -> float:
    """Seconds until Chromium has loaded ``page``; ends the program where its console has an error."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        raise SystemExit("the report is opened in Chromium: install chromium and chromium-driver")
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = time.perf_counter()
    browser = webdriver.Chrome(options, Service(driver))
    try:
        browser.get(page.as_uri())
        took = time.perf_counter() - started
        errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
        if errors or not browser.find_elements("css selector", "main *"):
            raise SystemExit(f"{page.name} did not open cleanly: {errors or 'it is empty'}")
        return took
    finally:
        browser.quit()


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Seconds of a command that must end well."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        )
    return time.perf_counter() - started


def setup_seconds(clone: Path, began: float) -> float:
    """Seconds from ``began`` until the environment of ``clone`` was complete."""
    return max((p.stat().st_mtime for p in (clone / ".venv").glob(".tuwen-*")), default=began) - began


def main() -> None:
    """Clone, run, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(ROOT), help="what to clone (default: this repository)")
    parser.add_argument("--environment", type=Path, help="a Python that has the dependencies; sets up nothing")
    parser.add_argument("--pictures", type=int, default=200, help="pictures in the newcomer's folder, at most")
    parser.add_argument("--check", action="store_true", help="as always: ends with 1 where anything fails")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, {platform.system()}, Python {platform.python_version()}")
    commit = subprocess.run(["git", "-C", given.source, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    print(f"commit {commit.stdout.strip() or 'unknown'}; load {os.getloadavg()[0]:.1f} when it began\n")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory(prefix="tuwen-newcomer-") as made:
        folder = Path(made)
        clone = folder / "tuwen"
        cloned = timed(["git", "clone", "--quiet", given.source, "tuwen"], folder, environment)
        if given.environment:
            environment |= {"PYTHONPATH": str(clone)}
            curate = [str(given.environment), "-P", "-m", "tuwen.pipeline.cli"]  # -P: the clone lies here as tuwen/
            began = time.time()
            ran = timed([*curate, "sample", "tuwen/demo/sample"], folder, environment)
            ran += timed([*curate, "run", "tuwen/demo/sample", "-o", "tuwen/demo/run"], folder, environment)
        else:
            curate = [str(clone / "scripts" / "curate")]
            began = time.time()
            ran = timed([str(clone / "scripts" / "demo")], folder, environment)
        setup = setup_seconds(clone, began)
        seen = opened(clone / "demo" / "run" / "report.html")
        n = pictures(folder / "photos", clone / "demo" / "sample", given.pictures)
        own = timed([*curate, "run", "photos", "-o", "mine", "-r", "photos"], folder, environment)
        own_seen = opened(folder / "mine" / "report.html")
    told = "left out (--environment)" if given.environment else f"{setup:7.1f} s"
    print(f"{'git clone':44}{cloned:7.1f} s")
    print(f"{'the environment (3 GB)':44}{told}")
    print(f"{'the sample: crawl made, served, run':44}{ran - setup:7.1f} s")
    print(f"{'its report opened':44}{seen:7.1f} s")
    print(f"{f'own folder: {n} images with sidecars, run':44}{own:7.1f} s")
    print(f"{'its report opened':44}{own_seen:7.1f} s\n")
    print(f"{'clone to the opened report, sample':44}{cloned + ran + seen:7.1f} s, 2 commands")
    print(f"{'clone to the opened report, own folder':44}{cloned + setup + own + own_seen:7.1f} s, 2 commands")
    if given.check and n == 0:
        sys.exit("the sample had no pictures for the folder")


if __name__ == "__main__":
    main()
