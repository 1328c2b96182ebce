"""What a captioner gives for one image, whichever captioner it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Written:
    """A caption as it was written, or why there is none.

    ``reason`` is one stable word (http_500, timeout, empty, …), ``detail`` the same for people; ``tokens`` what the
    endpoint said that the request cost, null where nobody counts.
    """

    text: str | None
    reason: str | None = None
    detail: str | None = None
    tokens: int | None = None


class Captioner(Protocol):
    """Writes one caption per image, in order. Raises for nothing that an image or a server can do."""

    def captions(self, images: Sequence[bytes]) -> list[Written]: ...
