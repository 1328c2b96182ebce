"""The measure phase: one unit at a time, from the input to a part file.

``measure_unit`` is the whole work and knows nothing of Beam; ``MeasureUnit`` is the shell that
runs it on any runner and turns its counts into Beam counters.

A unit's files appear in this order, each under its final name only when complete, and the last
marks the unit as done: ``<unit>.tar`` (bytes of the survivors), ``<unit>.thumbs.parquet``,
``<unit>.json`` (counts), ``<unit>.parquet`` (one row per pair).
"""

from __future__ import annotations

import json
import logging
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics import Metrics

from ..export.ustar import UstarWriter
from . import attempts, files
from .columns import COLUMNS, empty, with_missing, without
from .sources import read_unit
from .stage import VERDICT, StageModel, Tally, apply_stages, open_mask
from .thumbs import Thumbs
from .units import Unit

log = logging.getLogger(__name__)

SLICE_ROWS = 64
"""Rows that image stages see at once: bounds the bytes in memory to 64 times the fetch's size cap."""

PLACE = ("part", "offset", "length")
PART_COLUMNS = tuple(c.name for c in COLUMNS.values() if c.ledger or c.name in PLACE)


@dataclass(frozen=True)
class MeasureOptions:
    """How a unit is measured, apart from its stages.

    ``dropped_too`` measures pairs on after they were dropped and keeps their bytes, so that a
    replay may loosen any threshold.
    """

    parts: str
    dropped_too: bool = False
    thumbs: bool = True


@dataclass
class UnitCounts:
    """What one unit did; ``inputs`` is counted at the reader, before any stage."""

    unit: str
    inputs: int = 0
    stages: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))


def measure_unit(unit: Unit, stages: list[StageModel], options: MeasureOptions) -> UnitCounts:
    """Read ``unit``, run the measure stages over it and publish its part files."""
    counts = UnitCounts(unit.id)
    first = next((i for i, s in enumerate(stages) if s.on_images), len(stages))
    measure_batches(counts, _read(unit, stages[:first], counts, options), stages[first:], options)
    return counts


def measure_batches(
    counts: UnitCounts, batches: Iterable[pl.DataFrame], images: list[StageModel], options: MeasureOptions
) -> None:
    """Run the image stages over the batches of one unit and publish its part files, named by ``counts.unit``."""
    unit, thumbs = counts.unit, Thumbs()
    frames: list[pl.DataFrame] = []
    with ExitStack() as stack:
        local = stack.enter_context(files.publish(files.join(options.parts, f"{unit}.tar")))
        part = stack.enter_context(_Part(local, unit))
        for piece in _survivor_slices(batches, options):
            done = _through(images, piece, counts, options.dropped_too)
            if options.thumbs:
                thumbs.offer(done)
            frames.append(part.store(done, dropped_too=options.dropped_too))
    if options.thumbs:
        files.write_parquet(files.join(options.parts, f"{unit}.thumbs.parquet"), thumbs.frame())
    told = {"unit": unit, "inputs": counts.inputs, "stages": counts.stages}
    files.write_bytes(files.join(options.parts, f"{unit}.json"), json.dumps(told).encode())
    rows = with_missing(pl.concat([empty(*PART_COLUMNS), *frames], how="diagonal_relaxed"), PART_COLUMNS)
    rows = rows.select(PART_COLUMNS).sort("ordinal")
    files.write_parquet(files.join(options.parts, f"{unit}.parquet"), rows)


def _read(unit: Unit, text: list[StageModel], counts: UnitCounts, options: MeasureOptions) -> Iterator[pl.DataFrame]:
    """The unit's batches after the stages that need no image."""
    # What ships is the caption as found where no stage of the recipe writes another.
    as_found = not any("caption" in stage.adds for stage in text)
    for batch in read_unit(unit):
        counts.inputs += batch.height
        if as_found:
            batch = batch.with_columns(caption=pl.col("caption_raw"))
        yield _through(text, batch.with_columns(unit=pl.lit(unit.id)), counts, options.dropped_too)


