from __future__ import annotations

import polars as pl
from apache_beam.coders.typecoders import registry

from tuwen.pipeline.batch import BatchCoder, decode, encode
from tuwen.pipeline.columns import SPAN


def frame() -> pl.DataFrame:
    spans = [[{"start": 0, "end": 2, "word": "赌博", "category": "gambling", "action": "mask"}], None, []]
    return pl.DataFrame(
        {"key": ["a", None, "c"], "image": [b"\0\xff", b"", None], "sensitive": spans},
        schema={"key": pl.String, "image": pl.Binary, "sensitive": pl.List(SPAN)},
    )


def test_round_trip_keeps_types_and_nulls() -> None:
    back = decode(encode(frame()))
    assert back.equals(frame())
    assert back.schema == frame().schema


def test_equal_frames_give_equal_bytes_however_chunked_or_filtered() -> None:
    whole = frame()
    chunked = pl.concat([whole[:1], whole[1:]], rechunk=False)
    filtered = pl.concat([whole, whole.with_columns(key=pl.lit("z"))]).filter(pl.col("key").ne_missing(pl.lit("z")))
    assert encode(whole) == encode(chunked) == encode(filtered)


def test_beam_finds_the_coder() -> None:
    coder = registry.get_coder(pl.DataFrame)
    assert isinstance(coder, BatchCoder)
    assert coder.is_deterministic()
    assert coder.decode(coder.encode(frame())).equals(frame())
