"""Tags the characters of captions with LAC-small, a published Bi-GRU-CRF (models/NOTICE says whose it is).

A caption gives the same spans whatever is tagged beside it: sequences run in groups of a fixed number, so that
every product has the same shape, and the decoder adds and compares per caption only.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pipeline.once import once
from .name_words import simplified

MODEL = Path(__file__).parent / "models" / "names.onnx"
GROUP = 8
"""Sequences per run; 8 is the fastest of 1, 8, 32, 64 and 256 on one core."""
_LOOKS_LIKE = dict(zip("“”‘’「」『』。、—…【】〔〕", '""\'\'"""".,-.[][]', strict=True))
"""Punctuation as the model was trained to see it; NFKC does the rest."""
_AT_ONCE = 64


class NameModel:
    """An ONNX graph made by trainers/names.py, with its characters, tags and transitions."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        properties = self.session.get_modelmeta().custom_metadata_map
        self.tags: list[str] = properties["tags"].split(" ")
        self.rows = _rows(properties["characters"])
        nothing = {"ids": np.zeros((1, GROUP), np.int32), "lengths": np.ones(GROUP, np.int32)}
        transitions = self.session.run(["transitions"], nothing)[0]
        self.start, self.end, self.step = transitions[0], transitions[1], transitions[2:]
        self.inside = np.array([i for i, t in enumerate(self.tags) if t.endswith("-I")])
        self.begin = self.inside - 1
        if [self.tags[i] for i in self.begin] != [self.tags[i][:-1] + "B" for i in self.inside]:
            raise ValueError(f"{path}: expected each tag X-I right behind its X-B, as trainers/names.py writes them")
        self.fresh = np.setdiff1d(np.arange(len(self.tags)), self.inside)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        """(start, end, tag) of what the model calls a person (PER) or a name (nr), per text."""
        found: list[list[tuple[int, int, str]]] = [[] for _ in texts]
        order = sorted((i for i, t in enumerate(texts) if t), key=lambda i: len(texts[i]))
        for at in range(0, len(order), _AT_ONCE):
            chosen = order[at : at + _AT_ONCE]
            lengths = np.array([len(texts[i]) for i in chosen], np.int32)
            paths = self._decode(self._emissions([texts[i] for i in chosen], lengths), lengths)
            for i, n, path in zip(chosen, lengths, paths.T, strict=True):
                found[i] = self._named(path[:n])
        return found

    def _emissions(self, texts: list[str], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """(T, N, tags)."""
        out = np.zeros((int(lengths.max()), len(texts), len(self.tags)), np.float32)
        for at in range(0, len(texts), GROUP):
            n = lengths[at : at + GROUP]
            ids = np.zeros((int(n.max()), GROUP), np.int32)
            for j, text in enumerate(texts[at : at + GROUP]):
                codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
                ids[: n[j], j] = self.rows[np.minimum(codes, 0xFFFF)]
            padded = np.concatenate([n, np.ones(GROUP - len(n), np.int32)])
            out[: len(ids), at : at + len(n)] = self.session.run(["emissions"], {"ids": ids, "lengths": padded})[0][
                :, : len(n)
            ]
        return out

    def _decode(self, emissions: NDArray[np.float32], lengths: NDArray[np.int32]) -> NDArray[np.int64]:
        """Viterbi: the best tag per character, (T, N); lengths ascend, what lies behind a length means nothing."""
        steps, n, _ = emissions.shape
        scores = np.empty_like(emissions)
        scores[0] = emissions[0] + self.start
        first = np.searchsorted(lengths, np.arange(steps), side="right")  # sequences before it have ended
        begin, inside, fresh = self.begin, self.inside, self.fresh
        stay, enter = self.step[inside, inside], self.step[begin, inside]
        step = np.ascontiguousarray(self.step[:, fresh])[:, None, :]
        for t in range(1, steps):
            before = scores[t - 1, first[t] :]
            now = scores[t, first[t] :]
            now[:, fresh] = (before.T[:, :, None] + step).max(axis=0)
            now[:, inside] = np.maximum(before[:, inside] + stay, before[:, begin] + enter)
            now += emissions[t, first[t] :]
        every = np.arange(n)
        tags = np.zeros((steps, n), np.int64)
        last = lengths - 1
        tags[last, every] = (scores[last, every] + self.end).argmax(axis=1)
        towards = np.where(self._may_follow(), self.step, -np.inf).T
        for t in range(steps - 2, -1, -1):
            k = np.searchsorted(last, t, side="right")
            tags[t, k:] = (scores[t, k:] + towards[tags[t + 1, k:]]).argmax(axis=1)
        return tags

    def _may_follow(self) -> NDArray[np.bool_]:
        """Which tag, by row, may stand before which: X-I only behind X-B and X-I, where the others have under -9."""
        allowed = np.ones((len(self.tags), len(self.tags)), bool)
        allowed[:, self.inside] = False
        allowed[self.inside, self.inside] = allowed[self.begin, self.inside] = True
        return allowed

    def _named(self, path: NDArray[np.int64]) -> list[tuple[int, int, str]]:
        """Runs of B-I-I… whose tag is PER or nr."""
        found = []
        tags = [self.tags[i] for i in path]
        i = 0
        while i < len(tags):
            kind = tags[i][:-2]
            start, i = i, i + 1
            if kind in ("PER", "nr"):
                while i < len(tags) and tags[i] == kind + "-I":
                    i += 1
                found.append((start, i, kind))
        return found


@cache
def fingerprint(path: Path) -> str:
    """What run.json says of the model."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@once(4)
def load(path: Path) -> NameModel:
    """The model of a file, once per process."""
    return NameModel(path)


def _rows(characters: str) -> NDArray[np.int32]:
    """Embedding row of each code point of the basic plane; 0 is unknown.

    A character without a row takes that of its simplified form, its punctuation look-alike or its NFKC lower case;
    a symbol (emoji are beyond the plane, its last code stands for them) that of the comma: unknown, it would be drawn
    into a name.
    """
    row = {c: i + 1 for i, c in enumerate(characters)}
    rows = np.zeros(0x10000, np.int32)
    for code in range(0x10000):
        if 0xD800 <= code < 0xE000:
            continue
        c = chr(simplified().get(code, code))
        rows[code] = row.get(c) or row.get(_LOOKS_LIKE.get(c) or unicodedata.normalize("NFKC", c).lower(), 0)
        if not rows[code] and unicodedata.category(c) in ("So", "Sk", "Cn"):
            rows[code] = row.get(",", 0)
    return rows
