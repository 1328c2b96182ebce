"""The card's snippets are taken from the card and run as they stand; the same functions that the benchmark uses."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Finished

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loading.py"
spec = importlib.util.spec_from_file_location("loading_benchmark", BENCHMARK)
assert spec
assert spec.loader
loading = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = loading
spec.loader.exec_module(loading)

SAMPLE = {
    "webdataset": r"^\(\d+, \d+\) [一-鿿].* -?0\.\d+",
    "datasets": r"^\d+ \(\d+, \d+\) [一-鿿].*\n[0-9a-f]{32} [一-鿿]",
    "polars": r"kept.*[0-9a-f]{28}",
    "duckdb": r"low_score.*[0-9a-f]{32}",
    "open_clip": "",
}


@pytest.mark.parametrize("title", SAMPLE)
def test_a_snippet_of_the_card_runs(finished: Finished, title: str) -> None:
    found = loading.card_snippets((finished.run / "README.md").read_text())
    assert set(found) == set(SAMPLE)
    pytest.importorskip(loading.NEEDS[title])
    if title == "open_clip" and int(version("webdataset").split(".")[0]) >= 1:
        pytest.skip("open_clip's trainer reads with webdataset<0.3 alone; benchmarks/loading.py --webdataset runs it")
    done = loading.run_snippet(title, *found[title], finished.run)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    assert re.search(SAMPLE[title], done.stdout, re.S), done.stdout


def test_the_card_alone_tells_datasets_what_the_columns_are(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = (
        f"from datasets import load_dataset; d = load_dataset({str(finished.run)!r}, cache_dir={str(tmp_path)!r}); "
        "print({s: len(r) for s, r in d.items()})\n"
        "r = d['train'][0]; print(r['jpg'].size, r['json']['phash'], r['txt'])"
    )
    done = loading.run_snippet("datasets", "python", code, finished.run)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = {("validation" if s == "val" else s): n for s, n in finished.told["splits"].items()}
    assert done.stdout.splitlines()[0] == str({s: kept[s] for s in kept})
    assert re.search(r"\(\d+, \d+\) [0-9a-f]{16} ", done.stdout)
