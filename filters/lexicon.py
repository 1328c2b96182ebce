"""Lexicons of sensitive words: plain text, csv or yaml, read once per process.

Plain text and csv, one entry a line: ``word,category,action,exceptions,boundary``, all but the word may be left out;
# begins a comment; ``#: category=… action=… boundary=…`` sets what follows. A csv may begin with a line of these names,
in any order. In yaml: a mapping of category to a list of words, or to
``{action: …, boundary: …, words: […], exceptions: […]}``.

- action: ``mask``, ``drop`` or ``flag``;
- exceptions: longer words in which the entry means no harm, with spaces between them;
- boundary: ``any`` (everywhere), ``word`` (whole words of the segmentation only) or ``auto``, which is ``any`` for long
  entries, while short ones must not cut a word in two.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..pipeline.errors import InputError, RecipeError

ACTIONS = ("mask", "drop", "flag")
BOUNDARIES = ("auto", "any", "word")
COLUMNS = ("word", "category", "action", "exceptions", "boundary")
DEFAULT = "default"


@dataclass(frozen=True)
class Entry:
    """A word as it was given, what it is, what happens, longer words in which it means no harm, and where it stands."""

    word: str
    category: str
    action: str
    exceptions: tuple[str, ...] = ()
    boundary: str = "auto"
    source: str = ""


@dataclass(frozen=True)
class Lexicon:
    """All entries in the order of the files, the hash of these, and the categories that have none."""

    entries: tuple[Entry, ...]
    hash: str
    empty: tuple[str, ...] = ()


@lru_cache(8)
def load(paths: tuple[str, ...]) -> Lexicon:
    """The entries of all files; ``default`` names the lexicon that ships with the package.

    Raises ``InputError`` for a file that cannot be read, ``RecipeError`` with file and line for an entry that does
    not hold.
    """
    entries: list[Entry] = []
    empty: list[str] = []
    digest = hashlib.sha256()
    for path in paths:
        for name, text in _texts(path):
            digest.update(text.encode())
            found, named = _parse(text, name)
            entries += found
            empty += [category for category in named if not any(e.category == category for e in found)]
    return Lexicon(tuple(entries), digest.hexdigest()[:16], tuple(empty))


def _texts(path: str) -> list[tuple[str, str]]:
    if path == DEFAULT:
        folder = files(__package__) / "lexicons" / "sensitive"
        return [(p.name, p.read_text("utf-8")) for p in sorted(folder.iterdir(), key=lambda p: p.name)]
    at = Path(path)
    if not at.is_file():
        raise RecipeError(f"lexicon {path!r} is no file; give a .txt, .csv or .yaml, or 'default'")
    try:
        return [(str(at), at.read_text("utf-8-sig"))]
    except UnicodeDecodeError as error:
        raise InputError(f"{at}: not UTF-8 at byte {error.start}; save the lexicon as UTF-8") from None
    except OSError as error:
        raise InputError(f"{at}: {error.strerror}") from None


def _parse(text: str, name: str) -> tuple[list[Entry], list[str]]:
    """The entries of a file, and the categories it names."""
    if name.lower().endswith((".yaml", ".yml")):
        return _parse_yaml(text, name)
    now = {"category": Path(name).stem, "action": "mask", "boundary": "auto"}
    columns: tuple[str, ...] = COLUMNS
    found, named = [], []
    for number, line in enumerate(text.splitlines(), 1):
        source = f"{name}:{number}"
        if line.startswith("#:"):
            told = dict(p.split("=", 1) for p in line[2:].split() if "=" in p)
            if unknown := set(told) - set(now):
                raise RecipeError(f"{source}: {', '.join(sorted(unknown))}; expected category=, action= or boundary=")
            now |= told
            named.append(now["category"])
        elif line.strip() and not line.lstrip().startswith("#"):
            cells = [c.strip() for c in next(csv.reader([line.strip()]))]
            if number == 1 and "word" in cells and set(cells) <= set(COLUMNS):
                columns = tuple(cells)
                continue
            if len(cells) > len(columns):
                raise RecipeError(
                    f"{source}: {len(cells)} values; expected at most {len(columns)}: {','.join(columns)} "
                    "(exceptions have spaces between them)"
                )
            given = {k: v for k, v in zip(columns, cells, strict=False) if v}
            found.append(_entry({**now, **given}, source))
    return found, named


def _entry(given: Mapping[str, str], source: str) -> Entry:
    for field, valid in (("action", ACTIONS), ("boundary", BOUNDARIES)):
        if given[field] not in valid:
            raise RecipeError(f"{source}: {field} {given[field]!r}; expected one of: {', '.join(valid)}")
    if not given.get("word"):
        raise RecipeError(f"{source}: no word; expected {','.join(COLUMNS)}")
    exceptions = tuple(given.get("exceptions", "").split())
    return Entry(given["word"], given["category"], given["action"], exceptions, given["boundary"], source)


def _parse_yaml(text: str, name: str) -> tuple[list[Entry], list[str]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import MarkedYAMLError

    try:
        told: Any = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    if told is None:
        return [], []
    if not isinstance(told, CommentedMap):
        raise RecipeError(f"{name}:1: expected a mapping of category to words, given {type(told).__name__}")
    found = []
    for category, value in told.items():
        group = value if isinstance(value, dict) else {"words": value}
        at = told.lc.key(category)[0] + 1
        words = group.get("words") or []
        if unknown := set(group) - {"action", "boundary", "words", "exceptions"}:
            raise RecipeError(
                f"{name}:{at}: {category}: unknown {', '.join(map(str, unknown))}; "
                "expected action, boundary, words, exceptions"
            )
        if not isinstance(words, list):
            raise RecipeError(f"{name}:{at}: {category}: expected a list of words, given {type(words).__name__}")
        told_all = {
            "category": str(category),
            "action": str(group.get("action", "mask")),
            "boundary": str(group.get("boundary", "auto")),
            "exceptions": " ".join(map(str, group.get("exceptions") or ())),
        }
        lines = _yaml_lines(words, at)
        found += [_entry({**told_all, "word": str(w)}, f"{name}:{n}") for w, n in zip(words, lines, strict=True)]
    return found, [str(c) for c in told]


def _yaml_lines(words: Any, otherwise: int) -> Iterator[int]:
    for i in range(len(words)):
        at = getattr(words, "lc", None)
        yield at.item(i)[0] + 1 if at is not None and at.data else otherwise
