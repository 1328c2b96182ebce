"""Units that cannot be measured: they fail alone, are named, and are tried again by the same command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import curate
from tests.pipeline.test_engine import folder_of_photographs, ledger_rows, tree
from tuwen.pipeline import attempts, beam_run, engine, files, measure
from tuwen.pipeline.errors import RunError
from tuwen.pipeline.recipe import load
from tuwen.pipeline.sources import open_input, read_unit
from tuwen.pipeline.units import Unit


def test_a_unit_that_raises_fails_alone_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [str(folder_of_photographs(tmp_path / f"in{n}", 3, 10 * n)) for n in range(3)]
    whole, out = str(tmp_path / "whole"), str(tmp_path / "out")
    engine.run(engine.RunConfig(tuple(inputs), whole, workers=1), load("photos"))

    def broken(unit: Unit) -> Iterator[pl.DataFrame]:
        asked.append(unit.index)
        if unit.index == 1:
            raise OSError("the connection was lost")
        return read_unit(unit)

    asked: list[int] = []
    monkeypatch.setattr(measure, "read_unit", broken)
    with pytest.raises(RunError, match=r"1 of 3 units failed.*\n.*unit [0-9a-f]{16} \(000.jpg.*connection was lost"):
        engine.run(engine.RunConfig(tuple(inputs), out, workers=1), load("photos"))
    (error,) = (Path(out) / "parts").glob("*.error.json")
    told = json.loads(error.read_text())
    assert told["error"] == "OSError: the connection was lost"
    assert "read_unit" in told["traceback"]
    assert not (Path(out) / "run.json").exists()

    def counted(unit: Unit) -> Iterator[pl.DataFrame]:
        asked.append(unit.index)
        return read_unit(unit)

    asked.clear()
    monkeypatch.setattr(measure, "read_unit", counted)
    engine.run(engine.RunConfig(tuple(inputs), out, workers=1), load("photos"))
    assert asked == [1]
    assert tree(Path(out)) == tree(Path(whole))
    assert ledger_rows(Path(out)).equals(ledger_rows(Path(whole)))


def test_a_unit_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    """The others are done in the same command; the unit is tried alone, named, and done once its cause is gone."""
    inputs = [folder_of_photographs(tmp_path / f"in{n}", 2, 10 * n) for n in range(4)]
    (inputs[2] / "000.txt").write_text("天边有一道雷电和彩色的云")
    recipe, cured = tmp_path / "r.yaml", tmp_path / "cured"
    deadly = f"{{'tests.pipeline.deadly:Deadly': {{cured: '{cured}'}}}}"
    recipe.write_text(f"name: r\nstages: [normalise, {deadly}, decode, jpeg]\n")
    words: tuple[str | Path, ...] = ("run", *inputs, "-o", tmp_path / "out", "-r", recipe, "-j", "2")
    failed = curate(*words, check=False)
    assert failed.returncode == 1
    assert "1 of 4 units failed" in failed.stderr
    assert "its process died" in failed.stderr
    parts = tmp_path / "out" / "parts"
    assert len(list(parts.glob("????????????????.parquet"))) == 3
    assert list(attempts.begun(str(parts)).values()) == [3]
    cured.touch()
    curate(*words)
    rows = ledger_rows(tmp_path / "out")
    assert rows["status"].to_list() == ["kept"] * 8
    assert not parts.exists()


def test_what_a_killed_run_had_begun_is_not_suspect_at_once(tmp_path: Path) -> None:
    parts = str(tmp_path)
    attempts.begin(parts, "a")
    assert attempts.begun(parts) == {"a": 1}
    assert attempts.SUSPECT > 1
    attempts.begin(parts, "a")
    attempts.end(parts, ["a", "b"])
    assert attempts.begun(parts) == {}


def test_a_failure_that_no_unit_caused_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_of_photographs(tmp_path / "in", 1)
    monkeypatch.setattr(beam_run, "run", lambda *_: (_ for _ in ()).throw(ConnectionError("no cluster")))
    with pytest.raises(ConnectionError, match="no cluster"):
        engine.run(engine.RunConfig((str(source),), str(tmp_path / "out"), workers=1), load("photos"))


def test_an_interrupted_run_on_another_file_system_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store has no rename: what stands there is complete. Stopped again and again before a file is put."""
    inputs = tuple(str(folder_of_photographs(tmp_path / f"in{n}", 3, 10 * n)) for n in range(2))
    recipe = load("photos")
    recipe = recipe.model_copy(update={"shards": recipe.shards.model_copy(update={"samples": 2})})
    engine.run(engine.RunConfig(inputs, str(tmp_path / "whole"), workers=1), recipe)
    out = f"memory://run-{tmp_path.name}"
    put, left = files.publish, [0]

    class Stopped(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def stopping(path: str) -> object:
        left[0] -= 1
        if left[0] < 0 and path.startswith("memory:"):
            raise Stopped
        return put(path)

    monkeypatch.setattr(files, "publish", stopping)
    monkeypatch.setattr(attempts, "begin", lambda *_: None)  # a second process would not see this one's memory
    stops = 0
    for allowed in (3, 6, 9, 12, 100):
        left[0] = allowed
        try:
            engine.run(engine.RunConfig(inputs, out, workers=1), recipe)
        except BaseException as error:
            stops += 1
            assert "Stopped" in repr(error) + str(error)
            continue
        break
    monkeypatch.setattr(files, "publish", put)
    assert stops >= 2
    want = tree(tmp_path / "whole")
    assert {f"shards/{n}": files.read_bytes(files.join(out, "shards", n)) for n in files.names(f"{out}/shards")} == want
    files.remove(out)


def test_an_object_of_the_same_size_and_other_contents_is_another(tmp_path: Path) -> None:
    url = f"memory://in-{tmp_path.name}/pairs.jsonl"
    files.write_bytes(url, b'{"url": "http://a.test/1.jpg", "caption": "x"}\n')
    (unit,) = open_input(url)
    before = engine._stamp(unit)
    files.write_bytes(url, b'{"url": "http://a.test/2.jpg", "caption": "x"}\n')
    after = engine._stamp(unit)
    assert before["bytes"] == after["bytes"]
    assert before != after
    assert engine._stamp(unit) == after
    files.remove(url)
