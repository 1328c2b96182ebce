from __future__ import annotations

import polars as pl

from tuwen.filters.spans import Span, edit, mark, to_raw, without_overlap


def test_edits_keep_the_way_back() -> None:
    spans = [Span(2, 4, "cd", "x", "cut", ""), Span(5, 6, "f", "x", "mask", "＊＊")]
    text, where = edit("abcdefg", None, spans)
    assert text == "abe＊＊g"
    assert where == [0, 1, 4, 5, 5, 6]
    again, where = edit(text, where, [Span(3, 5, "＊＊", "x", "mask", "#")])
    assert again == "abe#g"
    assert where == [0, 1, 4, 5, 6]
    assert to_raw(where, 2, 4) == (4, 6)
    assert to_raw(None, 1, 3) == (1, 3)


def test_a_flag_changes_nothing() -> None:
    assert edit("abc", None, [Span(0, 1, "a", "x", "flag")]) == ("abc", None)


def test_of_overlapping_spans_the_first_and_longer_stays() -> None:
    spans = [Span(1, 3, "b", "x", ""), Span(0, 2, "a", "x", ""), Span(0, 4, "c", "x", ""), Span(4, 5, "d", "x", "")]
    assert [s.word for s in without_overlap(spans)] == ["c", "d"]


def test_marking_touches_candidates_only() -> None:
    batch = pl.DataFrame({"caption": ["abc", "abc"]}).with_columns(
        caption_offsets=pl.lit(None, dtype=pl.List(pl.UInt32))
    )
    out = mark(batch, "names", pl.Series([True, False]), lambda c: [Span(0, 1, "a", "k", "mask", "")])
    assert out["caption"].to_list() == ["bc", "abc"]
    assert out["names"].list.len().to_list() == [1, 0]
    assert out["caption_offsets"].to_list() == [[1, 2], None]
