"""How fast inputs are read, kind by kind, in CPU time of one process.

    python benchmarks/sources.py [--rows 200000] [--data ../shared/data]

Without ``--data`` the pages are the embedded sample's. Beside the pages stands the time that decoding and parsing
them take alone (selectolax), beside the lines ``json.loads``, beside the tar ``tarfile``: the floor of each.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import platform
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from selectolax.lexbor import LexborHTMLParser

from tuwen.pipeline.sources import open_input, read_unit
from tuwen.pipeline.sources.charset import decode


def main() -> None:
    """Print a line per kind of input."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--data", type=Path)
    given = arguments.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("polars", "pyarrow", "fastwarc", "selectolax"))
    print(f"{platform.machine()}, {platform.processor() or _cpu()}, Python {platform.python_version()}, {packages}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = _pages(folder, given.data)
        told = [
            _told("HTML folder", "pages", pages, lambda c, _: c["pages"]),
            _floor("  decode and parse alone", pages),
            _told("WARC.gz of the same", "pages", _warc(folder, pages), lambda c, _: c["pages"]),
            *(_told(kind, "rows", path, lambda _, n: n) for kind, path in _tables(folder, given.rows)),
        ]
        lines = (folder / "p.jsonl").read_bytes().splitlines()
        told.append(_timed("  json.loads alone", "rows", len(lines), lambda: [json.loads(line) for line in lines]))
        path = _tar(folder, given.rows // 20)
        told += [_told("WebDataset tar", "samples", path, lambda _, n: n), _tar_floor(path)]
        images = _unpacked(folder, path)
        told.append(_told("image folder", "images", images, lambda _, n: n))
    print("\n".join(told))


def _cpu() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next((r.split(":", 1)[1].strip() for r in rows if r.startswith("model name")), "unknown processor")


def _timed(kind: str, unit: str, n: int, work: Callable[[], object]) -> str:
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    return f"{kind:28} {n:9,} {unit:8} {seconds:7.2f} s {n / seconds:12,.0f} {unit}/s"


def _told(kind: str, unit: str, path: Path, count: Callable[[Counter[str], int], int]) -> str:
    counts: Counter[str] = Counter()
    started = time.process_time()
    units = list(open_input(str(path)))
    planned = time.process_time() - started
    rows = sum(f.height for u in units for f in read_unit(u, counts))
    seconds = time.process_time() - started
    n = count(counts, rows)
    line = f"{kind:28} {n:9,} {unit:8} {seconds:7.2f} s {n / seconds:12,.0f} {unit}/s"
    return f"{line}  ({rows:,} pairs, {rows / seconds:,.0f} a second; {len(units)} units, {planned:.2f} s to plan)"


def _pages(folder: Path, data: Path | None) -> Path:
    if data is not None:
        return data / "html_zh" / "pages"
    from tuwen.sample_data.generate import write_sample

    write_sample(folder / "sample")
    return folder / "sample" / "web"


def _floor(kind: str, pages: Path) -> str:
    bodies = [p.read_bytes() for p in sorted(pages.rglob("*.html"))]
    size = sum(map(len, bodies)) / 1e6
    line = _timed(kind, "pages", len(bodies), lambda: [LexborHTMLParser(decode(b)[0]).css("img") for b in bodies])
    return f"{line}  ({size:.1f} MB)"


def _warc(folder: Path, pages: Path) -> Path:
    path = folder / "pages.warc.gz"
    with path.open("wb") as out:
        for i, page in enumerate(sorted(pages.rglob("*.html"))):
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page.read_bytes()
            head = f"WARC-Type: response\r\nWARC-Target-URI: http://p.example/{i}\r\nContent-Length: {len(block)}"
            out.write(gzip.compress(b"WARC/1.0\r\n" + head.encode() + b"\r\n\r\n" + block + b"\r\n\r\n"))
    return path


def _tables(folder: Path, rows: int) -> list[tuple[str, Path]]:
    seeded = np.random.default_rng(0)
    lengths = seeded.integers(6, 30, rows)
    characters = np.array([chr(c) for c in range(0x4E00, 0x4E00 + 3000)])
    captions = ["".join(seeded.choice(characters, n)) for n in lengths]
    table = pl.DataFrame(
        {"url": [f"https://img{i % 97}.example.cn/2024/{i:08d}.jpg" for i in range(rows)], "caption": captions}
    )
    table.write_ndjson(folder / "p.jsonl")
    table.write_csv(folder / "p.csv")
    table.write_csv(folder / "quoted.csv", quote_style="always")
    table.write_csv(folder / "p.tsv", separator="\t")
    table.write_parquet(folder / "p.parquet")
    names = ("p.jsonl", "p.csv", "quoted.csv", "p.tsv", "p.parquet")
    return [(name, folder / name) for name in names]


def _tar(folder: Path, samples: int) -> Path:
    """Samples of 30 kB, about the size of a web image at 256 pixels; the bytes need not be an image to be read."""
    seeded = np.random.default_rng(0)
    path = folder / "p.tar"
    with tarfile.open(path, "w") as out:
        for i in range(samples):
            for ending, data in (("jpg", seeded.bytes(30_000)), ("txt", f"第{i}张".encode()), ("json", b"{}")):
                member = tarfile.TarInfo(f"{i:08d}.{ending}")
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return path


def _tar_floor(path: Path) -> str:
    def work() -> int:
        n = 0
        with tarfile.open(path) as tar:
            while (member := tar.next()) is not None:
                n += len(tar.extractfile(member).read())  # type: ignore[union-attr]
        return n

    with tarfile.open(path) as tar:
        n = len(tar.getmembers()) // 3
    return _timed("  tarfile alone", "samples", n, work)


def _unpacked(folder: Path, path: Path) -> Path:
    with tarfile.open(path) as tar:
        tar.extractall(folder / "images", filter="data")
    return folder / "images"


if __name__ == "__main__":
    main()
