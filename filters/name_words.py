"""Word lists of the name rules, read once per process from lexicons/names/."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

SOUND_MARKS = "·•・‧"
"""What stands between the parts of a foreign or minority name."""


@cache
def lexicon(name: str) -> frozenset[str]:
    """The words of one list."""
    text = (files(__package__) / "lexicons" / "names" / f"{name}.txt").read_text("utf-8")
    return frozenset(w for line in text.splitlines() if not line.startswith("#") for w in line.split())


@cache
def lexicons_hash() -> str:
    """Of all lists together."""
    folder = files(__package__) / "lexicons" / "names"
    every = sorted((f.name, f.read_bytes()) for f in folder.iterdir() if f.name.endswith(".txt"))
    return hashlib.sha256(b"".join(name.encode() + b"\0" + data for name, data in every)).hexdigest()


@cache
def titles() -> dict[str, tuple[str, ...]]:
    """Titles ``after`` a name, roles ``before`` one, and what says ``team`` or ``place``; longest first."""
    text = (files(__package__) / "lexicons" / "names" / "titles.txt").read_text("utf-8")
    told: dict[str, list[str]] = {}
    side = ""
    for line in text.splitlines():
        if line.startswith("#"):
            side = line[1:].strip().rstrip(":")
        else:
            told.setdefault(side, []).extend(line.split())
    return {k: tuple(sorted(v, key=len, reverse=True)) for k, v in told.items()}


@cache
def sound() -> str:
    """A pattern of one character that writes a foreign or minority name by its sound, beside an interpunct."""
    return "[" + "".join(sorted(lexicon("transliteration") | lexicon("minority"))) + "]"


def traditional(words: Iterable[str]) -> set[str]:
    """The words, and as traditional Chinese writes them."""
    import opencc

    given = sorted(words)
    return set(given) | set(opencc.OpenCC("s2t").convert(" ".join(given)).split(" "))


@cache
def simplified() -> dict[int, int]:
    """For ``str.translate``: characters that only traditional Chinese writes to their simplified form.

    乾 stays as it is: what GB 2312 has is written in simplified Chinese too (乾隆).
    """
    import opencc

    codes = [c for c in range(0x3400, 0xA000) if not _in_gb2312(chr(c))]
    pairs = zip(codes, opencc.OpenCC("t2s").convert(" ".join(map(chr, codes))).split(" "), strict=True)
    return {c: ord(s) for c, s in pairs if len(s) == 1 and ord(s) != c}


def _in_gb2312(c: str) -> bool:
    try:
        c.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def one_of(words: Iterable[str]) -> str:
    """A pattern that matches any of the words, the longest first."""
    return "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w)))
