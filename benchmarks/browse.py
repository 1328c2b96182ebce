"""What `curate browse` takes to answer on a large ledger: pages, searches, stories, beside naive full reads.

    python benchmarks/browse.py [--rows 1000000] [--dimensions 512] [--quick] [--check]

Writes a synthetic run (units of 10,000 rows, captions of made-up Chinese, two vectors for every pair that reached the
score) to a temporary folder and asks it over HTTP on this machine, as the page does; medians of ``--times`` answers,
each to a question not asked before. The naive reader is what one would write first: the whole ledger into memory,
filtered and cut for each question. The bound for a search is one matrix product over vectors that are in memory in
single precision. No model runs: searches ask for pairs like one that is there. Pictures are not part of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import polars as pl

from tuwen.export.browse.server import Server
from tuwen.export.browse.vectors import load
from tuwen.pipeline.columns import LEDGER_SCHEMA
from tuwen.pipeline.recipe import load as load_recipe

UNIT = 10_000
FATES = (
    *((None, None, 0.45), ("language", "not_chinese", 0.12), ("boilerplate", "boilerplate", 0.06)),
    *(("length", "caption_too_short", 0.12), ("decode", "image_too_small", 0.05), ("score", "low_score", 0.15)),
    ("pair_duplicates", "pair_duplicate", 0.05),
)
SCORED = (None, "low_score", "pair_duplicate")
WORDS = [
    "红色",
    "蓝色",
    "一只",
    "两座",
    "房子",
    "小猫",
    "湖边",
    "街道",
    "下午",
    "春天",
    "老人",
    "花朵",
    "山上",
    "飞机",
    "书本",
    "沙滩",
    "夜晚",
    "城市",
    "大树",
    "鸟",
]
CEILING_MS = 500.0


def write_run(folder: Path, rows: int, dimensions: int) -> None:
    """A run directory with a ledger of ``rows`` rows, as much of it as browsing reads."""
    (folder / "ledger").mkdir(parents=True)
    rng = np.random.default_rng(0)
    counts = {"inputs": rows, "kept": 0, "dropped": 0, "failed": 0}
    for unit in range(0, rows, UNIT):
        n = min(UNIT, rows - unit)
        fate = rng.choice(len(FATES), n, p=[f[2] for f in FATES])
        stage, reason = (pl.Series([FATES[i][k] for i in fate], dtype=pl.String) for k in (0, 1))
        kept = reason.is_null().to_numpy()
        scored = np.isin(fate, [i for i, f in enumerate(FATES) if f[1] in SCORED])
        captions = ["".join(w) for w in rng.choice(WORDS, (n, 8))]
        keys = [rng.bytes(16).hex() for _ in range(n)]
        vectors = rng.standard_normal((2, n, dimensions)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        image, caption = (
            [v.tobytes() if s else None for v, s in zip(x, scored, strict=True)] for x in vectors.astype("<f2")
        )
        frame = pl.DataFrame(
            {
                "key": keys,
                "unit": [f"u{unit:08d}"] * n,
                "ordinal": np.arange(n, dtype=np.uint32),
                "origin": [f"crawl.warc.gz#{unit + i}#0" for i in range(n)],
                "image_url": [f"https://img.example/{k}.jpg" for k in keys],
                "caption_raw": captions,
                "caption": captions,
                "score": np.where(scored, rng.normal(0.4, 0.1, n), np.nan).astype(np.float32),
                "width": rng.integers(200, 2000, n).astype(np.uint32),
                "height": rng.integers(200, 2000, n).astype(np.uint32),
                "status": np.where(kept, "kept", "dropped"),
                "stage": stage,
                "reason": reason,
                "split": pl.Series(["train" if k else None for k in kept], dtype=pl.String),
                "image_embedding": image,
                "caption_embedding": caption,
            }
        ).with_columns(pl.col("score").fill_nan(None))
        nulls = [pl.lit(None, dtype=t).alias(c) for c, t in LEDGER_SCHEMA.items() if c not in frame.columns]
        frame = frame.with_columns(nulls).select(list(LEDGER_SCHEMA))
        for name, part in (
            ("train", frame.filter(pl.col("status") == "kept")),
            ("dropped", frame.filter(pl.col("status") != "kept")),
        ):
            part.write_parquet(
                folder / "ledger" / f"{name}-{unit:08d}.parquet", compression="zstd", compression_level=1
            )
        counts["kept"] += int(kept.sum())
        counts["dropped"] += int(n - kept.sum())
    recipe = load_recipe("oppovl", ["score.embeddings=true"])
    told = {
        "version": "benchmark",
        "created": "2026-01-01T00:00:00+00:00",
        "counts": counts,
        "splits": {"train": counts["kept"]},
        "stages": {s: {} for s, _, _ in FATES if s},
        "recipe": {**recipe.describe(operational=True), "hash": recipe.hash},
    }
    (folder / "run.json").write_text(json.dumps(told))


def questions(rows: int, kept: list[int]) -> Iterator[tuple[str, Callable[[int], dict[str, str]]]]:
    """What is asked, as a function of the number of the asking, so that no answer was given before."""
    yield "a page of a reason", lambda i: {"path": "pairs", "reason": "low_score", "from": str(48 * i)}
    yield (
        "a page deep in the kept",
        lambda i: {"path": "pairs", "status": "kept", "from": str(int(rows * 0.3) + 48 * i)},
    )
    yield (
        "best scores of a reason first",
        lambda i: {"path": "pairs", "reason": "low_score", "order": "-score", "least": f"0.{i + 10}"},
    )
    yield (
        "captions that hold words",
        lambda i: {"path": "pairs", "holding": WORDS[i % len(WORDS)] + WORDS[(i * 7 + 1) % len(WORDS)]},
    )
    yield "pairs like one", lambda i: {"path": "pairs", "like": str(kept[i * 7]), "status": "kept"}
    yield (
        "the next page of them",
        lambda i: {"path": "pairs", "like": str(kept[0]), "status": "kept", "from": str(48 * (i + 1))},
    )
    yield "one pair's story", lambda i: {"path": "pair", "row": str((i * 7919) % rows)}
    yield "a pair by its key", lambda i: {"path": "find", "key": f"{i * 2654435761 % 2**32:08x}"[:6]}


def asked(port: int, given: dict[str, str]) -> tuple[float, float]:
    """Milliseconds until the whole answer is here, and of the processor (client and server are this process)."""
    path = given.pop("path")
    line = http.client.HTTPConnection("127.0.0.1", port)
    started, busy = time.perf_counter(), time.process_time()
    line.request("GET", f"/api/{path}?{urlencode(given)}")
    answer = line.getresponse()
    body = answer.read()
    took = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - busy)
    if answer.status != 200:
        raise SystemExit(f"{path} {given}: {answer.status} {body[:300]!r}")
    return took


def median(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Milliseconds of the middle one of ``times`` calls: by the clock, and of the processor."""
    told = []
    for _ in range(times):
        started, busy = time.perf_counter(), time.process_time()
        call()
        told.append((1000 * (time.perf_counter() - started), 1000 * (time.process_time() - busy)))
    return middle(told)


