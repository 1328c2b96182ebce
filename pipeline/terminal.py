"""What commands print: bars and tables on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:  # the engine loads Beam, which takes seconds
    from .engine import Progress as Report

PLAIN_WIDTH = 150
"""Columns of a table where nothing tells the width: a log file's reader scrolls better than they unfold."""

EVERY = 10.0
"""Seconds between two plain lines of one phase."""


def _console(file: TextIO) -> Console:
    console = Console(file=file, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(file=file, highlight=False, soft_wrap=True, width=PLAIN_WIDTH)


out = _console(sys.stdout)
# A descriptor of its own: while local workers run, theirs is turned aside (beam_run.py).
err = _console(os.fdopen(os.dup(2), "w", buffering=1))

UNITS = {"measure": "units", "relate": "units", "emit": "shards", "train": "models"}


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def progress(as_json: bool = False, plain: bool = False, quiet: bool = False) -> Iterator[Report | None]:
    """A callback for the engine: bars on a terminal, lines elsewhere or where ``plain``, JSON lines for machines.

    None where ``quiet``. All of it goes to standard error, so that standard output holds the result alone.
    """
    if quiet:
        yield None
    elif as_json:
        yield Lines(lambda step: err.print(json.dumps(step.describe()), markup=False))
    elif err.is_terminal and not plain:
        with _bars() as bars:
            yield _drawer(bars)
    else:
        yield Lines(lambda step: err.print(step.said(), markup=False))


@dataclass
class Step:
    """Where a phase stands; the rate is that of this call, without what an earlier one had done."""

    phase: str
    total: int
    at_start: int
    started: float
    done: int = 0
    told: float = field(default=float("-inf"))
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Elements a second; None before the first."""
        fresh = self.done - self.at_start
        return fresh / self.seconds if fresh > 0 and self.seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds left at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def describe(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "phase": self.phase,
            "done": self.done,
            "total": self.total,
            "unit": UNITS.get(self.phase, ""),
            "seconds": round(self.seconds, 1),
            "rate": round(self.rate, 3) if self.rate else None,
            "left": round(self.left, 1) if self.left is not None else None,
        }

    def said(self) -> str:
        """The same for people."""
        text = f"{self.phase}: {self.done} of {self.total} {UNITS.get(self.phase, '')}".rstrip()
        if self.rate:
            text += f", {self.rate:.3g}/s"
        if self.left:
            text += f", {clock(self.left)} left"
        return f"{text} ({clock(self.seconds)})" if self.done == self.total else text


class Lines:
    """A line when a phase starts, every ten seconds, and when it is done."""

    def __init__(self, tell: Callable[[Step], None], now: Callable[[], float] = time.monotonic) -> None:
        self.tell, self.now = tell, now
        self.steps: dict[str, Step] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = self.now()
        step = self.steps.setdefault(phase, Step(phase, total, done, now, -1))
        ended = done == total and step.done != total
        step.seconds, moved = now - step.started, done != step.done
        step.done, step.total = done, total
        if ended or (moved and now - step.told >= EVERY):
            step.told = now
            self.tell(step)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Rate(ProgressColumn):
    """Elements a second."""

    def render(self, task: Task) -> Text:
        unit = UNITS.get(str(task.fields.get("phase")), "")
        return Text(f"{task.speed:.3g} {unit}/s" if task.speed else f"– {unit}/s", style="progress.data.speed")


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


def _drawer(bars: Progress) -> Report:
    tasks: dict[str, Any] = {}

    def draw(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(phase, total=total, phase=phase)
        bars.update(tasks[phase], completed=done, total=total)

    return draw
