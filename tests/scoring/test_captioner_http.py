from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tuwen.filters.normalise import Normalise
from tuwen.pipeline.columns import LEDGER_SCHEMA, with_missing
from tuwen.pipeline.emit import EmitOptions, emit_shard
from tuwen.pipeline.stage import StageModel, Tally, apply_stage
from tuwen.sample_data.chat_server import ChatServer, chat_server, embedded_write
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.caption_gates import unwrap
from tuwen.scoring.caption_http import read_completion
from tuwen.scoring.caption_meter import Meter
from tuwen.scoring.captioner import SyntheticCaptions

FAULTS = {
    "slow": None,
    "slow_always": "timeout",
    "500": None,
    "500_always": "http_500",
    "429": None,
    "malformed": "bad_answer",
    "nonsense": "bad_answer",
    "empty": "empty",
    "leak": "prompt_leak",
    "repeat": "repetition",
    "refusal": "refusal",
    "cut": "cut_short",
    "wrapped": None,
    "drop": "unreachable",
}
"""Planted fault to the reason that the ledger must give; None where the caption must ship after all."""

SLOW = 2.5


def frame(n: int) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    scenes = [random_scene(rng) for _ in range(n)]
    images = [encode(render(s, 128), quality=85) for s in scenes]
    captions = [caption(s, rng) for s in scenes]
    return pl.DataFrame({"key": [f"{i:032x}" for i in range(n)], "image": images, "caption": captions})


def named(rows: pl.DataFrame, faults: list[str]) -> dict[str, str]:
    """SHA-256 of the first images to one fault each."""
    return {hashlib.sha256(image).hexdigest(): fault for image, fault in zip(rows["image"], faults, strict=False)}


def stage(server: ChatServer, **fields: Any) -> SyntheticCaptions:
    quick = {"connect_seconds": 0.5, "read_seconds": 1, "backoff_seconds": 0.02, "retries": 2, "concurrency": 8}
    return SyntheticCaptions(captioner=server.url, model="embedded", **{**quick, **fields})


def echo(image: bytes) -> str:
    return f"草地上有{len(image)}只红色的猫"


def test_planted_faults_lose_nothing_and_all_are_recorded(tmp_path: Path) -> None:
    rows, faults = frame(len(FAULTS) + 10), list(FAULTS)
    written = dict(zip(rows["image"], map(embedded_write(), rows["image"]), strict=True))
    lengths = [len(image) for image in rows["image"]]
    tmp_path.joinpath("p.tar").write_bytes(b"".join(rows["image"]))
    light = with_missing(rows.drop("image"), tuple(LEDGER_SCHEMA)).with_columns(
        part=pl.lit("p"), offset=pl.Series(np.cumsum([0, *lengths[:-1]]), dtype=pl.UInt64),
        length=pl.Series(lengths, dtype=pl.UInt32), shard=pl.lit("train-000000.tar"),
    )  # fmt: skip
    with chat_server(written.__getitem__, named(rows, faults), SLOW) as server:
        stages: list[StageModel] = [stage(server).among([Normalise()])]
        options = EmitOptions(str(tmp_path), str(tmp_path), str(tmp_path), {"train": 1}, 0)
        counts = emit_shard("train-000000.tar", light, stages, options)
    ledger = pl.read_parquet(tmp_path / "ledger" / "*.parquet").sort("key")
    assert ledger["status"].to_list() == ["kept"] * rows.height
    assert ledger["caption"].equals(rows["caption"])
    assert counts["synthetic_captions"]["kept"] == rows.height
    reasons = ledger["synthetic_reason"].to_list()
    assert dict(zip(faults, reasons, strict=False)) == FAULTS
    assert reasons[len(faults) :] == [None] * 10
    shipped = ledger["caption_synthetic"].to_list()
    assert [c is None for c in shipped] == [r is not None for r in reasons]
    # What shipped is what the captioner wrote, whatever came before it got through.
    assert all(c is None or c == unwrap(w) for c, w in zip(shipped, written.values(), strict=True))
    for fault in ("500_always", "malformed", "leak", "slow_always"):
        assert ledger["synthetic_detail"][faults.index(fault)]
    assert ledger["synthetic_tokens"].drop_nulls().unique().to_list() == [100]
    # Retried: once what passes, to the end what does not, and nothing else.
    # (libcurl itself asks once more where a connection that was kept open turns out closed.)
    asked = {f: server.asked[f] for f in faults if f != "drop"}
    assert asked == {f: 2 if f in ("slow", "500", "429") else 3 if f.endswith("always") else 1 for f in asked}
    assert server.most > 1
    with (tmp_path / "shards" / "train-000000.tar").open("rb") as handle:
        assert handle.read().count(b".txt\x00") == rows.height


