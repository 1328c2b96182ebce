from __future__ import annotations

from pathlib import Path

import fsspec
import polars as pl
import pytest

from tuwen.pipeline import files


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://tuwen-{tmp_path.name}"


def test_a_file_appears_only_when_complete(root: str) -> None:
    path = files.join(root, "parts", "a.bin")
    with pytest.raises(RuntimeError), files.publish(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert not files.exists(path)
    assert files.names(files.join(root, "parts")) == []
    files.write_bytes(path, b"whole")
    assert files.read_bytes(path) == b"whole"
    assert files.names(files.join(root, "parts")) == ["a.bin"]


def test_publishing_replaces_what_was_there(root: str) -> None:
    path = files.join(root, "x.json")
    files.write_bytes(path, b"1")
    files.write_bytes(path, b"2")
    assert files.read_bytes(path) == b"2"
    files.remove(path)
    files.remove(path)
    assert not files.exists(path)


def test_parquet_and_random_reads(root: str) -> None:
    frame = pl.DataFrame({"key": ["b", "a"], "score": [0.25, None]})
    path = files.join(root, "t.parquet")
    files.write_parquet(path, frame)
    assert files.read_parquet(path).equals(frame)
    assert files.read_parquet(path, ["key"]).columns == ["key"]
    files.write_bytes(files.join(root, "b"), b"0123456789")
    with files.open_read(files.join(root, "b")) as handle:
        handle.seek(4)
        assert handle.read(3) == b"456"


def test_an_unknown_folder_holds_nothing(root: str) -> None:
    assert files.names(files.join(root, "nowhere")) == []


def teardown_module() -> None:
    fsspec.filesystem("memory").store.clear()
