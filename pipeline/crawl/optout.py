"""By what words a page asks not to be used or followed, and where it says them.

``noai``, ``noimageai`` and ``noml`` in X-Robots-Tag or a robots meta element (DeviantArt's convention, which
img2dataset follows), the W3C community group's TDM Reservation Protocol in meta element, header or the site's
tdmrep.json (what stands nearer to the page goes before), and ``nofollow`` or ``none`` of the robots meta convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser

from ...filters.robots_tag import AGENT, OPT_OUT
from ...filters.robots_tag import directives as spoken_to_us

_NOFOLLOW = frozenset(("nofollow", "none"))


@dataclass(frozen=True)
class Directives:
    """What a page says: the evidence, word for word, by which it reserves itself, and whether links may be followed."""

    reserved: tuple[str, ...] = ()
    nofollow: bool = False


def directives(headers: Mapping[str, Sequence[str]], body: bytes, site: str | None = None) -> Directives:
    """The directives of a page from its response ``headers`` (names in lower case) and its decompressed ``body``.

    ``site`` is the evidence by which the site's tdmrep.json reserves the page, or None.
    """
    said = [(f"X-Robots-Tag: {value}", value) for value in headers.get("x-robots-tag", ())]
    # What the site, the header and the page say of mining; each overrules those before it.
    mining = [site] if site else []
    policy = "".join(f", TDM-Policy: {v.strip()}" for v in headers.get("tdm-policy", ())[:1])
    for value in headers.get("tdm-reservation", ()):
        mining = [f"TDM-Reservation: 1{policy}"] if value.strip() == "1" else []
    for node in LexborHTMLParser(body).css("meta[name]"):
        name = (node.attributes.get("name") or "").strip().lower()
        content = (node.attributes.get("content") or "").strip()
        if name in ("robots", AGENT):
            said.append((f"meta {name}: {content}", content))
        elif name == "tdm-reservation":
            mining = ["meta tdm-reservation: 1"] if content == "1" else []
    words = [(evidence, spoken_to_us(value)) for evidence, value in said]
    reserved = mining + [evidence for evidence, spoken in words if spoken & OPT_OUT]
    return Directives(tuple(e[:200] for e in reserved), any(spoken & _NOFOLLOW for _, spoken in words))
