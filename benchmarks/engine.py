"""The engine: pairs a second, CPU seconds per stage, Beam's share, and memory as the input grows.

    python benchmarks/engine.py speed [--pairs 5000]
    python benchmarks/engine.py memory [--pairs 5000 50000 200000]

Inputs are generated from a seed: tars of pairs, each a JPEG of 160 x 120 pixels and a Chinese caption of its
own. The recipe is ``photos`` without its score (a model's cost is the model's); all else of a run happens.
``speed`` does the same work twice, in interleaved rounds: as a plain loop that calls the same functions unit
by unit and shard by shard, and as a run on the local runner in one process. ``memory`` takes whole commands
with two worker processes and samples the resident memory (proportional: shared pages count once) of all of
them ten times a second.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from tuwen import __version__
from tuwen.pipeline import engine, files
from tuwen.pipeline.emit import EmitOptions, emit_shard, unit_rows
from tuwen.pipeline.measure import MeasureOptions, measure_unit
from tuwen.pipeline.recipe import Recipe, load
from tuwen.pipeline.relate import relate
from tuwen.pipeline.sources import open_input

PER_TAR = 1_000
THINGS = [
    "汽车",
    "房子",
    "小狗",
    "花朵",
    "帆船",
    "雨伞",
    "苹果",
    "书本",
    "椅子",
    "飞机",
    "树木",
    "桥梁",
    "灯塔",
    "风筝",
]
COLOURS = ["红色", "蓝色", "绿色", "黄色", "白色", "黑色", "紫色", "橙色"]
PLACES = ["草地上", "湖边", "雪地里", "房间里", "街道旁", "山坡上", "沙滩上", "花园里"]


def corpus(folder: Path, pairs: int, width: int = 160, height: int = 120) -> None:
    """Write ``pairs`` pairs into tars of ``PER_TAR``, with images of ``width`` x ``height`` pixels."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(11)
    for first in range(0, pairs, PER_TAR):
        with tarfile.open(folder / f"pairs-{first // PER_TAR:05d}.tar", "w") as tar:
            for number in range(first, min(first + PER_TAR, pairs)):
                noise = drawn.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
                image = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
                words = [drawn.choice(w) for w in (PLACES, COLOURS, THINGS, COLOURS, THINGS)]
                caption = f"{words[0]}有{words[1]}的{words[2]}和{words[3]}的{words[4]}，第{number}张照片"
                for kind, data in (("jpg", image), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def recipe() -> Recipe:
    """``photos`` without what needs a model's forward pass."""
    chosen = load("photos")
    heavy = {"score", "synthetic_captions"}
    return chosen.model_copy(update={"stages": tuple(s for s in chosen.stages if s.name not in heavy)})


def plain(source: Path, out: Path) -> None:
    """What a run does, as loops: measure each unit, relate, write each shard; no report."""
    chosen, parts = recipe(), str(out / "parts")
    units = open_input(str(source))
    for unit in units:
        measure_unit(unit, chosen.phase("measure"), MeasureOptions(parts, thumbs=False))
    related = relate([f"{parts}/{u.id}.parquet" for u in units], chosen.phase("relate"), parts)
    shards = {s: -(-n // chosen.shards.samples) for s, n in sorted(related.splits.items()) if n}
    options = EmitOptions(str(out), parts, parts, shards, chosen.shards.seed)
    by_shard: dict[str, list[Any]] = {}
    for unit in units:
        rows = unit_rows(unit.id, options)
        kept = rows.filter(rows["status"].is_null())
        files.write_parquet(f"{out}/ledger/dropped-{unit.id}.parquet", rows.filter(rows["status"].is_not_null()))
        names = [options.shard_name(s, k) for s, k in zip(kept["split"], kept["key"], strict=True)]
        kept = kept.with_columns(shard=pl.Series(names, dtype=pl.String))
        for (name,), some in kept.group_by("shard", maintain_order=True):
            by_shard.setdefault(str(name), []).append(some)
    for name, frames in by_shard.items():
        emit_shard(name, pl.concat(frames), chosen.phase("emit"), options)


def speed(options: argparse.Namespace) -> None:
    """Pairs a second, CPU seconds per stage, and what Beam adds to the plain loop."""
    pairs = options.pairs[0]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        work = Path(scratch)
        corpus(work / "in", pairs)
        plain(work / "in", work / "warm")
        loops, runs, phases = [], [], []
        for turn in range(options.rounds):
            started = time.process_time()
            plain(work / "in", work / f"loop{turn}")
            loops.append(time.process_time() - started)
            config = engine.RunConfig((str(work / "in"),), str(work / f"run{turn}"), workers=1)
            started = time.process_time()
            told = engine.run(config, recipe())
            spent = time.process_time() - started
            # The report and the thumbnails are work that the loop does not do.
            phases.append(told["times"])
            runs.append(spent - told["times"]["finish"])
        loop, run = statistics.median(loops), statistics.median(runs)
        print(f"{pairs} pairs, CPU seconds in one process, the median of {options.rounds} interleaved rounds")
        print(f"  plain loop {loop:8.2f} s {pairs / loop:8.0f} pairs a CPU-second")
        print(f"  on Beam    {run:8.2f} s {pairs / run:8.0f} pairs a CPU-second, without the report")
        print(f"  Beam's own share: {100 * (run - loop) / run:.1f} %")
        print("  wall seconds of the phases:", {k: round(v, 2) for k, v in phases[-1].items()})
        print("  stage                 seconds per 1,000 pairs that reach it")
        for name, stage in told["stages"].items():
            if stage["in"]:
                print(f"    {name:20} {1000 * stage['seconds'] / stage['in']:8.3f}")


def memory(options: argparse.Namespace) -> None:
    """Peak memory of a whole command as the input grows."""
    peaks = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        work = Path(scratch)
        (work / "recipe.json").write_text(json.dumps(recipe().describe()))
        for pairs in options.pairs:
            corpus(work / f"in{pairs}", pairs)
            call = (
                "import json, sys; from tuwen.pipeline import engine, recipe; "
                "r = recipe.from_description(json.load(open(sys.argv[3]))); "
                "engine.run(engine.RunConfig((sys.argv[1],), sys.argv[2], workers=2), r)"
            )
            out = work / f"out{pairs}"
            command = [sys.executable, "-c", call, str(work / f"in{pairs}"), str(out), str(work / "recipe.json")]
            started = time.monotonic()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            peak = one = 0
            while process.poll() is None:
                sizes = resident(process.pid)
                peak, one = max(peak, sum(sizes)), max([one, *sizes])
                time.sleep(0.1)
            wall = time.monotonic() - started
            if process.returncode:
                raise SystemExit(f"the run over {pairs} pairs ended with {process.returncode}")
            told = json.loads((out / "run.json").read_text())
            peaks.append(peak)
            print(
                f"{pairs:8} pairs: peak {peak / 2**20:6.0f} MB in all, {one / 2**20:6.0f} MB in one process, "
                f"{wall:6.1f} s, {pairs / wall:6.0f} pairs/s, phases {told['times']}",
                flush=True,
            )
            subprocess.run(["rm", "-rf", str(work / f"in{pairs}"), str(out)], check=True)
    print(f"the largest peak is {peaks[-1] / peaks[0]:.2f} times the smallest input's")


def resident(root: int) -> list[int]:
    """Proportional resident bytes of a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(stat[1]), []).append(int(path.parent.name))
    sizes, todo = [], [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes += [int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")]
    return sizes


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--pairs", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", help="folder for temporary files; 200,000 pairs take 3 GB")
    options = parser.parse_args()
    options.pairs = options.pairs or ([5000] if options.what == "speed" else [5000, 50_000, 200_000])
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, tuwen {__version__}, "
        f"apache-beam {version('apache-beam')}, polars {version('polars')}"
    )
    {"speed": speed, "memory": memory}[options.what](options)


if __name__ == "__main__":
    main()
