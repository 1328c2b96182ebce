from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from tests.conftest import here
from tuwen.pipeline.errors import RunError, UsageError
from tuwen.pipeline.fetch_with import fetch_with

REAL = os.environ.get("TUWEN_IMG2DATASET") or shutil.which("img2dataset")
RECIPE = "name: fetched\nstages:\n  - fetch: {}\n"


def program(folder: Path, script: str) -> str:
    """A stand-in for img2dataset: what it does when it fails."""
    at = folder / "bin" / "img2dataset"
    at.parent.mkdir(exist_ok=True)
    at.write_text(f"#!/bin/sh\n{script}\n")
    at.chmod(at.stat().st_mode | stat.S_IXUSR)
    return str(at)


@pytest.fixture
def table(tmp_path: Path) -> str:
    at = tmp_path / "list.csv"
    at.write_text("url,caption\nhttp://a.example/1.jpg,红色的车\nftp://a.example/2.jpg,白色的猫\n", "utf-8")
    return str(at)


def test_a_program_that_is_not_there_or_another_is_named(tmp_path: Path, table: str) -> None:
    with pytest.raises(UsageError, match=r"no such program.*tuwen\[img2dataset\].*environment of its own"):
        fetch_with(str(tmp_path / "img2dataset"), [table], {}, str(tmp_path / "out"), 1)
    with pytest.raises(UsageError, match="expected img2dataset"):
        fetch_with("sh", [table], {}, str(tmp_path / "out"), 1)
    with pytest.raises(UsageError, match="local OUT"):
        fetch_with("python3", [table], {}, "s3://bucket/out", 1)
    assert not (tmp_path / "out-img2dataset").exists()


def test_a_python_without_it_and_a_program_that_fails_end_with_their_last_words(tmp_path: Path, table: str) -> None:
    bare = tmp_path / "python3"
    bare.write_text("#!/bin/sh\necho 'No module named img2dataset' >&2\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(RunError, match="ended with 1: No module named img2dataset"):
        fetch_with(str(bare), [table], {}, str(tmp_path / "out"), 1)
    with pytest.raises(RunError, match=r"ended with 3: disk full.*goes on"):
        fetch_with(program(tmp_path, "echo disk full; exit 3"), [table], {}, str(tmp_path / "out"), 1)


def test_shards_that_are_missing_are_noticed_and_a_whole_fetch_is_not_done_again(tmp_path: Path, table: str) -> None:
    out = str(tmp_path / "out")
    shards = f"{out}-img2dataset/shards"
    with pytest.raises(RunError, match=r"accounts for 0 of 2 rows \(0 shards"):
        fetch_with(program(tmp_path, "exit 0"), [table], {}, out, 1)
    whole = f"mkdir -p {shards}; echo '{{\"count\": 2}}' > {shards}/00000_stats.json"
    assert fetch_with(program(tmp_path, whole), [table], {}, out, 1) == shards
    assert fetch_with(program(tmp_path, "exit 3"), [table], {}, out, 1) == shards
    asked = pl.read_parquet(f"{out}-img2dataset/list.parquet")
    assert asked["url"].to_list() == ["http://a.example/1.jpg", "about:unread"]
    Path(table).write_text("url,caption\nhttp://a.example/3.jpg,另一张\n", "utf-8")
    with pytest.raises(UsageError, match="another list"):
        fetch_with(program(tmp_path, whole), [table], {}, out, 1)


def test_what_holds_no_urls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "list.csv").write_text("image,caption\na.jpg,红色的车\n", "utf-8")
    command = program(tmp_path, "exit 0")
    with pytest.raises(UsageError, match="nothing to fetch"):
        fetch_with(command, [str(tmp_path / "list.csv")], {}, str(tmp_path / "out"), 1)
    with pytest.raises(UsageError, match="read as images"):
        fetch_with(command, [str(tmp_path / "a.jpg")], {}, str(tmp_path / "out"), 1)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.jpg"), np.full((64, 64, 3), 60 * n, np.uint8))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(REAL is None, reason="img2dataset is not installed; name its executable in TUWEN_IMG2DATASET")
def test_a_run_reads_what_img2dataset_fetched_and_goes_on_without_asking_again(tmp_path: Path, pictures: str) -> None:
    assert REAL is not None
    rows = [f"{pictures}/{n}.jpg,第{n}张照片" for n in range(3)] + [f"{pictures}/none.jpg,没有", "ftp://a.cn/x,不行"]
    (tmp_path / "list.csv").write_text("\n".join(["url,caption", *rows]), "utf-8")
    (tmp_path / "r.yaml").write_text(RECIPE)
    words: list[str | Path] = [
        "run",
        tmp_path / "list.csv",
        "-o",
        tmp_path / "out",
        "-r",
        tmp_path / "r.yaml",
        "--json",
        "-j",
        "1",
    ]
    counts = json.loads(here(*words, "--fetch-with", REAL).stdout)["counts"]
    assert counts == {"inputs": 5, "kept": 3, "dropped": 0, "failed": 2}
    ledger = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet")
    told = {caption: (reason, detail) for caption, reason, detail in ledger["caption_raw", "reason", "detail"].rows()}
    assert told["没有"][0] == "failed_to_download" and "404" in told["没有"][1]
    assert told["不行"][0] == "file_unreadable"
    shard = (tmp_path / "out" / "shards" / "train-000000.tar").read_bytes()
    (tmp_path / "out" / "run.json").unlink()
    shutil.rmtree(tmp_path / "web")
    here(*words, "--fetch-with", REAL)
    assert (tmp_path / "out" / "shards" / "train-000000.tar").read_bytes() == shard
