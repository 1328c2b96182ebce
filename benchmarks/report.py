"""The report page: how fast it is made, how large it is, how soon a browser shows it, and whether it tells the truth.

    python benchmarks/report.py [--rows 1000000] [--run RUN] [--replays 3] [--quick] [--check]

Without RUN the sample crawl is run first (with --measure-all). Its ledger is then laid out again and again, with
keys of its own and measures moved a little, until it has ROWS rows: that is what a large run looks like to the page,
with pictures as many as a run keeps. Printed are rows a second, the page's bytes, and the time to the first paint and
to the loaded page in headless Chromium (the median of five). The control is the same page of the run itself: what
makes the large page slower to open would be the ledger, and it should be nothing.

Then every slider: with ``curate replay --set`` at another value, does the replay's own run.json say what the slider
said? ``--replays N`` is how many values per slider; 0 leaves it out. Exit code 1 under --check where one differs or a
page is larger than its limit.
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
from statistics import median
from typing import Any

import polars as pl

from tuwen import __version__
from tuwen.export.aggregate import aggregate
from tuwen.export.report import LIMIT, write_report
from tuwen.pipeline import engine
from tuwen.pipeline.replay import replay

PER_FILE = 250_000


def curate(*words: str | Path) -> None:
    """A command as a user would give it."""
    command = [sys.executable, "-m", "tuwen.pipeline.cli", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def large(run: Path, out: Path, rows: int) -> Path:
    """A run directory whose ledger has ``rows`` rows, made of those of ``run``."""
    out.mkdir()
    (out / "ledger").mkdir()
    told = json.loads((run / "run.json").read_text("utf-8"))
    ledger = pl.read_parquet(run / "ledger" / "*.parquet")
    copies = -(-rows // ledger.height)
    for number, start in enumerate(range(0, copies, max(1, PER_FILE // ledger.height))):
        frames = [copy(ledger, i) for i in range(start, min(copies, start + max(1, PER_FILE // ledger.height)))]
        pl.concat(frames).write_parquet(out / "ledger" / f"train-{number:06}.parquet")
    counted = {k: n * copies for k, n in told["counts"].items()}
    stages = {name: {k: _times(v, copies) for k, v in stage.items()} for name, stage in told["stages"].items()}
    (out / "run.json").write_text(json.dumps(told | {"counts": counted, "stages": stages}, ensure_ascii=False))
    shutil.copy(run / "thumbs.parquet", out / "thumbs.parquet")
    return out


def _times(value: Any, copies: int) -> Any:
    if isinstance(value, dict):
        return {k: n * copies for k, n in value.items()}
    return value * copies if isinstance(value, int) else value


def copy(ledger: pl.DataFrame, number: int) -> pl.DataFrame:
    """The rows once more: other keys and units, scores and sharpness moved by less than a slider's step."""
    if not number:
        return ledger
    moved = (pl.col("ordinal").cast(pl.Float32) * 0.618 + number * 0.414) % 1.0
    return ledger.with_columns(
        key=pl.format("{}{}", pl.lit(f"{number:08x}"), pl.col("key").str.slice(8)),
        unit=pl.format("{}-{}", "unit", pl.lit(number)),
        score=(pl.col("score") + (moved - 0.5) * 0.01).round(4),
        sharpness=(pl.col("sharpness") * (0.95 + moved * 0.1)).cast(pl.Float32),
        image_url=pl.col("image_url").str.replace("sample", f"sample{number % 97}", literal=True),
    )


