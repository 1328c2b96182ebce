"""What a run may ask of an endpoint: requests a second, requests and tokens in all.

The processes of one machine share a small file under a lock, so that a limit holds for the run and not for each of
its workers. Machines share nothing: on several the limits hold for each.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import IO


class Meter:
    """Counts requests and tokens, and says when the next request may go."""

    def __init__(self, path: str, per_second: float, max_requests: int, max_tokens: int) -> None:
        self.per_second, self.max_requests, self.max_tokens = per_second, max_requests, max_tokens
        self._lock = threading.Lock()
        # Open for as long as the process lives: the lock hangs on it.
        self._file: IO[str] = Path(path).open("a+") if path else tempfile.TemporaryFile("w+")  # noqa: SIM115

    def take(self) -> float | None:
        """Count one request; seconds until it may be sent, or None where the run's limit is reached.

        Tokens are known after the answer, so that requests under way when the limit is reached still count on top.
        """
        with self._lock, _Locked(self._file) as told:
            if self.max_requests and told["requests"] >= self.max_requests:
                return None
            if self.max_tokens and told["tokens"] >= self.max_tokens:
                return None
            told["requests"] += 1
            if not self.per_second:
                return 0.0
            # Processes of one machine have one monotonic clock.
            now = time.monotonic()
            at = max(now, told["next"])
            told["next"] = at + 1 / self.per_second
            return float(at - now)

    def spent(self, tokens: int) -> None:
        """Add what an answer cost."""
        with self._lock, _Locked(self._file) as told:
            told["tokens"] += tokens

    def totals(self) -> tuple[int, int]:
        """Requests and tokens so far."""
        with self._lock, _Locked(self._file) as told:
            return int(told["requests"]), int(told["tokens"])


class _Locked:
    """The file's counts, read and written back under a lock that all processes see."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __enter__(self) -> dict[str, float]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.seek(0)
        held: dict[str, float] = json.loads(self._file.read() or '{"requests": 0, "tokens": 0, "next": 0}')
        self._told = held
        return held

    def __exit__(self, *exc: object) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._told))
        self._file.flush()
        fcntl.flock(self._file, fcntl.LOCK_UN)
