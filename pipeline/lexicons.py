"""`curate lexicon check`: reads lexicons and a sample of captions, and lays out what the check found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from ..filters.lexicon import DEFAULT, read
from ..filters.lexicon_check import check as findings_of
from ..filters.lexicon_check import frequent, rates, summary
from .errors import InputError, UsageError
from .sources.rows import clean
from .text import captions

MOST = 20
"""Entries of the sample's table; --json has all."""


def check(paths: Sequence[str], sample: str = "", column: str = "") -> dict[str, Any]:
    """Findings on the lexicons and, with a sample, each entry's hits on it.

    Raises ``InputError`` where a file is missing or cannot be read.
    """
    for path in paths:
        if path != DEFAULT and not Path(path).is_file():
            raise InputError(f"{path} is no file; expected a lexicon (.txt, .csv or .yaml) or the word default")
    if column and not sample:
        raise UsageError("--input names the caption column of a sample; give one with --sample")
    problems: list[str] = []
    lexicon = read(paths, problems)
    findings = findings_of(lexicon, problems)
    if not sample:
        return summary(lexicon, findings, None)
    with ExitStack() as stack:
        found = rates(lexicon, (clean(text) for text, _ in captions(sample, stack, column) if text))
    if not found[0]:
        raise InputError(f"{sample} holds no captions")
    return summary(lexicon, [*findings, *frequent(found[2])], found)


def shown(told: dict[str, Any]) -> Iterator[str | Table]:
    """What is printed, part by part."""
    if told["findings"]:
        table = Table("level", "finding", "where", "word", "what", box=None, pad_edge=False)
        for f in told["findings"]:
            table.add_row(*(_plain(f[k]) for k in ("level", "kind", "source", "word", "message")))
        yield table
    if "sample" in told:
        sample = told["sample"]
        table = Table("word", "category", "action", "hits", "rate", "disguised", "example", box=None, pad_edge=False)
        for r in sample["entries"][:MOST]:
            rate = f"{r['rate']:.3%}"
            table.add_row(
                *(_plain(r[k]) for k in ("word", "category", "action")),
                str(r["hits"]),
                rate,
                str(r["disguised"]),
                _plain(r["example"]),
            )
        if sample["entries"]:
            yield table
        share = sample["hit"] / sample["captions"]
        yield f"sample: {sample['captions']} captions, {sample['hit']} with a hit ({share:.3%})"
    levels = told["levels"]
    counts = ", ".join(f"{levels.get(k, 0)} {k}{'s' * (levels.get(k, 0) != 1)}" for k in ("error", "warning", "note"))
    per = ", ".join(f"{c} {n}" for c, n in told["categories"].items())
    yield f"{told['entries']} entries ({per}): {counts}"


def _plain(text: str) -> str:
    """Lexicons and captions hold brackets, which the table would take for markup."""
    from rich.markup import escape

    return escape(text)
