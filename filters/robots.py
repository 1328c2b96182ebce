"""robots.txt for the images of a run: what a host allows, asked once and remembered for a day.

RFC 9309: a host without one (4xx) allows all; one whose robots.txt cannot be had allows nothing for now. Where it
answers 5xx that is told as ``robots``; where it does not answer at all, its images end by the same cause as its
robots.txt (``dns``, ``timeout_connect``, …), without a request for each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from protego import Protego

from .robots_tag import AGENT
from .transfer import Outcome

T = TypeVar("T")

SECONDS = 24 * 3600
"""How long rules hold (RFC 9309, 2.4)."""

UNKNOWN_SECONDS = 600
"""How long it holds that rules cannot be had."""

UNREACHABLE = frozenset(
    (
        *("dns", "refused", "tls", "timeout_connect", "timeout_read"),
        *("reset", "empty", "network", "bad_response", "http_429"),
    )
)
"""Outcomes of asking for robots.txt that say nothing of what it says."""

MOST_HELD = 100_000
"""Origins remembered per process: about 100 MB of rules at the worst."""


@dataclass(frozen=True)
class Rules:
    """What one origin allows; ``refusal`` says why it allows nothing, where it does not.

    ``unreachable`` is the outcome of asking for robots.txt where nobody answered.
    """

    parsed: Protego | None = None
    refusal: str | None = None
    unreachable: Outcome | None = None

    @property
    def seconds(self) -> float:
        """How long these rules hold."""
        return UNKNOWN_SECONDS if self.refusal else SECONDS

    def refuses(self, url: str) -> str | None:
        """Why ``url`` is not to be fetched, or None where it may be."""
        if self.refusal is None and (self.parsed is None or self.parsed.can_fetch(url, AGENT)):
            return None
        return self.refusal or f"robots.txt of {urlsplit(url).netloc} forbids it"


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: what one robots.txt speaks for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def rules_of(told: Outcome) -> Rules:
    """The rules that the fetch of a robots.txt gave."""
    if told.body is not None:
        return Rules(Protego.parse(told.body.decode("utf-8-sig", "replace")))
    if told.error in UNREACHABLE:
        return Rules(refusal=f"robots.txt cannot be had: {told.detail}", unreachable=told)
    if told.status >= 500:
        return Rules(refusal=f"robots.txt answered {told.status}, so nothing is fetched for now")
    return Rules()


class Held(Generic[T]):
    """What origins or hosts said (rules of robots.txt, reservations, a pause), each for its time."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[float, T]] = {}

    def get(self, origin: str) -> T | None:
        """The rules of ``origin``, or None where they are not known or too old."""
        held = self._rules.get(origin)
        return held[1] if held is not None and held[0] > time.monotonic() else None

    def left(self, origin: str) -> float:
        """Seconds for which the rules of ``origin`` hold on; 0 where they are not known."""
        held = self._rules.get(origin)
        return max(0.0, held[0] - time.monotonic()) if held is not None else 0.0

    def put(self, origin: str, rules: T, seconds: float = SECONDS) -> None:
        """Remember ``rules`` for ``seconds``; the oldest are forgotten where there are too many."""
        while len(self._rules) >= MOST_HELD:
            del self._rules[next(iter(self._rules))]
        self._rules[origin] = (time.monotonic() + seconds, rules)
