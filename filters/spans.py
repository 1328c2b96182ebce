"""Spans and edits of captions that keep the way back to the caption as found.

``caption_offsets`` maps each character of the current caption to its index in ``caption_raw``; null is
the identity. All spans in the ledger are in raw offsets, whatever was folded, cut or masked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..pipeline.columns import SPAN


class Span(NamedTuple):
    """What a rule found in the current caption, half open; ``replacement`` is what takes its place (None: stays)."""

    start: int
    end: int
    word: str
    category: str
    action: str
    replacement: str | None = None


def to_raw(offsets: Sequence[int] | None, start: int, end: int) -> tuple[int, int]:
    """A span of the current caption in raw offsets; its end lies behind the last character it covers."""
    if offsets is None:
        return start, end
    if start >= end:
        at = offsets[start] if start < len(offsets) else (offsets[-1] + 1 if offsets else 0)
        return at, at
    return offsets[start], max(offsets[end - 1], offsets[start]) + 1


def edit(caption: str, offsets: Sequence[int] | None, spans: Sequence[Span]) -> tuple[str, list[int] | None]:
    """``caption`` with the replacements made, and its new offsets; spans are sorted and do not overlap.

    Every character of a replacement maps to the first character that it stands for.
    """
    if all(s.replacement is None for s in spans):
        return caption, None if offsets is None else list(offsets)
    held = range(len(caption)) if offsets is None else offsets
    text: list[str] = []
    where: list[int] = []
    at = 0
    for span in spans:
        if span.replacement is None:
            continue
        text += [caption[at : span.start], span.replacement]
        where += held[at : span.start]
        where += [held[span.start]] * len(span.replacement)
        at = span.end
    text.append(caption[at:])
    where += held[at:]
    return "".join(text), where


def without_double_spaces(caption: str, cuts: Sequence[Span]) -> list[Span]:
    """Cuts, sorted, with the spaces that they would leave double or at an end of the caption."""
    wider: list[Span] = []
    for cut in sorted(cuts):
        start, end = cut.start, cut.end
        while start and caption[start - 1] == " " and caption[end : end + 1] in ("", " "):
            start -= 1
        while not start and caption[end : end + 1] == " ":
            end += 1
        last = wider[-1].end if wider else 0
        if end > last:
            wider.append(cut._replace(start=max(start, last), end=end))
    return wider


def without_overlap(spans: Sequence[Span]) -> list[Span]:
    """Sorted; of two that overlap the one that begins first stays, or the longer."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def mark(
    batch: pl.DataFrame, column: str, candidates: pl.Series, find: Callable[[str], Sequence[Span]]
) -> pl.DataFrame:
    """Run ``find`` on the candidate rows' captions, write the spans to ``column`` and make the edits.

    Rows that are no candidates get an empty list; only rows with a hit cost Python time.
    """
    rows = candidates.arg_true().to_list()
    captions = batch["caption"]
    marked: dict[int, list[dict[str, Any]]] = {}
    changed: dict[int, tuple[str, list[int] | None]] = {}
    for i in rows:
        caption = captions[i]
        found = without_overlap(find(caption)) if caption else []
        if not found:
            continue
        offsets = batch["caption_offsets"][i]
        held = None if offsets is None else offsets.to_list()
        marked[i] = []
        for span in found:
            start, end = to_raw(held, span.start, span.end)
            marked[i].append(
                {"start": start, "end": end, "word": span.word, "category": span.category, "action": span.action}
            )
        if any(s.replacement is not None for s in found):
            changed[i] = edit(caption, held, found)
    none = pl.Series(column, [[]], dtype=pl.List(SPAN)).new_from_index(0, batch.height)
    return rewrite(batch.with_columns(_replaced(none, marked)), changed)


def rewrite(batch: pl.DataFrame, changed: dict[int, tuple[str, list[int] | None]]) -> pl.DataFrame:
    """``batch`` with the captions and offsets of some rows replaced."""
    if not changed:
        return batch
    return batch.with_columns(
        _replaced(batch["caption"], {i: caption for i, (caption, _) in changed.items()}),
        _replaced(batch["caption_offsets"], {i: where for i, (_, where) in changed.items()}),
    )


def _replaced(column: pl.Series, values: Mapping[int, Any]) -> pl.Series:
    """``column`` with the values of some rows replaced: only these cost Python time."""
    if not values:
        return column
    rows = np.arange(len(column))
    rows[list(values)] = len(column) + np.arange(len(values))
    new = pl.Series(column.name, list(values.values()), dtype=column.dtype)
    return pl.concat([column, new])[rows]
