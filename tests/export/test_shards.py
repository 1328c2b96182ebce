from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tuwen.export.shards import sample_jsons, write_index, write_shard
from tuwen.pipeline import files


def samples(*keys: str) -> list[tuple[str, bytes, str, dict[str, object]]]:
    return [(k, b"\xff\xd8" + k.encode(), f"第{k}张", {"score": 0.5, "lang": "zh"}) for k in keys]


def test_equal_samples_make_equal_files(tmp_path: Path) -> None:
    one = write_shard(str(tmp_path / "a.tar"), samples("a", "b"))
    two = write_shard(str(tmp_path / "sub" / "a.tar"), samples("a", "b"))
    assert one == two
    assert one.samples == 2
    assert one.bytes == (tmp_path / "a.tar").stat().st_size


def test_samples_out_of_order_or_twice_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    for keys in (("b", "a"), ("a", "a")):
        with pytest.raises(ValueError, match="order of their keys"):
            write_shard(str(tmp_path / "x.tar"), samples(*keys))
    assert list(tmp_path.iterdir()) == []


def test_a_sample_leaves_out_bytes_nulls_and_what_is_about_the_run() -> None:
    rows = [
        {"key": "k", "image": b"x", "caption": "c", "score": 0.4, "status": "kept", "nsfw": None, "unit": "u"},
        {"key": "l", "image": b"y", "caption": "d", "score": None, "status": None, "nsfw": None, "unit": "u"},
    ]
    told = list(sample_jsons(pl.DataFrame(rows).with_columns(spans=pl.Series([[{"word": "w"}], []]))))
    assert told == [{"key": "k", "score": 0.4, "spans": [{"word": "w"}]}, {"key": "l", "spans": []}]


def test_the_index_lists_shards_by_name_on_any_file_system() -> None:
    root = "memory://tuwen-shards"
    infos = [write_shard(files.join(root, f"{n}.tar"), samples(n)) for n in ("b", "a")]
    write_index(root, infos)
    told = json.loads(files.read_bytes(files.join(root, "index.json")))
    assert [t["name"] for t in told] == ["a.tar", "b.tar"]
    assert set(told[0]) == {"name", "samples", "bytes", "sha256"}
    files.remove(root)
