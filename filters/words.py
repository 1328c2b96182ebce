"""The segmenter's words and tags for a batch of captions: the dearest step of the text chain, so done all at once.

One call for all captions costs half of one call each: a line end is a word of its own and no word crosses it, so
a caption's words are the same in any company. A word's tag hangs on the word alone, so each word is tagged once
per process: cutting costs half of tagging.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

Words = list[tuple[str, str]]
"""(word, tag) in order, as jieba tags them."""

REMEMBERED = 1 << 19
"""Words whose tags are held, about 50 MB; beyond, all are forgotten."""
_LINE_END = 0


class _Tags:
    """Numbers of tags by word, learned as words come; a number once given stays, and one thread learns at a time."""

    def __init__(self) -> None:
        self.names = ["\n"]
        self.number = {"\n": _LINE_END}
        self.of: dict[str, int] = {"\n": _LINE_END}
        self._learning = threading.Lock()

    def numbers(self, captions: Sequence[str], words: list[str]) -> npt.NDArray[np.int16]:
        """(words,) the tag of each word of ``captions``, which end in a line end each."""
        found = self._known(words)
        if (found < 0).any():
            with self._learning:
                found = self._learned(captions, words)
        return found

    def _learned(self, captions: Sequence[str], words: list[str]) -> npt.NDArray[np.int16]:
        """The same, after tagging the captions that hold a word not met before."""
        found = self._known(words)
        if (found < 0).any():
            rows = np.unique((np.cumsum(found == _LINE_END) - (found == _LINE_END))[found < 0])
            if len(self.of) > REMEMBERED:
                self.of = {"\n": _LINE_END}
                rows = np.arange(len(captions))
            for word, tag in _segmenter().tag("\n".join(captions[i] for i in rows.tolist())):
                if word != "\n":
                    self.of[word] = self.number.setdefault(tag, len(self.number))
            self.names = list(self.number)
            found = self._known(words)
        return found

    def _known(self, words: list[str]) -> npt.NDArray[np.int16]:
        return np.fromiter(map(self.of.get, words, repeat(-1)), dtype=np.int16, count=len(words))


_TAGS = _Tags()


def tagged(captions: Sequence[str]) -> list[Words]:
    """The words of each caption."""
    if not captions:
        return []
    captions = _lines(captions)
    words = _cut(captions)
    numbers = _TAGS.numbers(captions, words)
    tags = [_TAGS.names[i] for i in numbers.tolist()]
    ends = np.flatnonzero(numbers == _LINE_END).tolist()
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [list(zip(words[a:b], tags[a:b], strict=True)) for a, b in zip(starts, ends, strict=True)]


def with_tag(captions: Sequence[str], wanted: Sequence[str], beginning: str) -> npt.NDArray[np.bool_]:
    """(captions,) whether a word of each has a tag that is ``wanted`` or that begins so."""
    captions = _lines(captions)
    numbers = _TAGS.numbers(captions, _cut(captions))
    fits = np.array([name in wanted or name.startswith(beginning) for name in _TAGS.names], dtype=np.bool_)
    row = np.cumsum(numbers == _LINE_END)
    has = np.zeros(len(captions) + 1, dtype=np.bool_)
    has[row[fits[numbers]]] = True
    return has[:-1]


def _lines(captions: Sequence[str]) -> list[str]:
    """Captions as lines: what ends a line stands for a space, which no word holds either."""
    return [c.replace("\r", " ").replace("\n", " ") if "\n" in c or "\r" in c else c for c in captions]


def _cut(captions: Sequence[str]) -> list[str]:
    return list(_segmenter().cut("\n".join(captions) + "\n")) if captions else []


def _segmenter() -> Any:
    import rjieba

    return rjieba
