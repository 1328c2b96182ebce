"""Which addresses and which pages belong to a crawl."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser

HAN = re.compile(r"[\u3400-\u9fff]")
KANA_HANGUL = re.compile(r"[\u3041-\u30ff\uac00-\ud7a3]")
LETTER = re.compile(r"[^\W\d_]")
LEAST_HAN = 0.3
"""Share of Han among a Chinese page's letters: pages of news carry addresses, brands and English menus."""
MOST_KANA = 0.1


@dataclass(frozen=True)
class Scope:
    """Hosts (shell patterns), paths (a regular expression that the path must match from its start) and language."""

    hosts: tuple[str, ...]
    path: str = ""
    language: str = ""

    def allows(self, url: str) -> bool:
        """Whether a link to ``url`` is followed."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or not any(fnmatch.fnmatchcase(host, p) for p in self.hosts):
            return False
        return not self.path or re.match(self.path, parts.path or "/") is not None

    def speaks(self, body: str) -> bool:
        """Whether a page's text is in the language of the crawl."""
        return not self.language or is_chinese(body)


def hosts_of(seeds: Sequence[str]) -> tuple[str, ...]:
    """The hosts of the seeds, which bound a crawl that names no others."""
    return tuple(sorted({(urlsplit(seed).hostname or "").lower() for seed in seeds}))


def is_chinese(page: str) -> bool:
    """Whether the visible text of an HTML page is mostly Chinese; a page with next to no text may be."""
    tree = LexborHTMLParser(page)
    tree.strip_tags(["script", "style", "noscript", "template"])
    text = tree.body.text() if tree.body else ""
    letters = len(LETTER.findall(text))
    if letters < 20:
        return True
    return len(HAN.findall(text)) >= LEAST_HAN * letters and len(KANA_HANGUL.findall(text)) <= MOST_KANA * letters
