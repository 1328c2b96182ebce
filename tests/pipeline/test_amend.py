"""Changing a finished run: fetching again, taking down; and being killed in between."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import here
from tests.pipeline.test_cli import photograph
from tuwen.pipeline import amend, files, retry, takedown
from tuwen.pipeline.errors import InputError, UsageError

RECIPE = """
name: small
stages:
  - normalise
  - language
  - fetch: {{retries: 0, connect_to: {{"*.test": "{at}"}}}}
  - decode
  - jpeg
  - pair_duplicates
  - split: {{val: 0.3, test: 0}}
shards: {{samples: 3}}
"""


class Web(ThreadingHTTPServer):
    """Pictures by number; those in ``down`` are not to be had, with the status given."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.down: dict[int, int] = {}
        self.asked: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        number = self.path.strip("/").removesuffix(".jpg")
        if not number.isdigit():
            self.send_error(404)
            return
        self.server.asked.append(int(number))
        if status := self.server.down.get(int(number)):
            self.send_error(status)
            return
        body = photograph(int(number) % 100)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def make_run(web: Web, folder: Path, *words: str) -> Path:
    """A run over 12 addresses: 100 shows the picture and the words of 0."""
    folder.mkdir(exist_ok=True)
    numbers = [*range(11), 100]
    captions = [f"第{n % 100}张照片里有一片彩色的云" for n in numbers]
    lines = [
        json.dumps({"url": f"http://p{n % 3}.test/{n}.jpg", "caption": c})
        for n, c in zip(numbers, captions, strict=True)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    (folder / "small.yaml").write_text(RECIPE.format(at=f"127.0.0.1:{web.server_address[1]}"))
    out = folder / "run"
    here("run", folder / "pairs.jsonl", "-o", out, "-r", folder / "small.yaml", "-j", "1", *words)
    return out


def ledger(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "ledger" / "*.parquet").sort("ordinal")


def bytes_of(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "shards").glob("*.tar"))}


