"""What several folders' tests share: one sample crawl and one finished run of the main job on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from filelock import FileLock

from tuwen.pipeline import terminal
from tuwen.pipeline.cli import main
from tuwen.sample_data.generate import write_sample


@dataclass(frozen=True)
class Finished:
    """A finished run, the sample it ran on, and what the command printed."""

    run: Path
    sample: Path
    told: dict[str, Any]


def curate(*words: str | Path, check: bool = True, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would, in a process of its own."""
    command = [sys.executable, "-m", "tuwen.pipeline.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    return checked(done) if check else done


def here(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``curate`` in this process: half of a short command's time is the imports, which then are made once."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with ExitStack() as stack:
        for name, value in (("argv", ["curate", *map(str, words)]), ("stdout", out), ("stderr", err)):
            stack.enter_context(patch.object(sys, name, value))
        for console, file in ((terminal.out, out), (terminal.err, err)):
            stack.callback(setattr, console, "file", console.file)
            console.file = file
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    done = subprocess.CompletedProcess([*map(str, words)], int(code), out.getvalue(), err.getvalue())
    return checked(done) if check else done


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """``done``, where it ended well."""
    if done.returncode:
        raise AssertionError(f"{done.args} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The main job on the sample crawl, with everything measured; made once for all test processes."""
    root = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )
    sample, run, done = root / "shared-sample", root / "shared-run", root / "shared.json"
    with FileLock(root / "shared.lock"):
        if not done.exists():
            write_sample(sample, seed=3)
            told = curate("run", sample, "-o", run, "--measure-all", "--json", "-j", "1").stdout
            done.write_text(told)
    return Finished(run, sample, json.loads(done.read_text()))
