"""What a run costs per thousand pairs, and from that the cores, hours, bytes and requests of large ones.

    taskset -c 0 python benchmarks/scale.py [--pairs 4000] [--for 10e6 1e9 5e9] [--scores 1500]

A corpus is generated (JPEGs of 640 x 480 pixels with grain, captions of their own) and taken through the recipe
``oppovl`` without fetch, score and synthetic captions, whose costs are the network's and the model's. Nothing is
dropped, so each stage sees every pair: an upper bound. Stages are timed by the clock on one core; where other work
shares the core, their seconds are cut to the process's share of it. Files written are counted by wrapping the
function that writes them, and what the relate phase would shuffle is encoded as it would be. The projection is those
figures times the number of pairs, for units and shards of 10,000 pairs.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from engine import corpus

from tuwen import __version__
from tuwen.pipeline import batch, engine, files
from tuwen.pipeline.emit import EmitOptions, emit_shard, pack, unit_rows
from tuwen.pipeline.measure import MeasureOptions, measure_unit
from tuwen.pipeline.recipe import Recipe, load
from tuwen.pipeline.relate import BASE, STATE, relate
from tuwen.pipeline.relate_beam import CountStage, Place, SpreadStage, partitions_for
from tuwen.pipeline.sources import open_input

PER_UNIT = 10_000
PER_SHARD = 10_000
ELSEWHERE = {"fetch", "score", "synthetic_captions"}


def recipe() -> Recipe:
    """``oppovl`` without what waits for a network or a model."""
    chosen = load("oppovl")
    return chosen.model_copy(update={"stages": tuple(s for s in chosen.stages if s.name not in ELSEWHERE)})


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts files written (one put each) and opened (a parquet file: its footer and its columns, two requests)."""
    told: Counter[str] = Counter()
    kept = files.publish, files.open_read, files.read_bytes

    def wrap(word: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any) -> Any:
            told[word] += 1
            return call(*given)

        return counting

    files.publish = wrap("written", kept[0])  # type: ignore[assignment]
    files.open_read = wrap("opened", kept[1])  # type: ignore[assignment]
    files.read_bytes = wrap("read", kept[2])  # type: ignore[assignment]
    try:
        yield told
    finally:
        files.publish, files.open_read, files.read_bytes = kept  # type: ignore[assignment]


def sizes(folder: Path) -> Counter[str]:
    """Bytes by what a file is (its name without the unit)."""
    told: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            told[path.name.partition(".")[2]] += path.stat().st_size
    return told


def shuffled(parts: list[str], n: float) -> dict[str, float]:
    """Bytes per pair that each stage's shuffle would carry in a run of ``n`` pairs, all parts taken as one unit."""
    told = {}
    for stage in recipe().phase("relate"):
        if not isinstance(stage, (CountStage, SpreadStage)):
            continue
        place = Place(tuple(parts), None, "", tuple(dict.fromkeys([*BASE, *STATE, *getattr(stage, "reads", ())])))
        rows = pl.concat([place.rows(number) for number in range(len(parts))])
        rows = rows.filter(pl.col("status").is_null())
        partitions = partitions_for(int(n), stage)
        if isinstance(stage, SpreadStage):
            frames = [frame for _, frame in stage.spread(rows, partitions)]
        else:
            found = stage.entries(rows).with_columns(unit=pl.lit(0, pl.UInt32), _to=pl.col("value") % partitions)
            frames = [frame.drop("_to") for _, frame in found.group_by("_to")]
        told[stage.name] = sum(len(batch.encode(frame)) for frame in frames) / rows.height
    return told


