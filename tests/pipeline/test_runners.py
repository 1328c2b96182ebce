"""The same input on every runner gives the same bytes: local, portable, a real Flink cluster, and Spark.

The tests of Flink and Spark fetch 0.4 and 0.3 GB (through pip and Maven) the first time, so each is a step of its own:
TUWEN_TEST_CLUSTERS=flink, as CI sets it where Java and Maven are, or flink,spark. All others need nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import curate
from tests.pipeline.test_engine import folder_of_photographs, ledger_rows

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """Inputs and recipe, and what one local process makes of them."""

    words: tuple[str | Path, ...]
    shards: dict[str, str]
    rows: pl.DataFrame


def digests(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((out / "shards").glob("*.tar"))}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("runners")
    inputs = [folder_of_photographs(folder / f"in{n}", 5, 4 * n) for n in range(4)]
    stages = "[normalise, language, decode, jpeg, pair_duplicates, split]"
    (folder / "r.yaml").write_text(f"name: r\nstages: {stages}\nshards: {{samples: 6}}\n")
    words: tuple[str | Path, ...] = ("run", *inputs, "-r", folder / "r.yaml")
    curate(*words, "-o", folder / "one", "-j", "1")
    rows = ledger_rows(folder / "one")
    # The folders overlap by one photograph: there is something to relate.
    assert rows.filter(pl.col("status") == "dropped").height == 3
    shards = digests(folder / "one")
    assert len(shards) >= 3
    return Case(words, shards, rows)


def check(case: Case, out: Path, words: Sequence[str]) -> None:
    curate(*case.words, "-o", out, *words, timeout=900)
    assert digests(out) == case.shards
    assert ledger_rows(out).equals(case.rows)


def test_two_local_workers(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path / "out", ["-j", "2"])


def test_three_threads_of_one_process(case: Case, tmp_path: Path) -> None:
    """As a cluster's workers have them: models, word tags and pools are shared."""
    check(case, tmp_path / "out", ["-j", "1", "--", "--direct_running_mode=multi_threading", "--direct_num_workers=3"])


def test_the_portable_runner(case: Case, tmp_path: Path) -> None:
    """Beam's job service with a worker over gRPC; the pairs are compared by shuffles, as on a cluster."""
    beam = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    check(case, tmp_path / "out", ["--spread-above", "0", "--", *beam])


@contextmanager
def cluster(name: str, variable: str) -> Iterator[tuple[int, list[str]]]:
    """What ``scripts/<name>`` starts: its first port, and the options that send a pipeline there."""
    if name not in os.environ.get("TUWEN_TEST_CLUSTERS", "").split(","):
        pytest.skip(f"fetches 0.4 GB and needs Java and Maven: set TUWEN_TEST_CLUSTERS={name}")
    port = free_ports(6)
    environment = {**os.environ, variable: str(port), "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "scripts" / name)
    started = subprocess.run([script, "start"], env=environment, capture_output=True, text=True, timeout=900)
    assert started.returncode == 0, started.stderr[-3000:]
    print(f"\n{started.stdout}")
    try:
        yield port, started.stdout.splitlines()[-1].split()
    finally:
        subprocess.run([script, "stop"], env=environment, check=True, timeout=60)


@pytest.mark.timeout(1200)
def test_spark(case: Case, tmp_path: Path) -> None:
    with cluster("spark", "SPARK_PORT") as (_, beam):
        check(case, tmp_path / "out", ["--spread-above", "0", "--", *beam])


@pytest.mark.timeout(1200)
def test_a_flink_cluster(case: Case, tmp_path: Path) -> None:
    with cluster("flink", "FLINK_PORT") as (port, beam):
        check(case, tmp_path / "out", ["--spread-above", "0", "--", *beam])
        check_flink(case, f"http://localhost:{port}")


def check_flink(case: Case, rest: str) -> None:
    """The cluster's own word on the run: version, slots, jobs, and Beam's counters."""
    told = get(f"{rest}/overview")
    assert told["slots-total"] >= 2
    jobs = {job["name"]: job for job in get(f"{rest}/jobs/overview")["jobs"]}
    assert all(job["state"] == "FINISHED" for job in jobs.values())
    measured = counters(get(f"{rest}/jobs/{jobs['tuwen-measure']['jid']}/accumulators"))
    emitted = counters(get(f"{rest}/jobs/{jobs['tuwen-emit']['jid']}/accumulators"))
    print(f"Flink {told['flink-version']}: task managers {told['taskmanagers']}, slots {told['slots-total']}")
    print(f"{len(jobs)} jobs finished: {', '.join(jobs)}")
    print(f"counters of tuwen-measure, read back from the cluster: {measured}")
    print(f"counters of tuwen-emit: {emitted}")
    assert measured["units/done"] == 4
    assert measured["language/in"] == 20
    assert measured["jpeg/kept"] == 20
    assert emitted["shards/written"] == len(case.shards)
    # Every step of the relate phase ran there too.
    assert {"tuwen-pair-duplicates-meet", "tuwen-pair-duplicates-settle", "tuwen-split-finish"} <= jobs.keys()


def counters(told: dict[str, Any]) -> dict[str, int]:
    """The user's counters in what Flink's REST interface tells of a job's accumulators (``stage/word``)."""
    total: Counter[str] = Counter()
    for accumulator in told["user-task-accumulators"]:
        for info in json.loads(accumulator["value"])["metrics"].get("attempted", []):
            if info["urn"] == "beam:metric:user:sum_int64:v1":
                name = f"{info['labels']['NAMESPACE']}/{info['labels']['NAME']}"
                total[name] += varint(base64.b64decode(info["payload"]))
    return {name: n for name, n in sorted(total.items()) if not name.endswith("/us")}


def varint(data: bytes) -> int:
    """Beam's integers on the wire: seven bits a byte, the lowest first."""
    return sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data))


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def free_ports(n: int) -> int:
    """The first of ``n`` ports in a row that nothing listens on."""
    for first in range(18100, 60000, 50):
        try:
            for port in range(first, first + n):
                with socket.socket() as one:
                    one.bind(("localhost", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")
