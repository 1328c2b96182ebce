"""Models and lexicons are loaded once per worker process, however many threads ask at the same time.

``functools.lru_cache`` lets every thread that comes before the first result load its own: a worker with twelve
threads, which is what clusters start by default, would hold twelve models while they load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Once(Generic[P, R]):
    """A function whose results are held; callers wait while another thread makes the first."""

    def __init__(self, make: Callable[P, R], most: int) -> None:
        self._held = lru_cache(most)(make)
        self._lock = threading.RLock()
        update_wrapper(self, make)

    def __call__(self, *args: P.args, **named: P.kwargs) -> R:
        with self._lock:
            return self._held(*args, **named)  # type: ignore[arg-type]  # what is not hashable raises there

    def cache_clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._held.cache_clear()


def once(most: int) -> Callable[[Callable[P, R]], Once[P, R]]:
    """Hold the results of the ``most`` argument lists used last; each is made by one thread."""
    return lambda make: Once(make, most)
