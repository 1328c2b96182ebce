"""X-Robots-Tag and the robots meta element: which of their directives speak to this program.

A value is a list of directives; ``agent: a, b`` speaks to that agent alone, until another is named.
"""

from __future__ import annotations

AGENT = "tuwen"
"""The name by which a robots.txt, a header or a meta element may speak of this program."""

OPT_OUT = frozenset(("noai", "noimageai", "noml"))
"""Directives by which a site keeps its works from training (DeviantArt, img2dataset)."""

_VALUED = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
"""Directives that take a value behind a colon and so are no agents."""


def directives(value: str) -> frozenset[str]:
    """The directives of one ``value`` that speak to everybody or to this program, in lower case.

    >>> sorted(directives("noindex, otherbot: noai, tuwen: NoML"))
    ['noindex', 'noml']
    """
    found, ours = [], True
    for item in value.lower().split(","):
        name, colon, rest = (part.strip() for part in item.partition(":"))
        if colon and name not in _VALUED and " " not in name:
            ours = name in ("*", AGENT)
            name = rest
        if ours:
            found.append(name)
    return frozenset(found)
