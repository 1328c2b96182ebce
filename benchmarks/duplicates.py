"""Duplicates: what is found, how fast, how it grows; beside other tools.

    python benchmarks/duplicates.py quality --data ../shared/data --rivals /path/to/python
    python benchmarks/duplicates.py speed --rows 200000 --rivals /path/to/python
    python benchmarks/duplicates.py shared --rows 200000
    python benchmarks/duplicates.py growth --rows 200000 2000000
    python benchmarks/duplicates.py grid --data ../shared/data

Each prints the machine, the versions and the data with its figures. ``--rivals`` names a Python that has
the other tools (see duplicate_rivals.py); text-dedup and tuwen cannot share an environment. Rows are made
up of common characters with the frequencies of running text, 8 to 32 to a caption, a tenth near-duplicates.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from tuwen.filters.candidates import all_pairs
from tuwen.filters.duplicates import PairDuplicates
from tuwen.filters.image_grid import same_layout
from tuwen.filters.minhash import sign_column
from tuwen.filters.split import Split

sys.path.insert(0, str(Path(__file__).parent))
import duplicate_pairs
import duplicate_rivals

COMMON = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多"
    "定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因"
    "由其些然前外天政四日那社义事平形相全"
)


WRITTEN_AT_ONCE = 1_000_000
"""Made-up rows drawn at once: drawing ten million takes more memory than relating them."""


def made_up(rows: int, seed: int = 0, one_caption: bool = False) -> pl.DataFrame:
    """``rows`` pairs, the last tenth near-duplicates of the first; with ``one_caption`` all under the same words.

    Keys hold the seed, so that tables of different seeds go together.
    """
    drawn = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(COMMON) + 1) ** 0.7
    lengths = drawn.integers(8, 33, rows)
    text = "".join(np.array(list(COMMON))[drawn.choice(len(COMMON), int(lengths.sum()), p=share / share.sum())])
    ends = np.cumsum(lengths).tolist()
    captions = (
        ["红色的汽车停在路边"] * rows if one_caption else [text[e - n : e] for e, n in zip(ends, lengths, strict=True)]
    )
    image = drawn.integers(0, 2**64, rows, dtype=np.uint64)
    copies = rows // 10
    image[rows - copies :] = image[:copies] ^ (np.uint64(1) << drawn.integers(0, 64, copies, dtype=np.uint64))
    if not one_caption:
        captions[rows - copies :] = [c + "_图库" * (i % 2) for i, c in enumerate(captions[:copies])]
    keys = [hashlib.blake2b(f"{seed}-{i}".encode(), digest_size=16).hexdigest() for i in range(rows)]
    columns = {"key": keys, "origin": keys, "caption": captions, "phash": image}
    return pl.DataFrame(columns).with_columns(
        score=pl.Series(drawn.random(rows), dtype=pl.Float32),
        width=pl.lit(300, pl.UInt32),
        height=pl.lit(300, pl.UInt32),
        detail=pl.lit(None, pl.String),
    )


@contextmanager
def timed(told: dict[str, float], name: str) -> Iterator[None]:
    """CPU seconds of a block, under ``name``."""
    started = time.process_time()
    yield
    told[name] = time.process_time() - started


def quality(options: argparse.Namespace) -> None:
    """Precision and recall on labelled pairs."""
    photos = Path(options.data) / "flickr8k_cn" if options.data else None
    frame = duplicate_pairs.make(options.pictures, options.reposts, options.seed, photos, options.mirrored)
    data = f"{options.pictures} drawn pictures{' and the photos of flickr8k_cn' if photos else ''}, seed {options.seed}"
    print(f"{frame.height} pairs, {frame['family'].n_unique()} families: {data}")
    out = (
        PairDuplicates(mirrored=options.mirrored)
        .relate(frame)
        .with_columns(group=pl.coalesce("duplicate_of", "key").rank("dense"))
    )
    out = out.sort(pl.col("duplicate_of").is_not_null())
    rows = [{"tool": "tuwen pair_duplicates", **duplicate_rivals.compare(out, out["group"].to_list())}]
    families = out.filter(pl.col("kind") == "original").select("family", of="group")
    reposts = out.filter(pl.col("kind").str.contains(" + ", literal=True)).join(families, on="family")
    for side in (0, 1):
        kinds = reposts.group_by(pl.col("kind").str.split(" + ").list.get(side).alias("kind")).agg(
            joined=(pl.col("group") == pl.col("of")).mean()
        )
        shares = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in kinds.sort("kind").rows())
        print(f"  joined to their original: {shares}")
    rows += _rivals(options, frame)
    for row in rows:
        _line(row)


def speed(options: argparse.Namespace) -> None:
    """Captions per CPU-second, step by step and end to end."""
    for rows in options.rows:
        frame = made_up(rows)
        told = measure(frame)
        print(f"{rows} captions, {told['dropped']:.0f} of {rows // 10} planted duplicates dropped")
        for name in ("signatures", "candidates", "end to end", "split"):
            print(f"  {name:28} {told[name]:8.2f} s {rows / told[name]:12,.0f} a second")
        for row in _rivals(options, frame, "--speed"):
            seconds = row.get("seconds")
            if seconds is None:
                print(f"  {row['tool']:28} not measured: {row['missing']}")
                continue
            times = seconds / told["end to end"]
            rate = f"{rows / seconds:12,.0f} a second"
            print(f"  {row['tool']:28} {seconds:8.2f} s {rate}, {times:.1f} times tuwen's time")


def measure(frame: pl.DataFrame) -> dict[str, float]:
    """CPU seconds of the steps, and how many pairs were dropped."""
    told: dict[str, float] = {}
    with timed(told, "signatures"):
        signed, text = sign_column(frame["caption"])
    with timed(told, "candidates"):
        bits = PairDuplicates().bits(text, np.zeros(frame.height, dtype=np.bool_))
        all_pairs(signed, len(signed), frame["phash"].to_numpy(), bits)
    del signed, text, bits
    with timed(told, "end to end"):
        out = PairDuplicates().relate(frame)
    told["dropped"] = out["duplicate_of"].count()
    with timed(told, "split"):
        Split().relate(frame)
    return told


def shared(options: argparse.Namespace) -> None:
    """One caption under all images, beside a caption for each."""
    for rows in options.rows:
        own, one = (measure(made_up(rows, one_caption=o)) for o in (False, True))
        few, all_ = own["end to end"], one["end to end"]
        print(f"{rows} images: captions of their own {few:.2f} s, one for all {all_:.2f} s, ratio {all_ / few:.2f}")
        print(f"  dropped under one caption: {one['dropped']:.0f}, planted {rows // 10}")


def growth(options: argparse.Namespace) -> None:
    """Each size in processes of its own, so that a peak is that of the work; the exponent of time over rows."""
    seen = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for rows in options.rows:
            table = str(Path(folder) / f"{rows}.parquet")
            for what in ("write", "one"):
                command = [sys.executable, __file__, what, "--rows", str(rows), "--table", table]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout)
            seen.append((rows, told["end to end"]))
            seconds, dropped = told["end to end"], told["dropped"]
            print(f"{rows:>10} captions: {seconds:8.1f} s, peak {told['peak']:.2f} GB, dropped {dropped}", flush=True)
            Path(table).unlink()
    if len(seen) > 1:
        (few, short), (many, long) = seen[0], seen[-1]
        print(f"growth exponent {math.log(long / short) / math.log(many / few):.3f}")


def write(options: argparse.Namespace) -> None:
    """Made-up rows to a file, for ``growth``."""
    rows = options.rows[0]
    pieces = [made_up(min(WRITTEN_AT_ONCE, rows - first), first) for first in range(0, rows, WRITTEN_AT_ONCE)]
    pl.concat(pieces).write_parquet(options.table)


def one(options: argparse.Namespace) -> None:
    """One size, read from a file, as JSON, for ``growth``; duplicates only."""
    frame = pl.read_parquet(options.table)
    told: dict[str, float] = {}
    with timed(told, "end to end"):
        out = PairDuplicates().relate(frame)
    print(json.dumps({**told, "dropped": out["duplicate_of"].count(), "peak": peak()}))


def grid(options: argparse.Namespace) -> None:
    """How far copies and strangers are apart in hash bits, and how many of each the layout takes for one picture."""
    frame = duplicate_pairs.make(
        options.pictures, 8, options.seed, Path(options.data) / "flickr8k_cn" if options.data else None
    )
    firsts = frame.filter(pl.col("kind") == "original")
    image = firsts["phash"].to_numpy()
    grids = np.frombuffer(b"".join(firsts["image_grid"]), np.uint8).reshape(-1, 108)
    i, j = np.triu_indices(len(image), 1)
    apart = np.bitwise_count(image[i] ^ image[j])
    print(f"{len(i)} pairs of different pictures")
    for bits in (4, 8, 10, 12, 14, 16):
        near = apart <= bits
        same = same_layout(grids[i[near]], grids[j[near]])
        print(f"  within {bits:2} bits: {near.sum():6}, with the same layout: {same.sum()}")
    reposts = frame.filter(pl.col("kind").str.contains(" + ", literal=True))
    both = reposts.join(firsts.select("family", of="phash", of_grid="image_grid"), on="family")
    ours, theirs = (np.frombuffer(b"".join(both[c]), np.uint8).reshape(-1, 108) for c in ("image_grid", "of_grid"))
    moved = np.bitwise_count(both["phash"].to_numpy() ^ both["of"].to_numpy())
    both = both.with_columns(apart=pl.Series(moved), same=pl.Series(same_layout(ours, theirs)))
    kinds = both.group_by(pl.col("kind").str.split(" + ").list.first().alias("kind")).agg(
        pl.len(), median=pl.col("apart").median(), p99=pl.col("apart").quantile(0.99), same=pl.col("same").mean()
    )
    for kind, count, median, p99, share in kinds.sort("kind").rows():
        print(f"  {kind:14} {count:5} copies: bits {median:.0f}, at 99 % {p99:.0f}; same layout {100 * share:.1f} %")


def peak() -> float:
    """Largest resident size of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _rivals(options: argparse.Namespace, frame: pl.DataFrame, *more: str) -> list[dict[str, float]]:
    if not options.rivals:
        return []
    with tempfile.TemporaryDirectory() as folder:
        table = str(Path(folder) / "pairs.parquet")
        frame.write_parquet(table)
        script = str(Path(__file__).with_name("duplicate_rivals.py"))
        command = [options.rivals, script, table, *more, "--tools", *options.tools]
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean
        )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _line(row: dict[str, float]) -> None:
    if "missing" in row:
        print(f"{row['tool']:48} not measured: {row['missing']}")
        return
    print(
        f"{row['tool']:48} precision {row['precision']:.4f} recall {row['recall']:.4f} "
        f"pictures lost {row['pictures_lost']}, of them under a shared caption {row['lost_under_a_shared_caption']}"
    )


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "quality": quality,
    "speed": speed,
    "shared": shared,
    "growth": growth,
    "grid": grid,
    "write": write,
    "one": one,
}


def main() -> None:
    """Parse the command line and run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COMMANDS, metavar="|".join(list(COMMANDS)[:5]))
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000])
    parser.add_argument("--data", help="folder that holds flickr8k_cn; without it drawn pictures alone are used")
    parser.add_argument("--rivals", help="a Python that has the other tools")
    parser.add_argument("--tools", nargs="*", default=list(duplicate_rivals.TOOLS))
    parser.add_argument("--pictures", type=int, default=600, help="drawn pictures")
    parser.add_argument("--mirrored", action="store_true", help="mirrored copies among the reposts, and joined")
    parser.add_argument("--reposts", type=int, default=8, help="reposts of each base pair")
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help="folder for large temporary files")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.what not in ("write", "one"):
        names = ", ".join(f"{n} {version(n)}" for n in ("numpy", "polars"))
        print(f"Python {platform.python_version()}, {names}, {os.cpu_count()} cores, {platform.machine()}, CPU seconds")
    COMMANDS[options.what](options)


if __name__ == "__main__":
    main()
