"""The main job from end to end, as a user runs it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import polars as pl
import pytest
import webdataset as wds

from tests.conftest import Finished, here

VERDICT = ["unit", "ordinal", "status", "stage", "reason", "split", "shard"]


def ledger(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "ledger" / "*.parquet").sort("unit", "ordinal")


def shards(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "shards").glob("*.tar"))}


def test_every_pair_ends_exactly_once(finished: Finished) -> None:
    counts = finished.told["counts"]
    rows = ledger(finished.run)
    labels = (finished.sample / "labels.jsonl").read_text().splitlines()
    assert counts["inputs"] == len(labels) == rows.height
    assert counts["inputs"] == counts["kept"] + counts["dropped"] + counts["failed"]
    assert rows.select("unit", "ordinal").is_unique().all()
    assert rows["status"].null_count() == 0
    assert rows.filter(pl.col("status") != "kept")["reason"].null_count() == 0
    left = counts["inputs"]
    for row in finished.told["stages"].values():
        assert row["in"] == left
        left = row["kept"]
    assert left == counts["kept"]


def test_shards_open_with_tarfile_and_webdataset(finished: Finished) -> None:
    index = json.loads((finished.run / "shards" / "index.json").read_text())
    kept = ledger(finished.run).filter(pl.col("status") == "kept")
    assert sum(s["samples"] for s in index) == kept.height
    captions = dict(kept.select("key", "caption").rows())
    seen = 0
    for info in index:
        path = finished.run / "shards" / info["name"]
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert [m.name for m in members] == sorted(m.name for m in members)
            assert {(m.mtime, m.mode, m.uid, m.gid) for m in members} == {(0, 0o644, 0, 0)}
        for sample in wds.WebDataset(str(path), shardshuffle=False).decode("pil"):
            assert sample["txt"] == captions[sample["__key__"]]
            assert sample["jpg"].mode == "RGB"
            assert sample["json"]["score"] >= 0.3
            assert {n["caption"] for n in sample["json"].get("negatives", [])}.isdisjoint({sample["txt"]})
            seen += 1
    assert seen == kept.height


def test_personal_metadata_does_not_ship(finished: Finished) -> None:
    labels = pl.read_ndjson(finished.sample / "labels.jsonl", schema_overrides={"shipped": pl.String})
    urls = labels.filter(pl.col("fault") == "personal_metadata")["image_url"].to_list()
    rows = ledger(finished.run).filter(pl.col("image_url").is_in(urls))
    assert rows["jpeg"].to_list() == ["stripped"] * len(urls)
    whole = b"".join(shards(finished.run).values())
    assert b"Sample Camera 9" not in whole
    assert b"Exif\0\0" not in whole


def test_a_second_run_gives_the_same_bytes_and_two_workers_too(finished: Finished, tmp_path: Path) -> None:
    here("run", finished.sample, "-o", tmp_path / "b", "--measure-all", "--json", "-j", "2")
    assert shards(tmp_path / "b") == shards(finished.run)
    assert ledger(tmp_path / "b").equals(ledger(finished.run))


def test_running_again_on_a_finished_run_does_nothing_and_another_recipe_is_refused(finished: Finished) -> None:
    before = shards(finished.run)
    again = here("run", finished.sample, "-o", finished.run, "--measure-all", "--json", "-j", "1")
    assert json.loads(again.stdout)["created"] == finished.told["created"]
    words = ("run", finished.sample, "-o", finished.run, "--measure-all", "--set", "score.threshold=0.5")
    refused = here(*words, check=False)
    assert refused.returncode == 2
    assert "score.threshold was 0.3, now 0.5" in refused.stderr
    assert "--fresh" in refused.stderr
    assert shards(finished.run) == before


@pytest.mark.parametrize(
    "changes", [["score.threshold=0.6"], ["score.threshold=-1", "decode.shorter_side=50"], ["length.shortest=12"]]
)
def test_replay_gives_what_a_full_run_would(finished: Finished, tmp_path: Path, changes: list[str]) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    here("replay", finished.run, "-o", tmp_path / "replayed", *sets, "--json")
    here("run", finished.sample, "-o", tmp_path / "full", *sets, "--measure-all", "--json", "-j", "1")
    one, two = ledger(tmp_path / "replayed"), ledger(tmp_path / "full")
    assert one.select(VERDICT).equals(two.select(VERDICT))
    told = json.loads((tmp_path / "replayed" / "run.json").read_text())
    assert told["counts"] == json.loads((tmp_path / "full" / "run.json").read_text())["counts"]
    assert told["bytes_missing"] == 0
    for name in shards(tmp_path / "full"):
        with (
            tarfile.open(tmp_path / "full" / "shards" / name) as full,
            tarfile.open(tmp_path / "replayed" / "shards" / name) as replayed,
        ):
            assert full.getnames() == replayed.getnames()


def test_replay_says_what_it_cannot_answer(finished: Finished, tmp_path: Path) -> None:
    refused = here("replay", finished.run, "-o", tmp_path / "r", "--set", "names.placeholder=X", check=False)
    assert refused.returncode == 2
    assert "names.placeholder was '【人名】' and is now 'X'" in refused.stderr


def test_why_tells_a_pairs_story(finished: Finished) -> None:
    rows = ledger(finished.run)
    dropped = rows.filter(pl.col("reason") == "low_score").row(0, named=True)
    story = here("why", finished.run, dropped["key"][:10]).stdout
    for word in (dropped["key"], "low_score", "< 0.3 (score.threshold)", dropped["caption_raw"], "not shipped"):
        assert word in story
    kept = rows.filter(pl.col("status") == "kept").row(0, named=True)
    assert f"shards/{kept['shard']}" in here("why", finished.run, kept["key"]).stdout
    missing = here("why", finished.run, "zzz", check=False)
    assert missing.returncode == 3
    assert "nothing in" in missing.stderr


def test_shard_rows_do_not_straddle_splits(finished: Finished) -> None:
    kept = ledger(finished.run).filter(pl.col("status") == "kept")
    assert kept.group_by("cluster").agg(pl.col("split").n_unique())["split"].max() == 1
    assert (kept["shard"].str.split("-").list.first() == kept["split"]).all()
