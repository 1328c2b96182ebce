"""/.well-known/tdmrep.json: where a whole site reserves its works from text and data mining.

W3C community group, TDM Reservation Protocol, final report of 2024: an array of rules, each with a ``location`` (a
path pattern as in robots.txt, with ``*`` and a closing ``$``), ``tdm-reservation`` (1 or 0) and perhaps ``tdm-policy``.
What a response says of itself, in its header or its HTML, goes before what the file says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

PATH = "/.well-known/tdmrep.json"


@dataclass(frozen=True)
class Rule:
    """One rule of the file."""

    location: str
    reserved: bool
    policy: str = ""

    def matches(self, path: str) -> bool:
        """Whether the rule speaks of ``path`` (with its query, percent-decoded)."""
        pattern = unquote(self.location)
        ends = pattern.endswith("$")
        first, *rest = pattern.removesuffix("$").split("*")
        if not path.startswith(first):
            return False
        # Each piece where it first occurs, never back: a regular expression takes hours for /*a*a*a*a*a*a*a*a*b.
        at = len(first)
        for part in rest[: len(rest) - ends]:
            found = path.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        if not ends:
            return True
        return path.endswith(rest[-1]) and len(path) - len(rest[-1]) >= at if rest else len(path) == at


@dataclass(frozen=True)
class Reservations:
    """The rules of one origin; none where it has no such file."""

    rules: tuple[Rule, ...] = ()

    def reserves(self, url: str) -> str | None:
        """The evidence by which the file reserves ``url``, or None.

        The report does not say which of several matching rules counts. Readers take the first or, as in
        robots.txt, the longest; a work that either reserves is left alone.
        """
        parts = urlsplit(url)
        path = unquote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        found = [rule for rule in self.rules if rule.matches(path)]
        if not found:
            return None
        rule = next((r for r in (found[0], max(found, key=lambda r: len(r.location))) if r.reserved), None)
        if rule is None:
            return None
        return f"tdmrep.json: {rule.location} is reserved{f', policy {rule.policy}' if rule.policy else ''}"[:200]


def parse(body: bytes | None) -> Reservations:
    """The rules in a file's ``body``; what is no rule is passed over.

    Many hosts answer any address with a page: that is no statement about mining.
    """
    try:
        told: Any = json.loads(body or b"[]")
    except (ValueError, RecursionError):
        return Reservations()
    rules = [_rule(item) for item in (told if isinstance(told, list) else [told])]
    return Reservations(tuple(rule for rule in rules if rule is not None))


def _rule(item: Any) -> Rule | None:
    if not isinstance(item, dict) or not isinstance(item.get("location"), str):
        return None
    said, policy = str(item.get("tdm-reservation", "")), item.get("tdm-policy")
    if said not in ("0", "1"):
        return None
    location = item["location"] if item["location"].startswith(("/", "*")) else "/" + item["location"]
    return Rule(location, said == "1", policy if isinstance(policy, str) else "")
