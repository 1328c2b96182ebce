"""Synthetic captions over HTTP: what a faulty endpoint costs, and how fast a sound one is asked.

    python benchmarks/captions.py [--pairs 300] [--concurrency 8]

A server on this machine speaks OpenAI's chat completions and serves the embedded captioner; pairs are scenes of the
sample world, drawn by seed, with their own captions and the embedded scorer's scores.

- Faults: one image in three has a fault planted (sample_data/chat_server.py says what each does). The stage runs with
  the text stages of the recipe ``oppovl`` and its scorer. Per fault: images, requests that the server saw, captions
  that ship, and the reasons that the ledger gives for the others. Nothing may be lost, and every image without a
  caption has a reason.
- Speed: the same images, no faults, answers known beforehand, each after 50 ms: images a second by requests at once,
  beside the bound that the server sets (requests at once / 50 ms).
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import time
from collections import Counter, defaultdict
from importlib.metadata import version

import numpy as np
import polars as pl

from tuwen.pipeline.recipe import load
from tuwen.pipeline.stage import Tally, apply_stage
from tuwen.sample_data.chat_server import chat_server, embedded_write
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.captioner import SyntheticCaptions

FAULTS = (
    *("slow", "slow_always", "500", "500_always", "429", "malformed", "nonsense", "empty", "leak", "repeat"),
    *("refusal", "cut", "wrapped", "drop"),
)
SLICE = 64
DELAY = 0.05


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=8)
    asked = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, pycurl {version('pycurl')}\n")
    rng = np.random.default_rng(3)
    scenes = [random_scene(rng) for _ in range(asked.pairs)]
    images = [encode(render(s, 256), quality=85) for s in scenes]
    rows = pl.DataFrame(
        {
            "key": [f"{i:032x}" for i in range(asked.pairs)],
            "image": images,
            "caption": [caption(s, rng) for s in scenes],
        }
    )
    recipe = load("oppovl")
    score = next(s for s in recipe.stages if s.name == "score")
    rows = slices(lambda piece: apply_stage(score, piece, Tally()), rows).filter(pl.col("status").is_null())
    faults(rows, recipe.stages, asked.concurrency)
    speed(rows)


def slices(run, rows: pl.DataFrame) -> pl.DataFrame:  # type: ignore[no-untyped-def]
    """``run`` over slices as the engine makes them."""
    return pl.concat([run(rows[i : i + SLICE]) for i in range(0, rows.height, SLICE)])


def faults(rows: pl.DataFrame, recipe, concurrency: int) -> None:  # type: ignore[no-untyped-def]
    """The table of planted faults."""
    planted = [FAULTS[i // 3 % len(FAULTS)] if i % 3 == 0 else "" for i in range(rows.height)]
    names = {hashlib.sha256(b).hexdigest(): f for b, f in zip(rows["image"], planted, strict=True)}
    write = embedded_write()
    with chat_server(write, names, slow_seconds=4.0) as server:
        stage = SyntheticCaptions(
            captioner=server.url, model="embedded", concurrency=concurrency, read_seconds=2.0, connect_seconds=1.0,
            retries=2, backoff_seconds=0.1,
        ).among(recipe)  # fmt: skip
        started = time.perf_counter()
        out = slices(lambda piece: apply_stage(stage, piece, Tally()), rows)
        seconds = time.perf_counter() - started
    asked = f"{len(server.times)} requests, at most {server.most} at once"
    print(f"planted faults: {rows.height} pairs, {asked}, {seconds:.0f} s")
    print(f"{'fault':12} {'images':>6} {'requests':>8} {'shipped':>7}  reasons of the others")
    told: dict[str, list[str | None]] = defaultdict(list)
    for fault, reason in zip(planted, out["synthetic_reason"], strict=True):
        told[fault].append(reason)
    for fault in ("", *FAULTS):
        reasons = told[fault]
        others = ", ".join(f"{r} {n}" for r, n in Counter(r for r in reasons if r).most_common())
        print(f"{fault or '(none)':12} {len(reasons):6} {server.asked[fault]:8} {reasons.count(None):7}  {others}")
    lost = rows.height - out.filter(pl.col("status").is_null()).height
    silent = out.filter(pl.col("caption_synthetic").is_null() & pl.col("synthetic_reason").is_null()).height
    same = out["caption"].equals(rows["caption"])
    print(f"pairs lost {lost}, without caption and without reason {silent}, own captions unchanged: {same}\n")


def speed(rows: pl.DataFrame) -> None:
    """Images a second against the number of requests at once."""
    known = dict.fromkeys(rows["image"], "草地上有一只橙色的猫")

    def write(image: bytes) -> str:
        time.sleep(DELAY)
        return known[image]

    print(f"{'at once':>7} {'images/s':>8} {'bound':>6}")
    for concurrency in (1, 4, 16):
        piece = rows.head(16 * concurrency)
        with chat_server(write) as server:
            stage = SyntheticCaptions(captioner=server.url, model="embedded", concurrency=concurrency)
            started = time.perf_counter()
            slices(lambda part, stage=stage: apply_stage(stage, part, Tally()), piece)
            rate = piece.height / (time.perf_counter() - started)
        print(f"{concurrency:7} {rate:8.1f} {concurrency / DELAY:6.0f}")


if __name__ == "__main__":
    main()
