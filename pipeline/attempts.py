"""Units that were begun and not ended: what a worker process was at when it died.

A unit that only raises is recorded by its own step and stops nothing. One that takes its process with it (a crash in a
decoder, memory running out) fails the whole pipeline, and would fail it again at each try. So a unit leaves a
marker, ``<unit>.begun``, while it is worked on; what was begun twice and never ended is suspect and is measured after
all others, in a pipeline and a process of its own, where it can take nothing with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import files

BEGUN = ".begun"
SUSPECT = 2
"""Beginnings without an end from which on a unit runs alone; one is what any killed run leaves."""


def begin(parts: str, unit: str) -> None:
    """Note that ``unit`` is begun once more."""
    files.write_bytes(_path(parts, unit), b"%d" % (_times(parts, unit) + 1))


def end(parts: str, units: Iterable[str]) -> None:
    """Forget how often ``units`` were begun."""
    for unit in units:
        files.remove(_path(parts, unit))


def begun(parts: str) -> dict[str, int]:
    """Unit to how often it was begun, for those that were not ended."""
    units = [name.removesuffix(BEGUN) for name in files.names(parts, BEGUN)]
    return dict(zip(units, files.each(lambda unit: _times(parts, unit), units, parts), strict=True))


def _times(parts: str, unit: str) -> int:
    try:
        return int(files.read_bytes(_path(parts, unit)))
    except FileNotFoundError:
        return 0


def _path(parts: str, unit: str) -> str:
    return files.join(parts, f"{unit}{BEGUN}")
