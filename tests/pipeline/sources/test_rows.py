from __future__ import annotations

import io

from tuwen.pipeline.sources.rows import MAX_CAPTION, Pair, batches
from tuwen.pipeline.units import BATCH_BYTES, Unit, pair_key

UNIT = Unit("images", "/data/photos")


def test_batches_keep_to_rows_and_bytes() -> None:
    small = [Pair(f"f#{i}#0", "车", "alt", f"https://a.example/{i}") for i in range(600)]
    assert [f.height for f in batches(small, UNIT)] == [256, 256, 88]
    large = [Pair(f"f#{i}#0", "车", "sidecar", image=bytes(BATCH_BYTES // 3)) for i in range(5)]
    assert [f.height for f in batches(large, UNIT)] == [2, 2, 1]
    huge = [Pair("f#0#0", "车", image=bytes(BATCH_BYTES + 1)), *small[:2]]
    assert [f.height for f in batches(huge, UNIT)] == [1, 2]
    assert list(batches([], UNIT)) == []


def test_every_text_can_be_stored() -> None:
    (frame,) = batches([Pair("a\udcff#0#0", "半\ud800\0", "alt", "https://a.example/\udcff", page_url="p\0")], UNIT)
    (row,) = frame.to_dicts()
    assert row["caption_raw"] == "半\ufffd\ufffd" and row["origin"] == "a\ufffd#0#0" and row["page_url"] == "p\ufffd"
    frame.write_parquet(io.BytesIO())


def test_rows_without_image_or_caption_are_failed() -> None:
    pairs = [Pair("f#0#0", "车"), Pair("f#1#0", image=b"x"), Pair("f#2#0", "x" * (MAX_CAPTION + 1), image=b"x")]
    (frame,) = batches(pairs, UNIT)
    assert frame["reason"].to_list() == ["image_missing", "caption_missing", "caption_too_large"]
    assert frame["caption_raw"].to_list() == ["车", None, None]
    assert frame["key"].n_unique() == 3


def test_keys_tell_image_and_caption_apart() -> None:
    assert pair_key("https://a.example/1", "车") == pair_key("https://a.example/1", "车")
    different = {
        pair_key("ab", "c"),
        pair_key("a", "bc"),
        pair_key(b"ab", "c"),
        pair_key(b"ab\0", "c"),
        pair_key(b"ab", "\0c"),
        pair_key("ab\0", "c"),
    }
    assert len(different) == 6


def test_unit_names() -> None:
    assert Unit("lines", "/a/x.csv").id == Unit("lines", "/b/x.csv").id
    assert Unit("lines", "/a/x.csv").id != Unit("lines", "/a/x.csv", index=1).id
    assert Unit("lines", "/a/x.csv").id != Unit("lines", "/a/x.csv", start=5).id
