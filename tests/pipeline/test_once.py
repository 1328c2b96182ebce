"""One load per process, however many threads ask."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import rjieba

from tuwen.filters import words
from tuwen.filters.detectors import load_detector
from tuwen.filters.lexicon import load as load_lexicon
from tuwen.filters.name_model import load as load_names
from tuwen.filters.word_search import search
from tuwen.pipeline.once import Once, once
from tuwen.scoring.scorer import load_scorer


def test_threads_wait_for_the_first_and_share_what_it_loaded() -> None:
    calls: list[str] = []

    @once(2)
    def load(name: str) -> object:
        """Loads."""
        calls.append(name)
        time.sleep(0.05)
        return object()

    together = threading.Barrier(8)

    def ask(_: int) -> object:
        together.wait()
        return load("model")

    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(ask, range(8)))
    assert calls == ["model"]
    assert len(set(map(id, held))) == 1
    load.cache_clear()
    assert load("model") is not held[0]
    assert load.__doc__ == "Loads."


def test_what_was_not_loaded_is_tried_again() -> None:
    calls = []

    @once(1)
    def load() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no such file yet")
        return "model"

    with pytest.raises(OSError, match="yet"):
        load()
    assert load() == "model"


def test_models_and_lexicons_of_the_stages_are_loaded_so() -> None:
    from tuwen.scoring import scorer

    for loader in (load_detector, load_lexicon, load_names, search, scorer._load):
        assert isinstance(loader, Once), loader
    assert load_scorer.__doc__


def test_words_tagged_by_many_threads_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "REMEMBERED", 40)  # forgets again and again
    monkeypatch.setattr(words, "_TAGS", words._Tags())
    captions = [
        f"{a}和{b}在{c}" for a in ("小狗", "帆船", "老人") for b in ("苹果", "风筝") for c in ("湖边", "雪地里", "桥上")
    ]
    alone = [list(rjieba.tag(c)) for c in captions]

    def ask(turn: int) -> bool:
        return all(words.tagged(captions[i:] + captions[:i]) == alone[i:] + alone[:i] for i in range(turn % 7, 18, 3))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(24)))
