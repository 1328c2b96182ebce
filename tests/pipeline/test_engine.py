"""The driver: resume after a kill, broken units, an index across runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Finished, here
from tests.pipeline.test_cli import photograph


def folder_of_photographs(folder: Path, n: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for i in range(n):
        (folder / f"{i:03}.jpg").write_bytes(photograph(seed + i))
        (folder / f"{i:03}.txt").write_text(f"第{seed + i}张照片里有一片彩色的云")
    return folder


def tree(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "shards").glob("*"))}


def killed_at(files: int, out: Path, words: Sequence[str | Path]) -> bool:
    """Run `curate`, kill it (SIGKILL) as soon as ``files`` complete files stand in ``out``; whether it was running."""
    command = [sys.executable, "-m", "tuwen.pipeline.cli", *map(str, words)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    while process.poll() is None and len(complete(out)) < files:
        time.sleep(0.02)
    running = process.poll() is None
    if running:
        # The whole session: worker processes die with the driver, as on a machine that goes down.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def complete(out: Path) -> list[Path]:
    return [p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")]


def ledger_rows(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "ledger" / "*.parquet").sort("unit", "ordinal")


@pytest.mark.parametrize("files", [2, 5])
def test_a_killed_run_of_all_stages_continues_to_the_same_bytes(finished: Finished, tmp_path: Path, files: int) -> None:
    out = tmp_path / "run"
    words = ["run", str(finished.sample), "-o", str(out), "--measure-all", "-j", "1"]
    assert killed_at(files, out, words)
    assert not (out / "run.json").exists()
    here(*words, "--json")
    assert tree(out) == tree(finished.run)
    assert ledger_rows(out).equals(ledger_rows(finished.run))


def test_runs_killed_at_random_points_end_in_the_same_bytes(tmp_path: Path) -> None:
    """Four inputs, two workers, two kills each; the files that are there are counted, so that every phase is met.

    TUWEN_KILLED_RUNS makes it as many runs as wanted (with `--timeout` to match).
    """
    inputs = [folder_of_photographs(tmp_path / f"in{n}", 5, 10 * n) for n in range(4)]
    stages = "[normalise, decode, jpeg, pair_duplicates, split]"
    (tmp_path / "r.yaml").write_text(f"name: r\nstages: {stages}\nshards: {{samples: 4}}\n")

    def words(out: Path) -> list[str | Path]:
        return ["run", *inputs, "-o", out, "-r", tmp_path / "r.yaml", "-j", "2"]

    whole = tmp_path / "whole"
    here(*words(whole))
    want, rows = tree(whole), ledger_rows(whole)
    drawn = random.Random(20261121)
    most = len(complete(whole)) + 4 * 6
    kills = 0
    for number in range(int(os.environ.get("TUWEN_KILLED_RUNS", "2"))):
        out = tmp_path / f"run{number}"
        for files in sorted(drawn.sample(range(1, most), 2)):
            kills += killed_at(files, out, words(out))
        here(*words(out))
        assert tree(out) == want
        assert ledger_rows(out).equals(rows)
        assert not list(out.rglob(".tuwen-*"))
    assert kills >= 2


def test_a_unit_that_cannot_be_read_is_named_and_retried(tmp_path: Path) -> None:
    good = folder_of_photographs(tmp_path / "good", 4)
    out = tmp_path / "out"
    words = ("run", good, "-o", out, "-r", "photos", "-j", "1", "--json")
    here(*words)
    (out / "run.json").unlink()
    part = next((out / "ledger").glob("*.parquet"))
    part.unlink()
    told = json.loads(here(*words).stdout)
    assert told["counts"]["inputs"] == 4
    assert pl.read_parquet(out / "ledger" / "*.parquet").height == 4


def test_changed_input_is_refused_with_what_changed(tmp_path: Path) -> None:
    source = folder_of_photographs(tmp_path / "in", 3)
    out = tmp_path / "out"
    here("run", source, "-o", out, "-r", "photos", "-j", "1", "--json")
    (source / "000.jpg").write_bytes(photograph(99, side=240))
    refused = here("run", source, "-o", out, "-r", "photos", "-j", "1", check=False)
    assert refused.returncode == 2
    assert "other contents" in refused.stderr
    here("run", source, "-o", out, "-r", "photos", "-j", "1", "--fresh", "--json")


def test_a_later_run_is_checked_against_the_index_of_an_earlier_one(tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = folder_of_photographs(tmp_path / "a", 4)
    here("run", first, "-o", tmp_path / "one", "-r", "photos", "--add-to-index", index, "-j", "1", "--json")
    second = folder_of_photographs(tmp_path / "b", 4, seed=2)
    told = json.loads(
        here(
            "run",
            second,
            "-o",
            tmp_path / "two",
            "-r",
            "photos",
            "--set",
            f"pair_duplicates.index={index}",
            "-j",
            "1",
            "--json",
        ).stdout
    )
    # The very same bytes and caption: the same key, so the first step of the relate phase finds them.
    assert told["stages"]["relate"]["dropped"] == {"same_pair": 2}
    assert told["counts"]["kept"] == 2


def test_a_memory_file_system_needs_no_local_folder(tmp_path: Path) -> None:
    from tuwen.pipeline import engine, files
    from tuwen.pipeline.recipe import load

    source = folder_of_photographs(tmp_path / "in", 3)
    out = f"memory://run-{tmp_path.name}"
    told = engine.run(engine.RunConfig((str(source),), out, workers=1), load("photos"))
    assert told["counts"]["kept"] == 3
    assert files.names(files.join(out, "shards"), ".tar")
    assert not files.exists(files.join(out, "parts"))
    assert b"<html" in files.read_bytes(files.join(out, "report.html"))
    files.remove(out)


def test_a_replay_that_keeps_less_writes_shards_from_those_of_the_run(tmp_path: Path) -> None:
    source = folder_of_photographs(tmp_path / "in", 4)
    for suffix in ("jpg", "txt"):
        (source / f"copy.{suffix}").write_bytes((source / f"000.{suffix}").read_bytes())
    (source / "003.txt").write_text("一片彩色的云在很远很远的天边慢慢地飘着")
    here("run", source, "-o", tmp_path / "run", "-r", "photos", "-j", "1")
    # The copy was dropped and its image is in no tar any more; it stays dropped, so nothing is missing.
    here("replay", tmp_path / "run", "-o", tmp_path / "less", "--set", "length.longest=16")
    told = json.loads((tmp_path / "less" / "run.json").read_text())
    assert told["counts"] == {"inputs": 5, "kept": 3, "dropped": 2, "failed": 0}
    assert told["bytes_missing"] == 0
    assert told["shards"]["count"] == 1


def test_without_a_stage_that_writes_captions_they_ship_as_found(tmp_path: Path) -> None:
    source = folder_of_photographs(tmp_path / "in", 2)
    (tmp_path / "bare.yaml").write_text("name: bare\nstages: [decode, jpeg, pair_duplicates]\n")
    here("run", source, "-o", tmp_path / "run", "-r", tmp_path / "bare.yaml", "-j", "1")
    ledger = pl.read_parquet(tmp_path / "run" / "ledger" / "*.parquet")
    assert ledger["status"].to_list() == ["kept"] * 2
    assert ledger["caption"].equals(ledger["caption_raw"])