def _through(stages: list[StageModel], batch: pl.DataFrame, counts: UnitCounts, dropped_too: bool) -> pl.DataFrame:
    return apply_stages(stages, batch, counts.stages, dropped_too)


def _survivor_slices(batches: Iterable[pl.DataFrame], options: MeasureOptions) -> Iterator[pl.DataFrame]:
    """Rows that image stages must see, gathered over batches into slices of ``SLICE_ROWS``; the others as they come.

    Gathering keeps the slices full where the text rules drop much, which is what a model's fixed batch wants.
    """
    waiting: pl.DataFrame | None = None
    for batch in batches:
        batch = with_missing(batch, VERDICT)
        still = open_mask(batch, options.dropped_too)
        rows = batch
        if not still.all():
            yield batch.filter(~still)
            rows = batch.filter(still)
        waiting = rows if waiting is None else pl.concat([waiting, rows], how="diagonal_relaxed")
        while waiting.height >= SLICE_ROWS:
            yield waiting.head(SLICE_ROWS)
            waiting = waiting.slice(SLICE_ROWS)
    if waiting is not None and waiting.height:
        yield waiting


class _Part:
    """The tar that holds the survivors' bytes; readable by hand, addressed by offset."""

    def __init__(self, path: Path, unit: str) -> None:
        self.path, self.unit = path, unit

    def __enter__(self) -> _Part:
        self.tar = UstarWriter(self.path).__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.tar.__exit__(*exc)

    def store(self, batch: pl.DataFrame, dropped_too: bool) -> pl.DataFrame:
        """Append the images of rows still alive; ``batch`` with part, offset and length, without the bytes."""
        if "image" not in batch.columns:
            return batch
        offsets: list[int | None] = []
        sizes: list[int | None] = []
        # A failed pair never ships; a dropped one only after a replay with other thresholds.
        keep = open_mask(with_missing(batch, VERDICT), dropped_too)
        for ordinal, image, stored in zip(batch["ordinal"], batch["image"], keep, strict=True):
            held = stored and image
            offsets.append(self.tar.add(f"{ordinal:08d}.jpg", image) if held else None)
            sizes.append(len(image) if held else None)
        return without(batch, "image", *PLACE).hstack(
            [
                pl.Series("part", [None if n is None else self.unit for n in sizes], dtype=pl.String),
                pl.Series("offset", offsets, dtype=pl.UInt64),
                pl.Series("length", sizes, dtype=pl.UInt32),
            ]
        )


def record_failure(parts: str, unit: Unit, error: str, trace: str = "") -> None:
    """Write down why ``unit`` failed: ``<unit>.error.json``, which a later success removes."""
    told: dict[str, Any] = {"unit": unit.id, "files": list(unit.files[:5]), "error": error, "traceback": trace}
    files.write_bytes(_error_file(parts, unit), json.dumps(told, ensure_ascii=False).encode())


def _error_file(parts: str, unit: Unit) -> str:
    return files.join(parts, f"{unit.id}.error.json")


class MeasureUnit(beam.DoFn):
    """Beam shell of ``measure_unit``: a unit that breaks is recorded and breaks nothing else."""

    def __init__(self, stages: list[StageModel], options: MeasureOptions) -> None:
        self.stages, self.options = stages, options

    def process(self, element: tuple[Unit, bool]) -> Iterable[str]:
        unit, thumbs = element
        options = MeasureOptions(self.options.parts, self.options.dropped_too, thumbs)
        log.info("unit %s: measuring %s", unit.id, unit.files[:3])
        attempts.begin(options.parts, unit.id)
        try:
            counts = measure_unit(unit, self.stages, options)
        except Exception as raised:
            log.error("unit %s failed: %s", unit.id, raised, exc_info=True)
            Metrics.counter("units", "failed").inc()
            record_failure(options.parts, unit, f"{type(raised).__name__}: {raised}", traceback.format_exc())
            attempts.end(options.parts, [unit.id])
            return
        files.remove(_error_file(options.parts, unit))
        attempts.end(options.parts, [unit.id])
        Metrics.counter("units", "done").inc()
        for stage, tally in counts.stages.items():
            for word, n in tally.items():
                Metrics.counter(stage, word).inc(int(n))
        yield unit.id
