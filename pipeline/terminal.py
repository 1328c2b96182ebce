"""What commands print: bars and tables on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:  # the engine loads Beam, which takes seconds
    from .engine import Progress as Report

PLAIN_WIDTH = 150
"""Columns of a table where nothing tells the width: a log file's reader scrolls better than they unfold."""


def _console(file: TextIO) -> Console:
    console = Console(file=file, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(file=file, highlight=False, soft_wrap=True, width=PLAIN_WIDTH)


out = _console(sys.stdout)
# A descriptor of its own: while local workers run, theirs is turned aside (beam_run.py).
err = _console(os.fdopen(os.dup(2), "w", buffering=1))

WORDS = {"measure": "measure (units)", "relate": "relate (units)", "emit": "emit (shards)"}


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def progress(quiet: bool) -> Iterator[Report | None]:
    """A callback that draws bars on a terminal and writes a line per finished phase elsewhere."""
    if quiet:
        yield None
    elif err.is_terminal:
        with _bars() as bars:
            yield _drawer(bars)
    else:
        yield _Lines()


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


def _drawer(bars: Progress) -> Report:
    tasks: dict[str, Any] = {}

    def draw(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(WORDS.get(phase, phase), total=total)
        bars.update(tasks[phase], completed=done, total=total)

    return draw


class _Lines:
    """A plain line when a phase starts and when it is done."""

    def __init__(self) -> None:
        self.said: set[tuple[str, bool]] = set()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if (phase, done == total) not in self.said:
            self.said.add((phase, done == total))
            err.print(f"{WORDS.get(phase, phase)}: {done} of {total}")