def browser() -> Any:
    """Headless Chromium, English, light."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1280,1000", "lang=en-US"):
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def opened(path: Path) -> tuple[float, float]:
    """Milliseconds to the first paint and to the loaded page, the median of five."""
    chromium, told = browser(), []
    try:
        for _ in range(5):
            chromium.get(path.as_uri())
            time.sleep(0.5)
            told.append(
                chromium.execute_script(
                    "return [performance.getEntriesByName('first-contentful-paint')[0]?.startTime,"
                    " performance.getEntriesByType('navigation')[0].loadEventEnd]"
                )
            )
    finally:
        chromium.quit()
    return median(t[0] for t in told if t[0]), median(t[1] for t in told)


def photograph(path: Path, out: Path) -> None:
    """The funnel, the thresholds and the pictures of two measures, as one PNG."""
    chromium = browser()
    try:
        chromium.set_window_size(1280, 2500)
        chromium.get(path.as_uri())
        chromium.execute_script("document.querySelectorAll('.notice').forEach((n) => n.remove())")
        time.sleep(0.5)
        chromium.save_screenshot(str(out))
    finally:
        chromium.quit()


def measure(run: Path, name: str) -> int:
    """Print one line about the page of ``run``; returns its bytes."""
    rows = int(pl.scan_parquet(run / "ledger" / "*.parquet").select(pl.len()).collect().item())
    started = time.perf_counter()
    write_report(str(run))
    seconds = time.perf_counter() - started
    size = (run / "report.html").stat().st_size
    paint, load = opened(run / "report.html")
    print(
        f"{name:<10} {rows:>9,} rows  page in {seconds:6.1f} s ({rows / seconds:>9,.0f} rows/s)  "
        f"{size / 1e6:5.2f} MB  first paint {paint:5.0f} ms  loaded {load:5.0f} ms"
    )
    return size


def exact(run: Path, per_slider: int, folder: Path) -> int:
    """Replay values of every slider and print slider against replay; returns how many differ."""
    told = json.loads((run / "run.json").read_text("utf-8"))
    sliders = aggregate(str(run), told)["controls"]
    wrong = 0
    print(f"\n{'slider':<30} {'value':>12} {'slider says':>12} {'replay says':>12}")
    for control in sliders:
        others = [i for i in range(len(control["stops"])) if i != control["now"]]
        for i in others[:: max(1, len(others) // per_slider)][:per_slider]:
            value = control["stops"][i]
            word = str(value).lower() if isinstance(value, bool) else value
            out = folder / "replayed"
            config = engine.RunConfig(inputs=(), out=str(out), workers=1, fresh=True)
            again = replay(str(run), [f"{control['name']}={word}"], config)
            counted = survivors(again) if control["phase"] == "measure" else again["stages"][control["stage"]]["kept"]
            same = counted == control["kept"][i]
            wrong += not same
            mark = "" if same else "  DIFFERS"
            print(f"{control['name']:<30} {word!s:>12} {control['kept'][i]:>12,} {counted:>12,}{mark}", flush=True)
    print(f"{wrong} of them differ")
    return wrong


def survivors(told: dict[str, Any]) -> int:
    """Pairs that passed every rule on the pair itself: all that were not lost in reading and measuring."""
    measuring = {s["name"] for s in told["recipe"]["stages"]} - relating(told)
    lost = sum(
        sum(row["dropped"].values()) + row["failed"]
        for name, row in told["stages"].items()
        if name == "read" or name in measuring
    )
    return int(told["counts"]["inputs"]) - lost


def relating(told: dict[str, Any]) -> set[str]:
    """The stages of the run that relate pairs or come after."""
    from tuwen.pipeline.registry import stage_class

    return {s["name"] for s in told["recipe"]["stages"] if stage_class(s["name"]).phase != "measure"}


def main() -> int:
    """Measure, print, and under --check say whether it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run made with --measure-all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--replays", type=int, default=3, help="values per slider")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, no replays")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--screenshot", type=Path, help="write the page's first screens as a PNG (docs/report.png)")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.replays = 20_000, 0
    print(f"tuwen {__version__}, polars {pl.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = given.run
        if run is None:
            run = folder / "run"
            curate("sample", folder / "sample")
            curate("run", folder / "sample", "-o", run, "--measure-all", "--json")
        copied = folder / "small"
        shutil.copytree(run, copied, ignore=shutil.ignore_patterns("parts", "shards"))
        print(f"data: the ledger of {'the sample crawl' if given.run is None else given.run.name}, laid out again\n")
        sizes = [measure(copied, "the run"), measure(large(run, folder / "large", given.rows), "laid out")]
        if given.screenshot:
            photograph(copied / "report.html", given.screenshot)
        wrong = exact(run, given.replays, folder) if given.replays else 0
    return int(given.check and (wrong > 0 or max(sizes) > LIMIT))


if __name__ == "__main__":
    sys.exit(main())
