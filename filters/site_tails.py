"""Tails and heads that a site adds to its captions: "…_新浪图片", "…|人民网", "组图：…", "【高清】…".

``boilerplate`` knows the usual forms; what one site writes is learned here, by counting over the whole run.
A tail is one to three last pieces that a delimiter sets off, a head the first ones. It is the site's where

- it stands on at least ``pages`` pages of one host, beside as many different rests (a caption that repeats
  whole is no tail, that is ``templates``);
- it is on at least ``share`` of the host's pages that show any tail at all; each further piece on as large a share
  of the pages that show the pieces outside it. So the one of 北京 and 上海 in "…_北京_新浪" stays;
- what is left says something: at least ``left`` letters or digits.

The words are cut from the caption and recorded in raw offsets; the pair stays. Words that are not in the caption
as found (a placeholder for a name) are nobody's tail. Scores were taken before, with the tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.columns import SPAN, with_missing
from ..pipeline.stage import Phase, StageModel
from . import sites
from .normalise import converter, normalise
from .shingles import U64, fold_column, mix64
from .spans import to_raw

Side = Literal["tail", "head"]
LEVELS = 3
_MARKS = r"_|｜—–»›>"
_BETWEEN = rf"[{_MARKS}\-]"
_WORDS = rf"[^{_MARKS}\-（(\[【)）\]】]{{1,20}}"
_BRACKETS = r"[（(\[【][^（(\[【)）\]】]{1,20}[)）\]】]"
PIECE: dict[Side, str] = {
    "tail": rf"(?:\s*{_BETWEEN}+\s*{_WORDS}|\s*{_BRACKETS})",
    "head": rf"(?:{_WORDS.replace('^', '^:：')}\s*(?:{_BETWEEN}|[:：])+\s*|{_BRACKETS}\s*)",
}
"""One piece at an end of a caption, with the delimiter that sets it off."""
_SEED: dict[Side, int] = {"tail": 0x7461696C, "head": 0x68656164}
_LETTERS = r"[\p{L}\p{N}]"


class SiteTails(StageModel):
    """Cuts the tails and heads that a site adds to its captions, found by counting over the run."""

    name: ClassVar[str] = "site_tails"
    adds: ClassVar[tuple[str, ...]] = ("site_tails", "tail_count", "head_count", "caption")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = ("caption", "caption_raw", "page_url")
    before_same_key: ClassVar[bool] = True
    entries_per_row: ClassVar[int] = 2 * (LEVELS + 1)

    pages: int = Field(
        10,
        ge=2,
        description="pages of one host, and different rests, from which on a tail is the site's; twice that of "
        "templates, since a tail that describes ('-成年') repeats as well",
    )
    share: float = Field(
        0.2, ge=0, le=1, description="least share of the host's pages with a tail that show this one, piece by piece"
    )
    left: int = Field(2, ge=1, description="letters and digits that a cut must leave")
    heads: bool = Field(True, description="cut heads too")

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with the site's tails and heads cut from captions, and on how many pages they stand."""
        return self.apply(rows, self.count(self.entries(rows)))

    def entries(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Site and affix by page and rest, and one value by site and side that counts pages with any affix."""
        rows = with_missing(rows, self.reads)
        pages, found = rows["page_url"], []
        for side in self._sides():
            affixes = _affixes(rows, side)
            found.append(sites.entries(affixes["any"], pages))
            for level in range(1, LEVELS + 1):
                rest = fold_column(affixes[f"rest{level}"]).text_hash()
                found.append(sites.entries(affixes[f"value{level}"], pages, rest))
        return pl.concat(found)

    def count(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Pages and rests by site and affix."""
        return sites.count(entries)

    def apply(self, rows: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with what was ``counted`` of them."""
        rows = with_missing(rows, self.reads)
        counts, lengths = {}, {}
        for side in ("tail", "head"):
            none = pl.Series([0], dtype=pl.Int64).new_from_index(0, rows.height)
            counts[f"{side}_count"], lengths[side] = (
                self._judged(_affixes(rows, side), counted)
                if side in self._sides()
                else (none.replace(0, None).cast(pl.UInt32), none)
            )
        rows = rows.with_columns(**counts)
        return _cut(rows, lengths["tail"].to_numpy(), lengths["head"].to_numpy(), self.left)

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {}

    def _sides(self) -> tuple[Side, ...]:
        return ("tail", "head") if self.heads else ("tail",)

    def _judged(self, affixes: pl.DataFrame, counted: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
        """Per row: pages with the affix that is the site's (else with the shortest one), and its length, 0 for none."""
        outside = _counted(affixes["any"], counted)["pages"]
        fine = pl.Series([True]).new_from_index(0, affixes.height)
        shown = outside.clear(affixes.height)
        length = pl.Series([0], dtype=pl.Int64).new_from_index(0, affixes.height)
        for level in range(1, LEVELS + 1):
            found = _counted(affixes[f"value{level}"], counted)
            enough = (found["pages"] >= self.pages) & (found["rests"] >= self.pages)
            fine &= (enough & (found["pages"] >= self.share * outside)).fill_null(False)
            fine &= affixes[f"rest{level}"].str.count_matches(_LETTERS).fill_null(0) >= self.left
            if level == 1:
                shown = found["pages"]
            shown = found["pages"].zip_with(fine, shown)
            length = affixes[f"length{level}"].zip_with(fine, length)
            outside = found["pages"]
        return shown, length


def restored(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` of a ledger with the captions as they were before tails were cut: a replay decides anew."""
    rows = with_missing(rows, ("site_tails",))
    words = {
        side: pl.col("site_tails")
        .list.eval(pl.element().filter(pl.element().struct.field("category") == side).struct.field("word"))
        .list.join("")
        .fill_null("")
        for side in ("head", "tail")
    }
    return rows.with_columns(
        caption=pl.when(pl.col("caption").is_not_null()).then(pl.concat_str(words["head"], "caption", words["tail"])),
        site_tails=pl.lit(None, dtype=pl.List(SPAN)),
    )


def _affixes(rows: pl.DataFrame, side: Side) -> pl.DataFrame:
    """Per row ``any`` (site and side, null without an affix) and, by level, value, rest and length of its affix."""
    caption, host = rows["caption"], sites.site(rows["page_url"])
    columns: dict[str, pl.Series] = {}
    for level in range(1, LEVELS + 1):
        pattern = f"({PIECE[side]}{{{level}}})"
        affix = caption.str.extract(f"{pattern}$" if side == "tail" else f"^{pattern}")
        length = affix.str.len_chars().cast(pl.Int64)
        frame = pl.DataFrame({"caption": caption, "affix": affix, "length": length})
        rest = frame.select(
            pl.col("caption").str.slice(0, pl.col("caption").str.len_chars() - pl.col("length"))
            if side == "tail"
            else pl.col("caption").str.slice(pl.col("length"))
        ).to_series()
        # A hyphen inside T-shirt delimits nothing.
        inside = rest.str.contains("[A-Za-z0-9]$") & affix.str.contains("^-[A-Za-z0-9]")
        if side == "head":
            inside = affix.str.contains("[A-Za-z0-9]-$") & rest.str.contains("^[A-Za-z0-9]")
        says = affix.str.contains(r"\p{Han}|\p{L}{2}") & ~inside & rest.str.contains(_LETTERS)
        there = (says & host.is_not_null()).fill_null(False)
        text: U64 = mix64(fold_column(affix).text_hash() + np.uint64(_SEED[side]))
        nothing = pl.Series([None], dtype=pl.UInt64).new_from_index(0, rows.height)
        columns[f"value{level}"] = sites.on_site(host, text).zip_with(there, nothing)
        columns[f"rest{level}"] = rest
        columns[f"length{level}"] = length.fill_null(0)
        if level == 1:
            whole = np.full(rows.height, _SEED[side], dtype=np.uint64)
            columns["any"] = sites.on_site(host, whole).zip_with(there, nothing)
    return pl.DataFrame(columns)


def _counted(value: pl.Series, counted: pl.DataFrame) -> pl.DataFrame:
    frame = pl.DataFrame({"value": value}).join(counted, on="value", how="left", maintain_order="left")
    return frame.select("pages", "rests")


def _cut(rows: pl.DataFrame, tails: Any, heads: Any, left: int) -> pl.DataFrame:
    """``rows`` without their last ``tails`` and first ``heads`` characters, and the spans."""
    at = np.flatnonzero((tails > 0) | (heads > 0))
    captions, spans = [], []
    some = rows.select("caption", "caption_raw")[at].rows()
    for (caption, raw), tail, head in zip(some, tails[at].tolist(), heads[at].tolist(), strict=True):
        start, end, found = 0, len(caption), []
        if head and sum(c.isalnum() for c in caption[head : len(caption) - tail]) >= left:
            where = raw_span(raw, caption[:head], last=False)
            if where:
                start = head
                found.append(_span(where, caption[:head], "head"))
        where = raw_span(raw, caption[end - tail :], last=True) if tail else None
        if where:
            found.append(_span(where, caption[end - tail :], "tail"))
            end -= tail
        captions.append(caption[start:end])
        spans.append(found or None)
    nothing = pl.Series("site_tails", [None], dtype=pl.List(SPAN)).new_from_index(0, rows.height)
    if not len(at):
        return rows.with_columns(nothing)
    place = np.arange(rows.height)
    place[at] = rows.height + np.arange(len(at))
    return rows.with_columns(
        pl.concat([nothing, pl.Series(spans, dtype=pl.List(SPAN))])[place].alias("site_tails"),
        pl.concat([rows["caption"], pl.Series(captions, dtype=pl.String)])[place].alias("caption"),
    )


def raw_span(raw: str, words: str, last: bool) -> tuple[int, int] | None:
    """Where the first or last ``words`` of a caption stand in ``raw``; None where they do not (a placeholder)."""
    text, offsets = normalise(raw)
    for same in (str, converter("t2s")):
        given, sought = same(text), same(words)
        start = given.rfind(sought) if last else given.find(sought)
        if start >= 0:
            return to_raw(offsets, start, start + len(words))
    return None


def _span(where: tuple[int, int], words: str, side: Side) -> dict[str, Any]:
    return {"start": where[0], "end": where[1], "word": words, "category": side, "action": "cut"}
