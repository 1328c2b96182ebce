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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..pipeline.errors import InputError, RecipeError
from ..pipeline.once import once

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


@once(8)
def load(paths: tuple[str, ...]) -> Lexicon:
    """The entries of all files; ``default`` names the lexicon that ships with the package.

    Raises ``InputError`` for a file that cannot be read, ``RecipeError`` with file and line for an entry that does
    not hold.
    """
    problems: list[str] = []
    lexicon = read(paths, problems)
    if problems:
        more = f" (and {len(problems) - 1} more; curate lexicon check lists them)" if len(problems) > 1 else ""
        raise RecipeError(problems[0] + more)
    return lexicon


def read(paths: Sequence[str], problems: list[str]) -> Lexicon:
    """The entries of all files that hold; what is wrong with the others goes to ``problems``."""
    entries: list[Entry] = []
    empty: list[str] = []
    digest = hashlib.sha256()
    for path in paths:
        for name, text in _texts(path):
            digest.update(text.encode())
            found, named = _parse(text, name, problems)
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


def _parse(text: str, name: str, problems: list[str]) -> tuple[list[Entry], list[str]]:
    """The entries of a file, and the categories it names."""
    if name.lower().endswith((".yaml", ".yml")):
        return _parse_yaml(text, name, problems)
    now = {"category": Path(name).stem, "action": "mask", "boundary": "auto"}
    columns: tuple[str, ...] = COLUMNS
    found: list[Entry] = []
    named: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        source = f"{name}:{number}"
        if line.startswith("#:"):
            told = dict(p.split("=", 1) for p in line[2:].split() if "=" in p)
            if unknown := set(told) - set(now):
                problems.append(f"{source}: {', '.join(sorted(unknown))}; expected category=, action= or boundary=")
                continue
            if problem := _wrong({**now, **told}):
                problems.append(f"{source}: {problem}")
                continue
            now |= told
            named.append(now["category"])
        elif line.strip() and not line.lstrip().startswith("#"):
            cells = [c.strip() for c in next(csv.reader([line.strip()]))]
            if number == 1 and "word" in cells and set(cells) <= set(COLUMNS):
                columns = tuple(cells)
                continue
            if len(cells) > len(columns):
                problems.append(
                    f"{source}: {len(cells)} values; expected at most {len(columns)}: {','.join(columns)} "
                    "(exceptions have spaces between them)"
                )
                continue
            given = {k: v for k, v in zip(columns, cells, strict=False) if v}
            _add(found, {**now, **given}, source, problems)
    return found, named


def _add(found: list[Entry], given: Mapping[str, str], source: str, problems: list[str]) -> None:
    problem = _wrong(given) if given.get("word") else f"no word; expected {','.join(COLUMNS)}"
    if problem:
        problems.append(f"{source}: {problem}")
        return
    exceptions = tuple(given.get("exceptions", "").split())
    found.append(Entry(given["word"], given["category"], given["action"], exceptions, given["boundary"], source))


def _wrong(given: Mapping[str, str]) -> str:
    """What is wrong with an action or a boundary, if anything."""
    for field, valid in (("action", ACTIONS), ("boundary", BOUNDARIES)):
        if given[field] not in valid:
            return f"{field} {given[field]!r}; expected one of: {', '.join(valid)}"
    return ""


def _parse_yaml(text: str, name: str, problems: list[str]) -> tuple[list[Entry], list[str]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import MarkedYAMLError

    try:
        told: Any = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(f"{name}:{line}: not valid YAML: {error.problem}")
        return [], []
    if told is None:
        return [], []
    if not isinstance(told, CommentedMap):
        problems.append(f"{name}:1: expected a mapping of category to words, given {type(told).__name__}")
        return [], []
    found: list[Entry] = []
    for category, value in told.items():
        group = value if isinstance(value, dict) else {"words": value}
        at = told.lc.key(category)[0] + 1
        words = group.get("words") or []
        if unknown := sorted(map(str, set(group) - {"action", "boundary", "words", "exceptions"})):
            problems.append(
                f"{name}:{at}: {category}: unknown {', '.join(unknown)}; expected action, boundary, words, exceptions"
            )
        if not isinstance(words, list):
            problems.append(f"{name}:{at}: {category}: expected a list of words, given {type(words).__name__}")
            continue
        shared = {
            "category": str(category),
            "action": str(group.get("action", "mask")),
            "boundary": str(group.get("boundary", "auto")),
            "exceptions": " ".join(map(str, group.get("exceptions") or ())),
        }
        for word, line in zip(words, _yaml_lines(words, at), strict=True):
            _add(found, {**shared, "word": str(word)}, f"{name}:{line}", problems)
    return found, [str(c) for c in told]


def _yaml_lines(words: Any, otherwise: int) -> Iterator[int]:
    for i in range(len(words)):
        at = getattr(words, "lc", None)
        yield at.item(i)[0] + 1 if at is not None and at.data else otherwise
