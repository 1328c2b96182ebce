"""The dataset card and Croissant against the packages that read them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Finished
from tuwen.export.card import card, write_card
from tuwen.export.croissant import write_croissant
from tuwen.export.loading import braces
from tuwen.export.statement import facts
from tuwen.pipeline.ledger import scan_ledger


@pytest.fixture(scope="module")
def text(finished: Finished) -> str:
    return (finished.run / "README.md").read_text()


def head(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    told: dict[str, Any] = YAML(typ="safe").load(text.split("---\n")[1])
    return told


def test_hugging_face_reads_the_head(finished: Finished, text: str) -> None:
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(finished.run / "README.md").data
    assert data.language == ["zh"]
    assert data.license == "other"
    assert data.size_categories == ["n<1K"]
    assert {"image-to-text", "text-to-image"} <= set(data.task_categories or [])
    told = head(text)
    paths = {f["split"]: f["path"] for f in told["configs"][0]["data_files"]}
    assert set(paths) <= {"train", "validation", "test"}
    assert {n for p in paths.values() for n in finished.run.glob(p)} == set((finished.run / "shards").glob("*.tar"))


def test_the_statement_tells_what_the_run_did(finished: Finished, text: str) -> None:
    told = finished.told
    for heading in ("Sources", "Opt-outs", "Recipe and counts", "Models and lexicons", "Personal", "Known gaps"):
        assert f"### {heading}" in text
    for stage, row in told["stages"].items():
        for reason, n in row["dropped"].items():
            assert f"{reason} {n:,}" in text, stage
    for used in told["resources"].values():
        for digest in used.values():
            assert f"`{digest}`" in text
    ledger = pl.read_parquet(finished.run / "ledger" / "*.parquet")
    kept = ledger.filter(pl.col("status") == "kept")
    names = kept.filter(pl.col("names").list.len() > 0).height
    assert f"replaced by 【人名】 ({names:,} kept captions)" in text
    refused = ledger.filter(pl.col("reason") == "fetch_opted_out").height
    assert f"Left out for it: {refused}" in text
    assert refused == 3
    ways = dict(kept.group_by("jpeg").len().rows())
    for way, words in (("passed", "had none"), ("stripped", "had it cut out"), ("encoded", "were encoded anew")):
        assert f"{ways.get(way, 0)} {words}" in text
    hosts = kept["image_url"].str.extract(r"//([^/:]+)").n_unique()
    assert f"come from {hosts} host" in text
    for note in ("No real detector", "knows the sample world only", "Faces are not blurred", "caption_raw"):
        assert note in text


def test_the_card_tells_no_path_of_the_machine(finished: Finished, text: str) -> None:
    assert str(finished.sample) not in text
    assert str(finished.run) not in text
    assert "127.0.0.1" not in text  # the sample's own server, an operational field


def test_what_the_web_wrote_stays_within_its_cell(finished: Finished) -> None:
    told = facts(scan_ledger(str(finished.run)))
    told["top_hosts"] = [("a`|<script>\n# b", 3)]
    text = card(finished.told, told, [])
    assert "| `a <script> # b` | 3 |" in text


def test_a_recipe_without_stages_says_what_was_not_done(finished: Finished) -> None:
    told = json.loads(json.dumps(finished.told))
    told["recipe"]["stages"] = [s for s in told["recipe"]["stages"] if s["name"] in ("normalise", "decode")]
    told["stages"].pop("fetch")
    text = card(told, facts(scan_ledger(str(finished.run))), [])
    for gap in (
        "whether image and caption match is unchecked",
        "No detector",
        "names were not looked for",
        "no shards",
    ):
        assert gap in text
    assert "The recipe fetches nothing" in text
    assert "configs" not in head(text)
    assert "import duckdb" in text
    assert "webdataset as wds" not in text


def test_shards_in_one_pattern() -> None:
    assert braces(["train-000000.tar"]) == "train-000000.tar"
    assert braces([f"train-{i:06d}.tar" for i in (2, 0, 1)]) == "train-{000000..000002}.tar"
    assert braces(["val-000000.tar", "val-000003.tar"]) == "val-{000000,000003}.tar"


def test_croissant_names_every_file_and_its_hash(finished: Finished) -> None:
    told = json.loads((finished.run / "croissant.json").read_text())
    held = [o for o in told["distribution"] if o["@type"] == "cr:FileObject"]
    assert len(held) == len([*finished.run.glob("shards/*.tar"), *finished.run.glob("ledger/*.parquet")])
    for item in held:
        assert hashlib.sha256((finished.run / item["contentUrl"]).read_bytes()).hexdigest() == item["sha256"]


READ = """
import json, mlcroissant
found = mlcroissant.Dataset(jsonld="croissant.json")
issues, sets = found.metadata.ctx.issues, {r.id: list(found.records(r.id)) for r in found.metadata.record_sets}
image = sets["images"][0]
caption = next(c for c in sets["captions"] if c["captions/key"] == image["images/key"])
print(json.dumps({
    "issues": [*issues.errors, *issues.warnings],
    "counts": {name: len(every) for name, every in sets.items()},
    "key": image["images/key"].decode(),
    "size": image["images/image"].size,
    "caption": caption["captions/caption"].decode(),
}))
"""


def test_mlcroissant_validates_and_iterates(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    # Its own cache takes files of the same name for the same files, whatever run they are of.
    environment = {**os.environ, "CROISSANT_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, cwd=finished.run, env=environment, capture_output=True, text=True, check=True)
    assert "context" not in done.stderr
    told = json.loads(done.stdout)
    kept, inputs = finished.told["counts"]["kept"], finished.told["counts"]["inputs"]
    assert told["issues"] == []
    assert told["counts"] == {"ledger": inputs, "images": kept, "captions": kept}
    ledger = pl.scan_parquet(finished.run / "ledger" / "*.parquet")
    row = ledger.filter(pl.col("key") == told["key"], status="kept").collect()
    assert told["caption"] == row["caption"][0]
    assert told["size"] == [row["shipped_width"][0], row["shipped_height"][0]]


def test_a_run_without_shards_has_a_valid_croissant(finished: Finished, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant")
    run = tmp_path / "run"
    shutil.copytree(finished.run / "ledger", run / "ledger")
    shutil.copy(finished.run / "run.json", run)
    write_croissant(str(run))
    write_card(str(run))
    dataset = mlcroissant.Dataset(jsonld=str(run / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert [r.id for r in dataset.metadata.record_sets] == ["ledger"]