def measure(pairs: int, scratch: str | None) -> dict[str, Any]:
    """Seconds per stage and per phase, bytes and requests, of a generated corpus in one unit."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        work = Path(folder)
        corpus(work / "in", pairs, 640, 480)
        wall, cpu = time.perf_counter(), time.process_time()
        told = engine.run(engine.RunConfig((str(work / "in"),), str(work / "run"), workers=1), recipe())
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        print(f"share of the core: {share:.2f}")
        seconds = {name: stage["seconds"] * share for name, stage in told["stages"].items()}
        parts = str(work / "parts")
        units = open_input(str(work / "in"))
        counts = {}
        with counted() as counts["measure"]:
            for unit in units:
                measure_unit(unit, recipe().phase("measure"), MeasureOptions(parts, thumbs=False))
        paths = [files.join(parts, f"{u.id}.parquet") for u in units]
        relate(paths, recipe().phase("relate"), parts)
        options = EmitOptions(str(work / "out"), parts, parts, {"train": 1}, 0)
        rows = pl.concat([unit_rows(u.id, options) for u in units])
        rows = rows.filter(pl.col("status").is_null()).with_columns(split=pl.lit("train"))
        with counted() as counts["emit"]:
            emit_shard("train-000000.tar", rows, recipe().phase("emit"), options)
        return {
            "seconds": seconds | {"phases": {phase: spent * share for phase, spent in told["times"].items()}},
            "bytes": sizes(work / "parts") + Counter({f"out.{k}": v for k, v in sizes(work / "out").items()}),
            "requests": counts,
            "kept": rows.height,
            "units": len(units),
            "row": sum(len(pack(rows[i])) for i in range(50)) / 50,
            "shuffle": {n: shuffled(paths, n) for n in WANTED},
        }


WANTED: list[float] = []


def show(told: dict[str, Any], pairs: int, scores: float) -> None:
    """The tables."""
    seconds, kept = told["seconds"], told["kept"]
    phases = seconds.pop("phases")
    print(f"\nCPU seconds per 1,000 pairs ({pairs} pairs, {kept} kept)")
    for name, spent in seconds.items():
        print(f"  {name:20} {1000 * spent / pairs:8.3f}")
    whole = sum(phases.values()) - phases["finish"]
    inside = sum(seconds.values())
    print(f"  {'reading, writing':20} {1000 * (whole - inside) / pairs:8.3f}")
    print(f"  {'all':20} {1000 * whole / pairs:8.3f}")

    size = told["bytes"]
    tar, table = size["tar"], size["parquet"] + size["relate.parquet"]
    out = size["out.tar"], size["out.parquet"]
    print("\nBytes per pair")
    for name, n in (("parts: images", tar), ("parts: tables", table), ("shards", out[0]), ("ledger", out[1])):
        print(f"  {name:20} {n / pairs:8.0f}")
    print(f"  {'a row sent alone':20} {told['row']:8.0f}")

    measured, emitted = told["requests"]["measure"], told["requests"]["emit"]
    per_unit = measured["written"] / told["units"]
    print(f"\nFiles written: {per_unit:.0f} per unit, {emitted['written']} per shard")

    for n in WANTED:
        sent = told["shuffle"][n]
        units, shards = n / PER_UNIT, n / PER_SHARD
        core_hours = whole / pairs * n / 3600
        meetings = min(n, units * shards)
        print(f"\n{n:,.0f} pairs: {units:,.0f} units, {shards:,.0f} shards")
        print(f"  cores for a day      {core_hours / 24:12,.0f}   ({core_hours:,.0f} core-hours)")
        print(f"  accelerators, a day  {n / scores / 86400:12,.1f}   at {scores:,.0f} scores a second each (assumed)")
        print(f"  parts, for the run   {(tar + table) / pairs * n / 1e12:12,.2f} TB")
        print(f"  rows to shards       {meetings * told['row'] / 1e12:12,.2f} TB   in {meetings:,.0f} pieces")
        print(f"  shards and ledger    {sum(out) / pairs * n / 1e12:12,.2f} TB")
        each = ", ".join(f"{name} {b:.0f}" for name, b in sent.items())
        print(f"  shuffled             {sum(sent.values()) * n / 1e12:12,.2f} TB   (bytes a pair: {each})")
        print(f"  files written        {units * (per_unit + 6) + shards * emitted['written']:12,.0f}")
        print(f"  reads                {n + meetings:12,.0f}   an image each, and a piece of rows each")
        print(f"  driver's memory      {n * 0.1 * 16 * 4 / 1e9:12,.2f} GB   if a tenth of the pairs have a candidate")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--for", dest="wanted", type=float, nargs="+", default=[1e7, 1e9, 5e9])
    parser.add_argument("--scores", type=float, default=1500, help="pairs a second that one accelerator scores")
    parser.add_argument("--scratch", help="folder for temporary files")
    options = parser.parse_args()
    WANTED.extend(options.wanted)
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, tuwen {__version__}, apache-beam {version('apache-beam')}, "
        f"polars {pl.__version__}, opencv {version('opencv-python-headless')}"
    )
    show(measure(options.pairs, options.scratch), options.pairs, options.scores)


if __name__ == "__main__":
    main()
