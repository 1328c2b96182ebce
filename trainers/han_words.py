"""Weights that tell Japanese words without kana from Chinese ones: ``python -m tuwen.trainers.han_words``.

Trained on words alone, strung together at random: those of IPADIC that have no kana (as janome carries them,
with costs) against those of jieba's dictionary (with counts) in simplified and traditional script. A logistic
regression over characters, hashed runs of two to four of them and what begins a text, rounded to bytes. Both
dictionaries' licences allow it; ``filters/models/NOTICE`` names them. No corpus and no benchmark's list is read here.

Needs: uv pip install janome jieba
"""

from __future__ import annotations

import argparse
import importlib
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from opencc import OpenCC

from ..filters.han_words import BUCKETS, CHARACTERS, FEATURES, SCALE, indices
from ..filters.shingles import code_points

HAN = re.compile("^[\u3400-\u4dbf\u4e00-\u9fff\u3005-\u3007\u30f5\u30f6]+$")
MOST_WORDS = 6
_COUNTED = ("一个", "一只", "一群", "一位", "一条", "两个")
GLUE = (*"的在了和是着有里上下中与被把从向对不也都就很到给让个", *_COUNTED, *"三这那他她我你")
"""Function words of Chinese, put between words: its captions are sentences, Japanese ones without kana are not."""
CHINESE_WEIGHT = 3.0
"""A Chinese caption lost costs as much as so many Japanese ones let through."""


def japanese_words() -> tuple[list[str], list[float]]:
    """Entries of IPADIC without kana, and how likely each is by its cost (700 to 800 a nat, as MeCab trains them)."""
    words: dict[str, float] = {}
    for number in range(10):
        entries = importlib.import_module(f"janome.sysdic.entries_compact{number}").DATA
        for surface, _, _, cost in entries.values():
            if HAN.match(surface):
                words[surface] = max(words.get(surface, 0.0), math.exp(-cost / 1500))
    return list(words), list(words.values())


def chinese_words() -> tuple[list[str], list[float]]:
    """jieba's entries and the square roots of their counts."""
    folder = Path(str(importlib.import_module("jieba").__file__)).parent
    lines = (folder / "dict.txt").read_text("utf-8").splitlines()
    entries = [line.split(" ") for line in lines]
    return [e[0] for e in entries if HAN.match(e[0])], [float(e[1]) ** 0.5 for e in entries if HAN.match(e[0])]


def strung(
    words: Sequence[str], likely: Sequence[float], count: int, seed: int, glue: Sequence[str] = ("",)
) -> list[str]:
    """``count`` strings of one to six words, half of the words drawn by how likely they are, half alike.

    In half of the strings each word but the last may be followed by one of ``glue``.
    """
    drawn = random.Random(seed)
    lengths = drawn.choices(range(1, MOST_WORDS + 1), (4, 3, 2, 1, 1, 1), k=count)
    common = iter(drawn.choices(words, likely, k=sum(lengths)))
    any_word = iter(drawn.choices(words, k=sum(lengths)))
    texts = []
    for n in lengths:
        some = [next(common if drawn.random() < 0.5 else any_word) for _ in range(n)]
        if drawn.random() < 0.5:
            some[:-1] = [word + drawn.choice(glue) if drawn.random() < 0.5 else word for word in some[:-1]]
        texts.append("".join(some))
    return texts


def train(count: int, epochs: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int8]], int]:
    """(CHARACTERS + BUCKETS,) weights and the bias, in units of 1 / SCALE; positive speaks for Japanese."""
    torch.manual_seed(0)
    chinese = strung(*chinese_words(), count, 1, GLUE)
    scripts = [OpenCC("s2tw"), OpenCC("s2hk")]
    for first, script in zip((0, 2), scripts, strict=True):
        chosen = range(first, count, 4)
        converted = script.convert("\n".join(chinese[i] for i in chosen)).split("\n")
        for i, text in zip(chosen, converted, strict=True):
            chinese[i] = text
    texts = [*strung(*japanese_words(), count, 2), *chinese]
    truth = torch.cat([torch.ones(count), torch.zeros(count)])
    codes, starts = code_points(pl.Series(texts))
    found = torch.from_numpy(np.stack(indices(codes, starts), axis=1).ravel().astype(np.int64))
    bounds = FEATURES * starts
    bag = torch.nn.EmbeddingBag(CHARACTERS + BUCKETS, 1, mode="sum", padding_idx=0)
    torch.nn.init.zeros_(bag.weight)
    bias = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([bag.weight, bias], lr=0.03)
    cost = torch.where(truth > 0, 1.0, CHINESE_WEIGHT)
    size = 8192
    generator = torch.Generator().manual_seed(3)
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(texts), generator=generator).numpy()
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            lengths = bounds[rows + 1] - bounds[rows]
            ends = np.cumsum(lengths)
            index = np.arange(ends[-1]) + np.repeat(bounds[rows] - (ends - lengths), lengths)
            logits = bag(found[index], torch.from_numpy(ends - lengths)).squeeze(1) + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth[rows], cost[rows])
            loss = loss + 2e-7 * bag.weight.square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows) / len(order)
        for group in optimiser.param_groups:
            group["lr"] *= 0.6
        print(f"epoch {epoch}: loss {total:.4f}")
    weights = bag.weight.detach().numpy()[:, 0] * SCALE
    return np.clip(np.round(weights), -127, 127).astype(np.int8), round(float(bias.detach()) * SCALE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "filters" / "models" / "han_words.npz"))
    parser.add_argument("--strings", type=int, default=1_500_000, help="strings of each language")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    weights, bias = train(options.strings, options.epochs)
    np.savez_compressed(options.out, weights=weights, bias=np.int32(bias))
    print(f"{options.out}: {np.count_nonzero(weights)} of {len(weights)} weights")


if __name__ == "__main__":
    main()
