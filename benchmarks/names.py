"""How well personal names are found, how often harmless captions lose a word, and how fast; beside jieba's tagger.

python benchmarks/names.py [--data ../shared/data] [--limit N]

Exact span precision, recall and F1 on two sets of news sentences, the share of photo captions with a name (nearly all
would be false), and MB/s of UTF-8 per core. Nothing was trained on any of these texts: the tagger was published with
jieba 0.42.1, its training corpus is Baidu's own and not public. Rules were written while reading errors on the even
rows, so the odd rows show better what they are worth elsewhere; not quite, since both halves speak of the same football
clubs, which lists of general knowledge name. The photo captions were read whole, so their rate is one of development.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jieba
import jieba.posseg
import polars as pl

from tuwen.filters.name_model import MODEL, fingerprint
from tuwen.filters.names import Names

Spans = list[set[tuple[int, int]]]


def with_stage(stage: Names) -> Callable[[Sequence[str]], Spans]:
    """The stage as a run calls it, in batches of 256."""

    def find(texts: Sequence[str]) -> Spans:
        found: Spans = []
        for at in range(0, len(texts), 256):
            captions = pl.Series("caption", texts[at : at + 256], dtype=pl.String)
            offsets = pl.Series("caption_offsets", [None] * len(captions), dtype=pl.List(pl.UInt32))
            names = stage.measure(pl.DataFrame([captions, offsets]))["names"]
            found += [{(s["start"], s["end"]) for s in row} for row in names.to_list()]
        return found

    return find


def with_jieba(texts: Sequence[str]) -> Spans:
    """Words that jieba.posseg tags nr, nrt or nrfg."""
    found: Spans = []
    for text in texts:
        spans, at = set(), 0
        for word, tag in jieba.posseg.cut(text):
            if tag in ("nr", "nrt", "nrfg"):
                spans.add((at, at + len(word)))
            at += len(word)
        found.append(spans)
    return found


def scores(gold: Spans, found: Spans) -> str:
    """Exact spans."""
    right = sum(len(g & f) for g, f in zip(gold, found, strict=True))
    said, true = sum(map(len, found)), sum(map(len, gold))
    return f"P {right / max(said, 1):.3f}  R {right / max(true, 1):.3f}  F1 {2 * right / max(said + true, 1):.3f}"


def rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """Lines of a jsonl file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[:limit]]


def report(data: Path, limit: int | None = None) -> None:
    """Print the figures of all sets."""
    jieba.setLogLevel("ERROR")
    jieba.initialize()
    libraries = ", ".join(f"{p} {version(p)}" for p in ("jieba", "rjieba", "onnxruntime", "polars", "numpy"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {libraries}")
    print(f"model {fingerprint(MODEL)[:16]}, data {data}, process time on one core")
    news = {name: rows(data / "ner" / f"{name}.jsonl", limit) for name in ("peoples_daily_dev", "cluener_train")}
    texts = {name: [r["text"] for r in of] for name, of in news.items()}
    photos = rows(data / "flickr8k_cn" / "captions.jsonl", limit)
    texts["flickr8k_cn"] = [c for r in photos for c in r["zh"]]
    ways = {
        "names (model)": with_stage(Names()),
        "names (model: none)": with_stage(Names(model="none")),
        "jieba.posseg": with_jieba,
    }
    for find in ways.values():
        find(["记者王建国和张伟先生在公园里", "克里斯蒂亚诺·罗纳尔多说"])
    for name, some in texts.items():
        size = sum(len(t.encode()) for t in some) / 1e6
        print(f"\n{name}: {len(some)} texts, {size:.2f} MB")
        for way, find in ways.items():
            started = time.process_time()
            found = find(some)
            rate = size / (time.process_time() - started)
            if name in news:
                gold = [{(a, b) for a, b, _ in r["spans"]} for r in news[name]]
                result = f"{scores(gold, found)}  (odd rows {scores(gold[1::2], found[1::2])})"
            else:
                result = f"captions with a name {sum(map(bool, found)) / len(found):.2%}"
            print(f"  {way:20} {rate:6.2f} MB/s  {result}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=None, help="rows per set, for a quick look")
    given = parser.parse_args()
    report(given.data, given.limit)


if __name__ == "__main__":
    main()
