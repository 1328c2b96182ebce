"""The driver: plans units, starts the three phases, checks the sums, writes what people read.

    plan     inputs -> units                            OUT/plan.json
    measure  units -> parts/<unit>.{tar,parquet}        one Beam element per unit
    relate   light columns -> parts/<unit>.relate.parquet
    emit     rows by shard -> shards/, ledger/          one Beam element per shard
    finish   conservation, run.json, report, card

Every phase resumes by its files: what stands under its final name is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from . import beam_run, files, index
from .emit import KEPT, EmitOptions, emit
from .errors import InputError, RunError, UsageError
from .finish import finish
from .measuring import measure
from .recipe import Recipe
from .relate import SPREAD_ABOVE, relate
from .sources import open_input
from .units import Unit

RUN_FILES = (
    *("run.json", "plan.json", "ledger", "shards", "parts"),
    *("thumbs.parquet", "embeddings.parquet", "report.html", "README.md", "croissant.json"),
    *("amend.json", "amending", "retrying"),
    *("value.json", "value.html", "value-points"),
)
STAYS = "removed.parquet"
"""What a fresh start leaves: whoever asked for a removal asked for good."""

Progress = Callable[[str, int, int], None]
"""Called with phase, elements done and elements in all."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do, apart from its recipe."""

    inputs: tuple[str, ...]
    out: str
    workers: int = 0
    beam_args: tuple[str, ...] = ()
    fresh: bool = False
    dropped_too: bool = False
    index: str = ""
    spread_above: int = SPREAD_ABOVE
    input_options: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> str:
        return files.join(self.out, "parts")


def run(config: RunConfig, recipe: Recipe, progress: Progress | None = None) -> dict[str, Any]:
    """Run ``recipe`` over the inputs into ``config.out``; returns what run.json holds."""
    units = [u for i, path in enumerate(config.inputs) for u in open_input(path, i, config.input_options)]
    by_id = {u.id: u for u in units}
    if len(by_id) != len(units):
        raise RunError("two slices of the input have the same name; is an input given twice?")
    if not units:
        raise InputError(f"nothing to read in {', '.join(config.inputs)}")
    for stage in recipe.stages:  # a wrong path is told now, not by every row
        stage.check()
    plan = {
        "recipe": recipe.describe(),
        "recipe_hash": recipe.hash,
        "inputs": list(config.inputs),
        "units": {u.id: _stamp(u) for u in units},
        "dropped_too": config.dropped_too,
    }
    finished = prepare(config, plan)
    if finished is not None:
        return finished
    clock = Clock()
    with clock.phase("measure"), _watch(progress, "measure", config.parts, ".parquet", len(units)):
        measure(config, recipe, by_id)
    return complete(config, recipe, sorted(by_id), config.parts, clock, progress)


