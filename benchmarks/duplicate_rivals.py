"""What other tools find on a table of captions: run by ``duplicates.py`` with the Python that has them.

Reads a parquet file with key, caption and phash (and, for the labels, family and picture), writes one
JSON line per tool that is installed. Needs polars and numpy beside the tools and nothing of tuwen.
Each tool works with its own defaults; where it leaves the choice of shingles to its user, these are the
character bigrams that tuwen uses, cut in Python, and the usual threshold of 0.7 and 128 permutations. For
quality datasketch's and rensa's candidates are verified by their signatures; for speed they are not.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version

import numpy as np
import polars as pl

Groups = list[int]
NOT_A_WORD = re.compile(r"\W", re.UNICODE)
THRESHOLD, PERMUTATIONS = 0.7, 128


class Joined:
    """Union-find over caption numbers."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, node: int) -> int:
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return node

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self.parent[high] = low


def bigrams(caption: str) -> list[str]:
    """Distinct character bigrams of the caption's letters and digits; the text itself where it is short."""
    text = NOT_A_WORD.sub("", caption.lower())
    return list({text[i : i + 2] for i in range(len(text) - 1)}) if len(text) > 3 else [text]


Pairs = Iterable[tuple[int, int]]


def datasketch(captions: list[str], verified: bool) -> Pairs:
    """MinHash and MinHashLSH, one by one as its documentation shows."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    held = []
    for number, caption in enumerate(captions):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([s.encode() for s in bigrams(caption)])
        held.append(signature)
        for other in index.query(signature):
            if not verified or held[int(other)].jaccard(signature) >= THRESHOLD:
                yield int(other), number
        index.insert(number, signature, check_duplication=False)


def rensa(captions: list[str], verified: bool) -> Pairs:
    """RMinHash signatures in bulk, RMinHashLSH one by one."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=16)
    held = []
    for first in range(0, len(captions), 10_000):
        sets = [bigrams(c) for c in captions[first : first + 10_000]]
        for number, signature in enumerate(RMinHash.from_token_sets(sets, PERMUTATIONS, 42), first):
            held.append(signature)
            for other in index.query(signature):
                if not verified or held[int(other)].jaccard(signature) >= THRESHOLD:
                    yield int(other), number
            index.insert(number, signature)


def text_dedup(captions: list[str], verified: bool) -> Pairs:
    """Its MinHash: 5-grams of words between non-letters, texts of fewer than 5 words without a signature."""
    import text_dedup.minhash as tool
    from text_dedup.utils import optimal_param, xxh3_32hash

    bands, rows = optimal_param(0.7, 250, 0.5, 0.5)
    ranges = [(i * rows, (i + 1) * rows) for i in range(bands)]
    largest, prime = np.uint32((1 << 32) - 1), np.uint64((1 << 61) - 1)
    random = np.random.RandomState(42)
    permutations = (
        random.randint(1, prime, size=(250,), dtype=np.uint64),
        random.randint(0, prime, size=(250,), dtype=np.uint64),
    )
    tables: list[dict[bytes, int]] = [{} for _ in range(bands)]
    for number, caption in enumerate(captions):
        if len(NOT_A_WORD.split(caption)) < 5:
            continue
        found = tool.embed_func(
            caption,
            number,
            num_perm=250,
            ngram_size=5,
            min_length=5,
            hashranges=ranges,
            permutations=permutations,
            hash_func=xxh3_32hash,
            dtype=np.uint64,
            max_hash=largest,
            modulo_prime=prime,
        )
        for table, value in zip(tables, found["__signatures__"], strict=True):
            yield table.setdefault(bytes(value), number), number


def datatrove(captions: list[str], verified: bool) -> Pairs:
    """Its MinHash: 14 buckets of 8 hashes over 5-grams of the words that its Chinese tokenizer (jieba) cuts."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.typeshelper import Languages

    tool = MinhashDedupSignature("unused", MinhashConfig(), language=Languages.mandarin_chinese)
    tables: list[dict[tuple[int, ...], int]] = [{} for _ in range(14)]
    for number, caption in enumerate(captions):
        shingles = tool.get_shingles(caption)
        if len(shingles):
            for table, value in zip(tables, tool.get_signature(shingles), strict=True):
                yield table.setdefault(tuple(value), number), number


TOOLS: dict[str, Callable[[list[str], bool], Pairs]] = {
    "datasketch": datasketch,
    "rensa": rensa,
    "text-dedup": text_dedup,
    "datatrove": datatrove,
}


def main() -> None:
    """Run the tools over the table and print what each found, with and without a look at the image hash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--tools", nargs="*", default=list(TOOLS))
    parser.add_argument("--bits", type=int, default=10, help="image hashes at most so far apart count as one image")
    parser.add_argument("--speed", action="store_true", help="time alone, without checking what the bands find")
    options = parser.parse_args()
    frame = pl.read_parquet(options.table)
    captions, hashes = frame["caption"].to_list(), frame["phash"].to_list()
    for name in options.tools:
        try:
            started = time.process_time()
            text, both = Joined(len(captions)), Joined(len(captions))
            for one, other in TOOLS[name](captions, not options.speed):
                text.join(one, other)
                if (hashes[one] ^ hashes[other]).bit_count() <= options.bits:
                    both.join(one, other)
            seconds = time.process_time() - started
        except ImportError as error:
            print(json.dumps({"tool": name, "missing": str(error)}))
            continue
        label = f"{name} {version(name)}"
        told = {"tool": label, "seconds": seconds}
        if options.speed:
            print(json.dumps(told), flush=True)
            continue
        for what, joined in (("captions alone", text), ("captions, then image hash", both)):
            groups = [joined.root(i) for i in range(len(captions))]
            print(json.dumps({**told, "tool": f"{label}, {what}", **compare(frame, groups)}), flush=True)


def compare(frame: pl.DataFrame, groups: Groups) -> dict[str, float]:
    """Pairwise precision and recall, and pictures lost: groups hold all but one row of which is dropped."""
    held = frame.with_columns(group=pl.Series(groups))
    right, found, due = (_pairs(held, *by) for by in (("group", "family"), ("group",), ("family",)))
    kept: dict[int, str] = {}
    lost = defaultdict(int)
    for group, picture, kind in held.select("group", "picture", "kind").rows():
        if kept.setdefault(group, picture) != picture:
            lost[kind == "shared caption"] += 1
    return {
        "precision": right / found if found else 1.0,
        "recall": right / due,
        "pictures_lost": lost[True] + lost[False],
        "lost_under_a_shared_caption": lost[True],
    }


def _pairs(frame: pl.DataFrame, *by: str) -> int:
    return sum(n * (n - 1) // 2 for n in frame.group_by(*by).len()["len"])


if __name__ == "__main__":
    main()
