"""robots.txt for the images of a run: what a host allows, asked once and remembered for a day.

RFC 9309: a host without one (4xx) allows all; one whose robots.txt cannot be had (5xx) allows nothing for now.
Where the host itself does not answer, the image's own fetch says so, which tells more than ``robots`` would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from protego import Protego

from .transfer import Outcome

T = TypeVar("T")

AGENT = "tuwen"
"""The name by which a robots.txt may speak of this program."""

SECONDS = 24 * 3600
"""How long rules hold (RFC 9309, 2.4)."""

MOST_HELD = 100_000
"""Origins remembered per process: about 100 MB of rules at the worst."""


@dataclass(frozen=True)
class Rules:
    """What one origin allows; ``refusal`` says why it allows nothing, where it does not."""

    parsed: Protego | None = None
    refusal: str | None = None

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
        return Rules(Protego.parse(told.body.decode("utf-8", "replace")))
    if told.status >= 500:
        return Rules(refusal=f"robots.txt answered {told.status}, so nothing is fetched for now")
    return Rules()


class Held(Generic[T]):
    """What origins said (rules of robots.txt, reservations), each for a day."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[float, T]] = {}

    def get(self, origin: str) -> T | None:
        """The rules of ``origin``, or None where they are not known or too old."""
        held = self._rules.get(origin)
        return held[1] if held is not None and held[0] > time.monotonic() else None

    def put(self, origin: str, rules: T) -> None:
        """Remember ``rules``; the oldest are forgotten where there are too many."""
        while len(self._rules) >= MOST_HELD:
            del self._rules[next(iter(self._rules))]
        self._rules[origin] = (time.monotonic() + SECONDS, rules)
