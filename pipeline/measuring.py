"""The measure phase over all units of a run: what is left to do, what is tried again alone, what failed in the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import apache_beam as beam

from . import attempts, beam_run, files
from .errors import RunError
from .measure import MeasureOptions, MeasureUnit, record_failure
from .recipe import Recipe
from .units import Unit

if TYPE_CHECKING:
    from .engine import RunConfig

log = logging.getLogger(__name__)

THUMB_UNITS = 64
"""How many units write thumbnails: enough for the report, nothing at a million units."""


def measure(config: RunConfig, recipe: Recipe, units: dict[str, Unit]) -> None:
    """Measure the units that have no part file yet; a unit that fails is named at the end."""
    shown = set(sorted(units)[:THUMB_UNITS])

    def started(todo: list[Unit], apart: bool) -> None:
        elements = [(u, u.id in shown) for u in todo]
        step = MeasureUnit(recipe.phase("measure"), MeasureOptions(config.parts, config.dropped_too))
        beam_run.run(
            "measure",
            lambda p: p | "Units" >> beam.Create(elements, reshuffle=True) | "Measure" >> beam.ParDo(step),
            beam_run.pipeline_options(config.beam_args, beam_run.processes(config.workers, len(todo)), apart),
        )

    while todo := _unmeasured(config, units):
        before = attempts.begun(config.parts)
        together = [u for u in todo if before.get(u.id, 0) < attempts.SUSPECT]
        try:
            if together:
                started(together, apart=bool(before))  # this process must not die of what another died of
        except Exception as error:
            if attempts.begun(config.parts) == before:  # not the work of a unit
                raise
            log.warning("the pipeline ended early and is started again: %s", error)
            continue
        for unit in todo:
            if before.get(unit.id, 0) >= attempts.SUSPECT:
                _measure_alone(config, unit, started)
        break
    broken = [u.id for u in _unmeasured(config, units)]
    attempts.end(config.parts, set(attempts.begun(config.parts)) - set(broken))
    if broken:
        raise RunError(_broken(config, broken, len(units)))


def _broken(config: RunConfig, broken: list[str], total: int) -> str:
    lines = [f"{len(broken)} of {total} units failed; the others are done and are kept. To retry: the same command."]
    for unit in broken[:5]:
        path = files.join(config.parts, f"{unit}.error.json")
        told = json.loads(files.read_bytes(path)) if files.exists(path) else {"files": [], "error": "no word of it"}
        lines.append(f"  unit {unit} ({', '.join(told['files'][:2])}): {told['error']}")
    return "\n".join(lines)


def _unmeasured(config: RunConfig, units: dict[str, Unit]) -> list[Unit]:
    done = set(files.names(config.parts, ".parquet"))
    return [u for i, u in sorted(units.items()) if f"{i}.parquet" not in done]


def _measure_alone(config: RunConfig, unit: Unit, started: Callable[..., None]) -> None:
    """Measure a unit that others may have died of; where its process dies again, that is the unit's failure."""
    try:
        started([unit], apart=True)
    except Exception as error:
        log.error("unit %s failed: its process died", unit.id, exc_info=True)
        cause = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        record_failure(config.parts, unit, f"its process died, as before, when it was measured alone: {cause[0][:300]}")
