"""How varied a set of pairs is, without training on it.

Most of these measures grow with the number of captions, so sets are compared on samples of one size; each function
says so where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..filters.shingles import I64, fold_column

Array = NDArray[np.float64]
SAMPLE = 2000
"""Pairs that are compared where a measure grows with their number."""


def distinct(captions: pl.Series, n: int) -> float:
    """Distinct ``n``-grams of folded characters over all of them (distinct-n, Li et al. 2016, arXiv 1510.03055).

    Characters, since words would measure the segmenter as well. Falls with the number of captions.
    """
    grams = _grams(captions, n)
    return len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def entropy(captions: pl.Series) -> float:
    """Bits of the distribution of whole folded captions: log2 of how many equally common ones would be as varied."""
    return _bits(_counts(fold_column(captions).text_hash()))


def character_entropy(captions: pl.Series) -> float:
    """Bits of the distribution of folded characters."""
    return _bits(_counts(_grams(captions, 1)))


def effective_size(clusters: NDArray[Any]) -> float:
    """(sum f)^2 / sum f^2 over the sizes f of clusters (Kish's effective sample size): n if all are single."""
    counts = _counts(clusters).astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0


def duplicate_share(clusters: NDArray[Any]) -> float:
    """Share of the rows that are not the first of their cluster."""
    return 1 - len(np.unique(clusters)) / len(clusters) if len(clusters) else 0.0


def vendi(vectors: Array) -> float:
    """Vendi score of unit rows (n, d) under the cosine kernel: the effective number of distinct rows, 1 to n.

    The exponential of the Shannon entropy of the eigenvalues of K / n (Friedman and Dieng 2023, arXiv 2210.02410).
    K = X X^T and X^T X share their eigenvalues other than zero, so the smaller of the two is decomposed. Grows with n.
    """
    n, d = vectors.shape
    if n == 0:
        return 0.0
    kernel = vectors @ vectors.T if n < d else vectors.T @ vectors
    values = np.linalg.eigvalsh(kernel / n)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def concepts(captions: pl.Series, least: int = 5) -> set[str]:
    """Words of two and more characters that at least ``least`` captions hold, as jieba cuts them."""
    import rjieba

    words = pl.Series([sorted({w for w in rjieba.cut(c) if len(w) > 1 and w.isalpha()}) for c in captions])
    if words.dtype != pl.List(pl.String):
        return set()
    counted = words.explode().drop_nulls().value_counts()
    return set(counted.filter(pl.col("count") >= least)[counted.columns[0]])


def vectors(column: pl.Series) -> Array:
    """(n, d) from the ledger's embeddings, which are unit vectors of 16-bit floats; nulls are left out."""
    held = column.drop_nulls()
    if held.is_empty():
        return np.zeros((0, 1))
    flat = np.frombuffer(b"".join(held.to_list()), "<f2").astype(np.float64).reshape(len(held), -1)
    lengths: Array = np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-9)
    return flat / lengths


def describe(rows: pl.DataFrame, captions: Sequence[str], cluster: I64, seed: int = 0) -> dict[str, Any]:
    """All measures of the pairs ``rows`` (of a ledger) that train with ``captions``; ``cluster`` (n,) numbers theirs.

    Measures that depend on the number of captions are of the ``sample`` that is told, drawn by ``seed``.
    """
    words = pl.Series("caption", list(captions), dtype=pl.String)
    chosen = np.random.default_rng(seed).permutation(len(words))[:SAMPLE]
    some, held = words.gather(chosen), rows[chosen.tolist()]
    told: dict[str, Any] = {
        "pairs": len(words),
        "sample": len(some),
        "distinct_1": distinct(some, 1),
        "distinct_2": distinct(some, 2),
        "caption_entropy_bits": entropy(some),
        "character_entropy_bits": character_entropy(some),
        "effective_pairs": effective_size(cluster),
        "effective_share": effective_size(cluster) / max(1, len(words)),
        "duplicate_share": duplicate_share(cluster),
        "shared_captions": duplicate_share(fold_column(words).text_hash()),
        "characters": float(words.str.len_chars().mean() or 0),  # type: ignore[arg-type]
    }
    for name in ("image", "caption"):
        column = f"{name}_embedding"
        if column in held.columns and held[column].count() > 1:
            told[f"vendi_{name}s"] = vendi(vectors(held[column]))
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in told.items()}


def histogram(scores: pl.Series, bins: int = 40) -> dict[str, list[float]]:
    """``edges`` (bins + 1) from the least to the greatest score and ``counts`` (bins)."""
    held = scores.drop_nulls().to_numpy()
    if not len(held):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(held, bins)
    return {"edges": [round(float(e), 4) for e in edges], "counts": [int(c) for c in counts]}


def _grams(captions: pl.Series, n: int) -> NDArray[np.uint64]:
    """Numbers of all n-grams that lie within one caption; n is 1 or 2."""
    folded = fold_column(captions)
    codes = folded.codes.astype(np.uint64)
    if n == 1:
        return codes
    inside = np.ones(len(codes), np.bool_)
    inside[folded.starts[1:] - 1] = False  # the last character of a caption begins no pair
    return ((codes[:-1] << np.uint64(21)) | codes[1:])[inside[:-1]]


def _counts(values: NDArray[Any]) -> I64:
    return np.unique(values, return_counts=True)[1].astype(np.int64)


def _bits(counts: I64) -> float:
    share = counts / counts.sum() if len(counts) else np.ones(1)
    return float(-(share * np.log2(share)).sum())