def test_retry_after_is_waited_for() -> None:
    rows = frame(1)
    with chat_server(echo, named(rows, ["429"])) as server:
        out = apply_stage(stage(server), rows, Tally())
    assert out["synthetic_reason"].to_list() == [None]
    assert server.times[1] - server.times[0] >= 1


def test_the_rate_holds_for_all_processes_together(tmp_path: Path) -> None:
    rows = frame(6)
    with chat_server(echo) as server:
        apply_stage(stage(server, requests_per_second=20).among([]), rows, Tally())
    assert min(b - a for a, b in pairwise(sorted(server.times))) > 0.02
    assert server.times[-1] - server.times[0] >= 5 / 20 - 0.02
    meters = [Meter(str(tmp_path / "meter"), 0, 100, 0) for _ in range(4)]
    taken: list[float | None] = []
    threads = [threading.Thread(target=lambda m=m: taken.extend(m.take() for _ in range(50))) for m in meters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) - taken.count(None) == 100
    assert meters[0].totals() == (100, 0)


@pytest.mark.parametrize(("limit", "most"), [({"max_requests": 3}, 3), ({"max_run_tokens": 250}, 3)])
def test_a_run_costs_no_more_than_it_may(limit: Mapping[str, int], most: int) -> None:
    rows = frame(8)
    with chat_server(echo) as server:
        bound = stage(server, concurrency=1, **limit).among([])
        halves = [apply_stage(bound, rows[:4], Tally()), apply_stage(bound, rows[4:], Tally())]
        again = apply_stage(stage(server, concurrency=1, **limit).among([]), rows[:1], Tally())
    out = pl.concat(halves)
    assert out["synthetic_reason"].to_list() == [None] * most + ["cost_limit"] * (8 - most)
    assert len(server.times) == most + 1
    assert again["synthetic_reason"].to_list() == [None]
    assert "3 requests" in out["synthetic_detail"][7]


def test_the_key_comes_from_the_environment_and_is_told_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUWEN_TEST_KEY", "sk-geheim")
    rows = frame(4)
    with chat_server(echo, named(rows, ["401"])) as server:
        asked = stage(server, api_key_env="TUWEN_TEST_KEY", concurrency=1)
        asked.resources()
        out = apply_stage(asked, rows, Tally())
    assert server.keys == {"Bearer sk-geheim"}
    assert server.models == {"embedded"}
    # One refusal of the key is enough: the others are not asked for.
    assert out["synthetic_reason"].to_list() == ["http_401"] * 4
    assert len(server.times) == 1
    assert "***" in out["synthetic_detail"][0]
    told = json.dumps([asked.model_dump(mode="json"), out.drop("image").to_dicts()], default=str)
    assert "geheim" not in told


def test_an_endpoint_that_is_not_there_costs_captions_and_no_time() -> None:
    rows = frame(3)
    with chat_server(echo) as server:
        gone = stage(server)
    started = time.monotonic()
    out = apply_stage(gone, rows, Tally())
    assert out["synthetic_reason"].to_list() == ["unreachable"] * 3
    assert out["status"].null_count() == 3
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad_answer"), ("[]", "bad_answer"), ("null", "bad_answer"), ('{"choices": null}', "bad_answer"),
        ('{"choices": [{"message": {"content": 5}}]}', "bad_answer"), ("[" * 100_000, "bad_answer"),
        ('{"choices": [{"message": {"content": null}}]}', "empty"),
        ('{"choices": [{"message": {"content": " "}, "finish_reason": "length"}]}', "empty"),
        ('{"choices": [{"message": {"content": null, "refusal": "no"}}]}', "refusal"),
        ('{"choices": [{"message": {"content": "一只"}, "finish_reason": "length"}]}', "cut_short"),
        ('{"choices": [{"message": {"content": "猫"}}], "usage": {"total_tokens": "many"}}', None),
        ('{"choices": [{"message": {"content": [{"type": "text", "text": "猫"}]}}]}', None),
    ],
)  # fmt: skip
def test_answers_are_completions_or_a_reason(text: str, reason: str | None) -> None:
    told = read_completion(text)
    assert told.reason == reason
    assert told.text == (None if reason else "猫")
    assert told.tokens is None