def samples(run: Path) -> dict[str, tuple[bytes, str]]:
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted((run / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                found.setdefault(key, {})[kind] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return {key: (told["jpg"], told["txt"].decode()) for key, told in found.items()}


@pytest.mark.parametrize("words", [(), ("--measure-all",)])
def test_a_retry_adds_what_comes_and_leaves_the_rest_as_it_is(web: Web, tmp_path: Path, words: tuple[str, ...]) -> None:
    web.down = {1: 503, 4: 429, 7: 404, 100: 500}
    run = make_run(web, tmp_path / "a", *words)
    before, old = ledger(run), bytes_of(run)
    assert before["status"].value_counts().sort("status").rows() == [("failed", 4), ("kept", 8)]
    web.down, web.asked = {4: 503}, []
    told = json.loads(here("retry", run, "--json").stdout)
    assert sorted(web.asked) == [1, 4, 100]
    assert (told["retried"], told["came"]) == (3, 1)
    assert told["counts"] == {"inputs": 12, "kept": 9, "dropped": 1, "failed": 2}
    after = ledger(run)
    assert after.select("unit", "ordinal", "key", "origin").equals(before.select("unit", "ordinal", "key", "origin"))
    assert after["reason"].drop_nulls().to_list() == ["fetch_http_503", "fetch_http_404", "pair_duplicate"]
    assert after["duplicate_of"][11] == after["key"][0]
    # Nothing that was there has changed, and what came stands in shards of its own.
    new = bytes_of(run)
    assert {name: new[name] for name in old} == old
    assert len(new) == len(old) + 1
    assert set(samples(run)) == set(after.filter(pl.col("status") == "kept")["key"])
    index = json.loads((run / "shards" / "index.json").read_text())
    assert [s["name"] for s in index] == sorted(new)
    web.down = {}
    again = json.loads(here("retry", run, "--json").stdout)
    assert (again["retried"], again["came"]) == (1, 1)
    assert [n["what"] for n in again["amended"]] == ["retry", "retry"]
    assert json.loads(here("retry", run, "--json").stdout)["retried"] == 0
    whole = make_run(web, tmp_path / "b")
    # Of 0 and its copy a run that sees both at once may choose the other; 7 was not fetched here at all.
    apart = {after["key"][i] for i in (0, 7, 11)}
    one, other = ({k: v for k, v in samples(r).items() if k not in apart} for r in (run, whole))
    assert one == other
    assert len(one) == 9
    if words:
        here("replay", run, "-o", tmp_path / "replayed", "--set", "decode.shorter_side=50")
        assert {k: v for k, v in samples(tmp_path / "replayed").items() if k not in apart} == one


def test_a_retry_under_other_rules_or_without_a_fetch_is_refused(web: Web, tmp_path: Path) -> None:
    run = make_run(web, tmp_path / "a")
    refused = here("retry", run, "--set", "decode.shorter_side=7", check=False)
    assert refused.returncode == 2
    assert "time limits" in refused.stderr
    with pytest.raises(InputError, match=r"no run\.json"):
        retry.retry(str(tmp_path))


@pytest.mark.parametrize("words", [(), ("--measure-all",)])
def test_a_takedown_erases_and_is_remembered(web: Web, tmp_path: Path, words: tuple[str, ...]) -> None:
    run = make_run(web, tmp_path / "a", *words)
    before, old = ledger(run), bytes_of(run)
    key, url, sha = before["key"][2], before["image_url"][3], before["image_sha256"][5]
    for name, value in (("keys", key), ("urls", f"{url}\nhttp://p0.test/none.jpg"), ("sha", sha)):
        (tmp_path / name).write_text(f"{value}\n\n")
    words_ = ("--keys", tmp_path / "keys", "--urls", tmp_path / "urls", "--sha256", tmp_path / "sha")
    told = json.loads(here("remove", run, *words_, "--json").stdout)
    assert (told["removed"], told["unknown"]) == (3, ["http://p0.test/none.jpg"])
    assert told["counts"] == {"inputs": 12, "kept": 8, "dropped": 4, "failed": 0}
    assert told["stages"]["removed"]["dropped"] == {"removed": 3}
    after = ledger(run)
    gone = after.filter(pl.col("reason") == "removed")
    assert gone["ordinal"].to_list() == [2, 3, 5]
    assert gone["detail"][0].startswith("removed on request on 20")
    for column in ("caption", "caption_raw", "phash", "image_grid", "shard", "cluster"):
        assert gone[column].null_count() == 3, column
    kept = samples(run)
    assert not {before["key"][i] for i in (2, 3, 5)} & set(kept)
    assert len(kept) == 8
    touched = set(before.filter(pl.col("ordinal").is_in([2, 3, 5]))["shard"])
    new = bytes_of(run)
    assert all(new[name] == data for name, data in old.items() if name not in touched)
    everything = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    assert all(photograph(n)[600:1200] not in everything for n in (2, 3, 5))
    assert all(photograph(n)[600:1200] in everything for n in (1, 4))
    assert json.loads(here("remove", run, *words_, "--json").stdout)["removed"] == 0
    here("replay", run, "-o", tmp_path / "replayed", "--set", "decode.shorter_side=50")
    assert ledger(tmp_path / "replayed").filter(pl.col("reason") == "removed")["ordinal"].to_list() == [2, 3, 5]
    assert samples(tmp_path / "replayed").keys() == kept.keys()
    # A later run of the same input keeps out what was named, and asks for no image that is named by key or URL.
    web.asked = []
    later = tmp_path / "later"
    recipe = tmp_path / "a" / "small.yaml"
    here("run", tmp_path / "a" / "pairs.jsonl", "-o", later, "-r", recipe, "-j", "1", "--removed", run)
    rows = ledger(later)
    assert rows.filter(pl.col("reason") == "removed")["ordinal"].to_list() == [2, 3, 5]
    assert rows.filter(pl.col("reason") == "removed")["stage"].to_list() == ["removed_pairs"] * 2 + ["removed_images"]
    assert not {2, 3} & set(web.asked)
    fresh = here("run", tmp_path / "a" / "pairs.jsonl", "-o", run, "-r", recipe, "-j", "1", "--fresh", "--json")
    assert json.loads(fresh.stdout)["counts"]["dropped"] == 4


def test_a_change_that_was_cut_off_is_carried_through_or_forgotten(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.down = {1: 503}
    run = make_run(web, tmp_path / "a")
    before = ledger(run)
    web.down = {}

    class Killed(BaseException):
        pass

    moves: list[str] = []
    move = files.move

    def fails_at(place: int) -> None:
        moves.clear()

        def moving(path: str, to: str) -> None:
            moves.append(to)
            if len(moves) == place:
                raise Killed
            move(path, to)

        monkeypatch.setattr(files, "move", moving)

    # The first move only stages the new shard: the run is as it was.
    fails_at(1)
    with pytest.raises(Killed):
        retry.retry(str(run))
    assert ledger(run).equals(before)
    # From the second on the change is decided; whatever comes next carries it through.
    fails_at(3)
    with pytest.raises(Killed):
        retry.retry(str(run))
    monkeypatch.setattr(files, "move", move)
    told = takedown.remove(str(run), {"keys": ["0" * 32]})
    assert told["unknown"] == ["0" * 32]
    assert told["counts"]["kept"] == ledger(run).filter(pl.col("status") == "kept").height == len(samples(run)) == 11
    assert not (run / amend.STAGED).exists()
    assert not (run / amend.JOURNAL).exists()


def test_nothing_named_and_missing_files_are_told(web: Web, tmp_path: Path) -> None:
    run = make_run(web, tmp_path / "a")
    assert here("remove", run, check=False).returncode == 2
    missing = here("remove", run, "--keys", tmp_path / "none", check=False)
    assert missing.returncode == 3
    assert "one name a line" in missing.stderr
    other: Any = here("run", tmp_path / "a" / "pairs.jsonl", "-o", tmp_path / "x", "--removed", tmp_path, check=False)
    assert other.returncode == 3
    with pytest.raises(UsageError, match="anew"):
        from tuwen.pipeline.recipe import load

        retry.retry(str(run), load("photos"))
