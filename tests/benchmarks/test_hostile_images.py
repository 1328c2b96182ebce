from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import here
from tuwen.filters.decode import Decode
from tuwen.filters.jpeg import Jpeg
from tuwen.filters.overlays import Overlays
from tuwen.pipeline.stage import Tally, apply_stage

SOURCE = Path(__file__).parents[2] / "benchmarks" / "hostile_images.py"


def module() -> Any:
    spec = importlib.util.spec_from_file_location("hostile_images", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


HOSTILE = module()


@pytest.mark.parametrize("group", ["bombs", "cut", "metadata", "shapes", "motion", "doubles"])
def test_every_hostile_file_ends_with_the_right_verdict(group: str) -> None:
    files = list(getattr(HOSTILE, group)(*([32 << 20] if group == "metadata" else [])))
    for start in range(0, len(files), 64):
        some = files[start : start + 64]
        rows = pl.DataFrame({"key": [f.name for f in some], "image": [f.data for f in some]})
        for stage in (Decode(max_aspect=100), Overlays(), Jpeg()):
            rows = apply_stage(stage, rows, Tally())
        verdicts = dict(zip(rows["key"], rows["reason"].fill_null("kept"), strict=True))
        assert list(verdicts) == [f.name for f in some]
        assert not {f.name: verdicts[f.name] for f in some if verdicts[f.name] not in f.right}


def test_a_run_over_hostile_files_under_wrong_names_loses_none(tmp_path: Path) -> None:
    folder, names = tmp_path / "in", (".jpg", ".png", ".webp", ".gif", ".bmp")
    folder.mkdir()
    files = [*HOSTILE.doubles(), *(f for f in HOSTILE.cut() if f.name.endswith("50 %"))]
    files += [
        HOSTILE.Hostile("whole", k, frozenset(("kept",)), HOSTILE.saved(HOSTILE.picture(), k)) for k in HOSTILE.kinds()
    ]
    for number, file in enumerate(files):
        (folder / f"{number}{names[number % len(names)]}").write_bytes(file.data)
        (folder / f"{number}.txt").write_text(f"公园里有第{number}只红色的气球", "utf-8")
    told = json.loads(here("run", folder, "-o", tmp_path / "out", "-r", "photos", "--json", "-j", "1").stdout)
    counts = told["counts"]
    assert counts["inputs"] == len(files) == counts["kept"] + counts["dropped"] + counts["failed"]
    ledger = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet")
    assert ledger["reason"].null_count() == counts["kept"] > 0
    assert ledger.filter(pl.col("status") != "kept")["reason"].null_count() == 0
