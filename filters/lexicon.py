"""Lexicons of sensitive words: plain text, csv or yaml; loaded once per process, searched in one pass.

Plain text, one entry a line: ``word``, or ``word,category,action,exception exception …``; # begins a
comment; ``#: category=… action=…`` sets what follows. In yaml: a mapping of category to a list of words,
or to ``{action: …, words: […], exceptions: […]}``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..pipeline.errors import RecipeError
from .fold import fold

ACTIONS = ("mask", "drop", "flag")
DEFAULT = "default"


@dataclass(frozen=True)
class Entry:
    """A word as it was given, what it is, what happens, and longer words in which it means no harm."""

    word: str
    category: str
    action: str
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lexicon:
    """Entries by folded word, the automaton over them, and the hash of the files they came from."""

    entries: dict[str, Entry]
    words: tuple[str, ...]
    automaton: Any
    hash: str


@lru_cache(8)
def load(paths: tuple[str, ...]) -> Lexicon:
    """The entries of all files; ``default`` names the lexicon that ships with the package.

    Raises ``RecipeError`` that names file and line where an entry does not hold.
    """
    import ahocorasick_rs

    entries: dict[str, Entry] = {}
    digest = hashlib.sha256()
    for path in paths:
        for name, text in _texts(path):
            digest.update(text.encode())
            for entry in _parse(text, name):
                folded = fold(entry.word)
                if folded:
                    entries[folded] = entry
    words = tuple(entries)
    # Not leftmost-longest: a long entry that is no hit here must not hide a shorter one within it.
    automaton = ahocorasick_rs.AhoCorasick(list(words), matchkind=ahocorasick_rs.MatchKind.Standard)
    return Lexicon(entries, words, automaton, digest.hexdigest()[:16])


def _texts(path: str) -> list[tuple[str, str]]:
    if path == DEFAULT:
        folder = files(__package__) / "lexicons" / "sensitive"
        return [(p.name, p.read_text("utf-8")) for p in sorted(folder.iterdir(), key=lambda p: p.name)]
    at = Path(path)
    if not at.is_file():
        raise RecipeError(f"lexicon {path!r} is no file; give a .txt, .csv or .yaml, or 'default'")
    return [(str(at), at.read_text("utf-8-sig"))]


def _parse(text: str, name: str) -> list[Entry]:
    if name.endswith((".yaml", ".yml")):
        return _parse_yaml(text, name)
    category, action, found = Path(name).stem, "mask", []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("#:"):
            told = dict(p.split("=", 1) for p in line[2:].split() if "=" in p)
            category, action = told.get("category", category), told.get("action", action)
            _check(action, name, number)
        elif line and not line.startswith("#"):
            cells = [c.strip() for c in line.split(",")]
            own = cells[2] if len(cells) > 2 and cells[2] else action
            _check(own, name, number)
            exceptions = tuple(cells[3].split()) if len(cells) > 3 else ()
            found.append(Entry(cells[0], cells[1] if len(cells) > 1 and cells[1] else category, own, exceptions))
    return found


def _check(action: str, name: str, number: int) -> None:
    if action not in ACTIONS:
        raise RecipeError(f"{name}:{number}: action {action!r}; expected one of: {', '.join(ACTIONS)}")


def _parse_yaml(text: str, name: str) -> list[Entry]:
    from ruamel.yaml import YAML

    told = YAML(typ="safe").load(text) or {}
    if not isinstance(told, dict):
        raise RecipeError(f"{name}:1: expected a mapping of category to words, given {type(told).__name__}")
    found = []
    for category, value in told.items():
        group = value if isinstance(value, dict) else {"words": value}
        action = group.get("action", "mask")
        _check(action, name, 1)
        exceptions = tuple(group.get("exceptions") or ())
        found += [Entry(str(w), str(category), action, exceptions) for w in group.get("words") or ()]
    return found
