"""Runs the loading snippets of a run's dataset card as they stand, one after the other, and prints what each printed.

    pip install duckdb datasets mlcroissant
    python benchmarks/loading.py [RUN] [--webdataset DIR] [--check]

Without RUN, the main job is run on the sample first. A snippet whose package is missing is skipped by name. What is
added to the training command, so that it ends on any machine: the embedded checkpoint instead of a model of 0.2
billion weights, batches of 8, one epoch of 16 pairs. open_clip's trainer does not read with webdataset 1.0; give a
folder with an older one (``pip install --target DIR --no-deps 'webdataset<0.3'``) as --webdataset. Last, mlcroissant
validates ``croissant.json`` and iterates its record sets.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tuwen.scoring.scorer import embedded_folder

NEEDS = {
    "webdataset": "webdataset",
    "open_clip": "open_clip_train",
    "datasets": "datasets",
    "polars": "polars",
    "duckdb": "duckdb",
}
CROISSANT = """import mlcroissant
found = mlcroissant.Dataset(jsonld="croissant.json")
print("errors", len(found.metadata.ctx.issues.errors), "warnings", len(found.metadata.ctx.issues.warnings))
for records in found.metadata.record_sets:
    every = list(found.records(records.id))
    print(records.id, len(every), {k: v for k, v in list(every[0].items())[:2]})
"""


def card_snippets(card: str) -> dict[str, tuple[str, str]]:
    """Title to (language, code) of the section on loading."""
    section = card.split("## Loading", 1)[1]
    return {
        t: (kind, code) for t, kind, code in re.findall(r"\*\*(\w+)\*\*[^\n]*\n\n```(\w+)\n(.*?)```", section, re.S)
    }


def shortened(command: str, logs: str) -> str:
    """The training command, small enough to end here."""
    named = Path(logs) / "coca"  # the trainer tells from the name that the model writes captions too
    named.symlink_to(embedded_folder().resolve())
    model = f"local-dir:{named}"
    return f"{command.rstrip()} --model {model} --batch-size 8 --epochs 1 --train-num-samples 16 --logs {logs}"


def run_snippet(title: str, kind: str, code: str, folder: Path, older: str = "") -> subprocess.CompletedProcess[str]:
    """One snippet in ``folder``, by this Python."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as scratch:
        environment |= {"HF_DATASETS_CACHE": scratch, "CROISSANT_CACHE": scratch}
        if kind == "bash":
            environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
            environment["PYTHONPATH"] = os.pathsep.join(p for p in (older, environment.get("PYTHONPATH", "")) if p)
            command = ["bash", "-c", shortened(code, scratch)]
        else:
            command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def main() -> None:
    """Run all, print, and tell which failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument(
        "--webdataset", default="", help="folder that holds an older webdataset, for open_clip's trainer"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 where one fails or is skipped")
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="tuwen-loading-") as made:
        folder = given.run
        if folder is None:
            folder = Path(made) / "run"
            for words in (["sample", f"{made}/sample"], ["run", f"{made}/sample", "-o", str(folder)]):
                subprocess.run([sys.executable, "-m", "tuwen.pipeline.cli", *words], check=True, capture_output=True)
        found = card_snippets((folder / "README.md").read_text())
        found["mlcroissant"] = ("python", CROISSANT)
        bad = []
        for title, (kind, code) in found.items():
            package = NEEDS.get(title, title)
            if importlib.util.find_spec(package) is None:
                print(f"\n{title}: skipped, {package} is not installed")
                bad.append(title)
                continue
            started = time.perf_counter()
            done = run_snippet(title, kind, code, folder, given.webdataset)
            named = {"open_clip_train": "open_clip_torch"}.get(package, package)
            ended = "ran" if done.returncode == 0 else "FAILED"
            print(f"\n{title} {version(named)}: {ended}, {time.perf_counter() - started:.1f} s")
            told = done.stdout
            if kind == "bash":
                told = "\n".join(re.findall(r"Train Epoch.*", done.stderr + done.stdout)[-1:])
            print("  " + (told if done.returncode == 0 else done.stderr[-1500:]).strip().replace("\n", "\n  "))
            if done.returncode:
                bad.append(title)
    if bad:
        print(f"\nnot run to the end: {', '.join(bad)}")
    if given.check and bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