def complete(
    config: RunConfig,
    recipe: Recipe,
    units: list[str],
    bytes_from: str,
    clock: Clock,
    progress: Progress | None = None,
    replayed: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Relate, emit and finish over part files that are there; shared by a run and a replay.

    ``bytes_from`` is the folder whose tars hold the images. A replay says where it came from in
    ``replayed``, and runs no stage that needs the image again; where it keeps a pair whose image the
    run gave away, the verdicts are written to the ledger and no shards.
    """
    options = beam_run.pipeline_options(config.beam_args, beam_run.processes(config.workers, len(units)))
    parts = [files.join(config.parts, f"{u}.parquet") for u in units]
    with clock.phase("relate"), _watch(progress, "relate", config.parts, ".relate.parquet", len(units)):
        related = relate(parts, recipe.phase("relate"), config.parts, options, spread_above=config.spread_above)
    shards = {split: max(1, math.ceil(n / recipe.shards.samples)) for split, n in sorted(related.splits.items()) if n}
    held: str | None = bytes_from
    if replayed is not None:
        replayed = replayed | {"bytes_missing": _without_image(config.parts, units)}
        held = None if replayed["bytes_missing"] else bytes_from
    emit_options = EmitOptions(config.out, config.parts, held, shards, recipe.shards.seed)
    total = sum(shards.values())
    with clock.phase("emit"), _watch(progress, "emit", files.join(config.out, "shards"), ".tar", total):
        stages = [s for s in recipe.phase("emit") if replayed is None or not s.on_images]
        emit(units, stages, emit_options, options)
    with clock.phase("finish"):
        header = _header(config, options, replayed)
        told = finish(config.out, config.parts, recipe, units, clock.seconds, held, header, related.stages)
    if config.index:
        name = config.out.rstrip("/").rsplit("/", 1)[-1]
        index.add(config.index, name, parts, [files.join(config.parts, f"{u}.relate.parquet") for u in units])
    if not config.dropped_too:
        files.remove(config.parts)
    for name in files.names(config.parts, KEPT):  # a way station that a replay does not need
        files.remove(files.join(config.parts, name))
    return told


def _without_image(parts: str, units: list[str]) -> int:
    """Pairs that the relate phase kept and whose image is in no tar."""
    missing = 0
    for unit in units:
        related = files.read_parquet(files.join(parts, f"{unit}.relate.parquet"), ["ordinal", "status"])
        places = files.read_parquet(files.join(parts, f"{unit}.parquet"), ["ordinal", "part"])
        kept = related.filter(pl.col("status").is_null()).join(places, on="ordinal", how="left")
        missing += kept["part"].null_count()
    return missing


def prepare(config: RunConfig, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Make ``out`` ready for ``plan``: start, resume, or refuse; the finished run where it is complete."""
    if config.fresh:
        for name in RUN_FILES:
            files.remove(files.join(config.out, name))
    held = [name for name in files.names(config.out) if name != STAYS]
    at = files.join(config.out, "plan.json")
    if "plan.json" in held:
        old = json.loads(files.read_bytes(at))
        changed = _changes(old, plan)
        if changed:
            raise UsageError(
                f"{config.out} holds a run of something else; what changed: {'; '.join(changed)}. "
                "Give another -o, or --fresh to start over there."
            )
        done = files.join(config.out, "run.json")
        if files.exists(done):
            told: dict[str, Any] = json.loads(files.read_bytes(done))
            return told
        files.sweep(config.out)
        return None
    if held:
        raise UsageError(
            f"{config.out} is not empty and holds no tuwen run (found {', '.join(held[:3])}). "
            "Give an empty or new folder with -o."
        )
    files.write_bytes(at, json.dumps(plan, ensure_ascii=False, indent=1).encode())
    return None


class Clock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block under ``name``."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two plans, in words."""
    changed = []
    stages_old = {s["name"]: s for s in old["recipe"]["stages"]}
    stages_new = {s["name"]: s for s in new["recipe"]["stages"]}
    for name in sorted(stages_old.keys() ^ stages_new.keys()):
        changed.append(f"stage {name} {'added' if name in stages_new else 'removed'}")
    for name in sorted(stages_old.keys() & stages_new.keys()):
        for key in sorted(stages_old[name].keys() | stages_new[name].keys()):
            was, now = stages_old[name].get(key), stages_new[name].get(key)
            if was != now:
                changed.append(f"{name}.{key} was {was!r}, now {now!r}")
    if old["recipe"]["shards"] != new["recipe"]["shards"]:
        changed.append(f"shards were {old['recipe']['shards']}, now {new['recipe']['shards']}")
    if not changed and old["recipe_hash"] != new["recipe_hash"]:
        changed.append("a model or lexicon that the recipe names, or the order of its stages")
    gone, come = old["units"].keys() - new["units"].keys(), new["units"].keys() - old["units"].keys()
    if gone or come:
        changed.append(f"the input: {len(gone)} slices gone, {len(come)} new")
    edited = [u for u in old["units"].keys() & new["units"].keys() if old["units"][u] != new["units"][u]]
    if edited:
        names = ", ".join(sorted(str(new["units"][u]["file"]) for u in edited)[:3])
        changed.append(f"the input: {len(edited)} slices with other contents ({names})")
    if old["dropped_too"] != new["dropped_too"]:
        changed.append("--measure-all")
    return changed


def _stamp(unit: Unit) -> dict[str, Any]:
    """What tells whether a unit's files were edited: number, bytes, newest time of change; on object stores, marks."""
    fs, _ = files.filesystem(unit.root)
    size, newest, marks = 0, 0.0, hashlib.blake2b(digest_size=8)
    for name in unit.files:
        _, inner = files.filesystem(files.join(unit.root, name) if name else unit.root)
        info = fs.info(inner)
        size += int(info.get("size") or 0)
        newest = max(newest, float(info.get("mtime") or 0.0))
        # S3 and GCS say ETag or etag, Azure etag; what has none of them and no mtime may tell when it was written.
        found = [str(info[name]) for name in ("ETag", "etag", "last_modified", "created") if info.get(name)]
        marks.update((found[0] if found and not newest else "").encode())
    first = unit.files[0] if unit.files and unit.files[0] else unit.root.rstrip("/").rsplit("/", 1)[-1]
    told = {"file": first, "files": len(unit.files), "bytes": size, "changed": newest}
    return told if newest else told | {"marks": marks.hexdigest()}


def _header(config: RunConfig, options: Any, replayed: dict[str, Any] | None) -> dict[str, Any]:
    runner = beam_run.LOCAL if beam_run.is_local(options) else beam_run.runner_name(options)
    return {"inputs": list(config.inputs), "runner": runner, "dropped_too": config.dropped_too, **(replayed or {})}


@contextmanager
def _watch(progress: Progress | None, phase: str, folder: str, suffix: str, total: int) -> Iterator[None]:
    """Report progress by the files that appear: true on every runner, and right after a resume."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def look() -> None:
        found = files.names(folder, suffix)
        if suffix == ".parquet":
            found = [n for n in found if n.count(".") == 1]
        progress(phase, min(len(found), total), total)

    def poll() -> None:
        while not stop.wait(0.5):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()
