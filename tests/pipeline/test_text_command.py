"""`curate text`: one line per caption, in order, with offsets into the caption as given."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import here

CAPTIONS = [
    "记者王志强摄：草地上有一只白色的小狗",
    "Ａ座的红色汽车　停在路边",
    "A white dog on the grass",
    "雪山",
    "",
]


def run(tmp_path: Path, source: Path, *words: str) -> list[dict[str, Any]]:
    out = tmp_path / "out.jsonl"
    here("text", source, "-o", out, *words)
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def written(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"captions.{kind}"
    lines = [json.dumps({"id": i, "caption": c}, ensure_ascii=False) for i, c in enumerate(CAPTIONS)]
    frame = pl.DataFrame({"id": range(len(CAPTIONS)), "说明": CAPTIONS})
    if kind == "jsonl":
        path.write_text("\n".join(lines), "utf-8")
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    elif kind == "txt":
        path.write_text("\n".join(CAPTIONS) + "\n", "utf-8")
    elif kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "txt", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_lines(tmp_path: Path, kind: str) -> None:
    told = run(tmp_path, written(tmp_path, kind))
    assert [t["caption"] for t in told] == CAPTIONS
    assert [t["status"] for t in told] == ["kept", "kept", "dropped", "dropped", "dropped"]
    assert [t["reason"] for t in told[2:]] == ["not_chinese", "caption_too_short", "caption_empty"]
    assert all(set(t) == {"caption", "text", "status", "stage", "reason", "spans"} for t in told)
    (name,) = [s for s in told[0]["spans"] if s["stage"] == "names"]
    assert told[0]["caption"][name["start"] : name["end"]] == name["word"] == "王志强"
    assert "王志强" not in told[0]["text"]
    assert told[1]["text"].startswith("A座")


def test_offsets_are_those_of_the_given_caption_after_other_stages_cut(tmp_path: Path) -> None:
    caption = "ＡＢ\u200b①　点击查看大图：草地上，王志强教授和一只小狗"
    (tmp_path / "c.txt").write_text(caption)
    for words in ((), ("--stage", "normalise", "--stage", "boilerplate", "--stage", "names")):
        (told,) = run(tmp_path, tmp_path / "c.txt", *words)
        spans = {s["stage"]: caption[s["start"] : s["end"]] for s in told["spans"]}
        assert spans["names"] == "王志强"
        assert spans["boilerplate"].startswith("点击查看大图")


def test_one_stage_alone_and_in_the_order_given(tmp_path: Path) -> None:
    told = run(tmp_path, written(tmp_path, "jsonl"), "--stage", "language")
    assert [t["reason"] for t in told] == [None, None, "not_chinese", None, "not_chinese"]
    assert [t["text"] for t in told] == CAPTIONS
    kept = run(
        tmp_path,
        written(tmp_path, "txt"),
        "--stage",
        "length",
        "--set",
        "length.shortest=1",
        "--set",
        "length.min_distinct=1",
    )
    assert kept[3]["status"] == "kept"


def test_lines_that_do_not_parse_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"caption": "一只小狗在草地上"}\n{"caption": \n"湖边的小船"\n{"size": 3}\n7\n', "utf-8")
    told = run(tmp_path, path)
    assert [t["status"] for t in told] == ["kept", "failed", "kept", "failed", "failed"]
    assert [t["reason"] for t in told] == [None, "bad_line", None, "caption_missing", "bad_line"]
    assert [t["caption"] for t in told] == ["一只小狗在草地上", '{"caption": ', "湖边的小船", '{"size": 3}', "7"]
    assert [(t["stage"], t["text"], t["spans"]) for t in told if t["status"] == "failed"] == [("read", None, [])] * 3
    assert len({tuple(t) for t in told}) == 1
    (tmp_path / "c.csv").write_text("id,caption\n1,湖边的小船\n2\n", "utf-8")
    short = run(tmp_path, tmp_path / "c.csv")[1]
    assert (short["caption"], short["status"], short["reason"]) == ("2", "failed", "bad_line")


def test_standard_streams_and_surrogates() -> None:
    command = [sys.executable, "-m", "tuwen.pipeline.cli", "text", "-", "-o", "-", "--stage", "normalise"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    given = "湖边的小船\n".encode() + b"\xff\xfe\n" + "山\0顶\n".encode()
    done = subprocess.run(command, input=given, capture_output=True, env=environment, timeout=120)
    told = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(told) == 3
    assert told[0]["text"] == "湖边的小船"
    assert "3 captions = " in done.stderr.decode()


def test_what_cannot_be_read_or_run_says_so(tmp_path: Path) -> None:
    def refused(*words: Any) -> str:
        done = here("text", *words, "-o", tmp_path / "o", check=False)
        assert done.returncode in (2, 3)
        return done.stderr

    path = written(tmp_path, "csv")
    assert "is not there" in refused(tmp_path / "none.csv")
    (tmp_path / "a.doc").write_text("x")
    assert ".parquet" in refused(tmp_path / "a.doc")
    assert "did you mean 'names'" in refused(path, "--stage", "name").lower()
    assert "one caption alone" in refused(path, "--stage", "decode")
    assert "--input caption=COLUMN" in refused(path, "--input", "caption=nothing")
    (tmp_path / "empty.txt").write_text("")
    assert "holds no captions" in refused(tmp_path / "empty.txt")
    assert not (tmp_path / "o").exists()