def middle(told: list[tuple[float, float]]) -> tuple[float, float]:
    """The medians of both."""
    return statistics.median(t[0] for t in told), statistics.median(t[1] for t in told)


def row(name: str, told: tuple[float, float], more: str = "") -> None:
    """A line of the table."""
    print(f"{name:34}{told[0]:9.0f} ms{told[1]:9.0f} ms{more}", flush=True)


def main() -> None:
    """Write, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=512, help="of a vector; ViT-B/32 has 512")
    parser.add_argument("--times", type=int, default=9, help="answers of which the median is told")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, 64 dimensions")
    parser.add_argument("--check", action="store_true", help=f"exit 1 where a page takes more than {CEILING_MS:.0f} ms")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.dimensions, given.times = 20_000, 64, 3
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"polars {version('polars')}, numpy {version('numpy')}"
    )
    with tempfile.TemporaryDirectory(prefix="tuwen-browse-") as folder:
        run = Path(folder) / "run"
        write_run(run, given.rows, given.dimensions)
        size = sum(p.stat().st_size for p in (run / "ledger").iterdir())
        print(
            f"{given.rows:,} rows in {len(list((run / 'ledger').iterdir()))} files, {size / 1e9:.2f} GB, "
            f"vectors of {given.dimensions} dimensions; medians of {given.times}; load {os.getloadavg()[0]:.1f}\n"
        )
        print(f"{'':34}{'by the clock':>12}{'processor':>12}")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        servers: list[Server] = []
        row("open the run", median(lambda: servers.append(Server(str(run), "127.0.0.1", 0)), 1))
        server = servers[0]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked(server.server_port, {"path": "run"})
        kept = server.browser.table.facet({"status": "kept"})[:200].tolist()
        worst = 0.0
        for name, make in questions(given.rows, kept):
            numbers = count(1)
            first = asked(server.server_port, make(next(numbers)))
            told = middle([asked(server.server_port, make(next(numbers))) for _ in range(given.times)])
            row(name, told, f"   (the very first: {first[0]:.0f})" if first[0] > 3 * told[0] else "")
            worst = max(worst, told[0]) if "page" in name else worst
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{'memory for it':34}{(after - before) / 1e6:9.2f} GB")
        paths = sorted((run / "ledger").glob("*.parquet"))
        plain = [c for c in LEDGER_SCHEMA if not c.endswith("_embedding")]

        def naive(columns: list[str]) -> None:
            pl.read_parquet(paths, columns=columns).filter(pl.col("reason") == "low_score").slice(4800, 48).to_dicts()

        print("naive, for a page of a reason")
        row("  all but the vectors read", median(lambda: naive(plain), 3))
        row("  the whole ledger read", median(lambda: naive(list(LEDGER_SCHEMA)), 3))
        held = load(str(run), server.browser.table, "image")
        assert held is not None
        wide = held.halves.astype(np.float32)
        print(f"bound for a search over {len(wide):,} vectors")
        row("  one product, single precision", median(lambda: wide @ wide[7], 9))
    if given.check and worst > CEILING_MS:
        sys.exit(f"a page took {worst:.0f} ms; at most {CEILING_MS:.0f} are meant")


if __name__ == "__main__":
    main()
