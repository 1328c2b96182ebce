"""``curate value``: a study of a run from its ledger to ``value.json`` and its page."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ...export.report import write_report
from ...pipeline import files
from .findings import findings
from .page import page
from .study import Options, Progress, Study


def study(run: str, options: Options, progress: Progress | None = None, workers: int = 1) -> dict[str, Any]:
    """Train, judge, and write value.json and value.html into ``run``; returns what value.json holds.

    The run's report is written anew: it shows what each stage bought and links the page. ``workers`` processes train;
    what they find is the same for any number of them.
    """
    made = Study.of(run, options)
    if workers > 1:
        _train_beside(run, options, workers)
    made.train(progress)
    told = findings(made)
    text = json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    files.write_bytes(files.join(run, "value.json"), text.encode())
    files.write_bytes(files.join(run, "value.html"), page(told).encode())
    if files.exists(files.join(run, "report.html")):
        write_report(run)
    return told


def _train_beside(run: str, options: Options, workers: int) -> None:
    """Train with several processes: each takes every so-manieth arm and leaves its points on record."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(_share, run, options, i, workers) for i in range(workers)]:
            done.result()


def _share(run: str, options: Options, worker: int, workers: int) -> None:
    made = Study.of(run, options)
    for seed in range(options.budget.seeds):
        for arm in made.all_arms()[worker::workers]:
            made.point(arm, seed)
