"""The dataset card, in Hugging Face's format: YAML head, then what a reader must know before using it."""

from __future__ import annotations

import io
import json
from typing import Any

from ruamel.yaml import YAML

from ..pipeline import files

_SNIPPETS = """```python
import webdataset as wds
data = wds.WebDataset("shards/train-000000.tar", shardshuffle=False).decode("pil").to_tuple("jpg", "txt")

import polars as pl
ledger = pl.read_parquet("ledger/*.parquet")
print(ledger.group_by("status", "stage", "reason").len().sort("len", descending=True))
```
"""


def write_card(run: str) -> None:
    """Write ``README.md`` of a finished run from its run.json."""
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    files.write_bytes(files.join(run, "README.md"), card(told).encode())


def card(told: dict[str, Any]) -> str:
    """The card's text."""
    counts, recipe = told["counts"], told["recipe"]
    splits = {("validation" if s == "val" else s): f"shards/{s}-*.tar" for s in told["splits"]}
    head = {
        "language": ["zh"],
        "task_categories": ["image-to-text", "text-to-image", "zero-shot-image-classification"],
        "size_categories": [_size(counts["kept"])],
        "configs": [{"config_name": "default", "data_files": [{"split": s, "path": p} for s, p in splits.items()]}],
    }
    yaml = io.StringIO()
    YAML(typ="rt").dump(head, yaml)
    lines = [
        f"---\n{yaml.getvalue()}---\n",
        "# Chinese image-text pairs\n",
        f"Made by tuwen {told['version']} on {told['created'][:10]} with the recipe `{recipe['name']}` "
        f"({recipe['hash']}). {counts['inputs']} pairs were read: {counts['kept']} kept, {counts['dropped']} dropped, "
        f"{counts['failed']} failed.\n",
        *(f"> **Note.** {notice}\n" for notice in told["notices"]),
        "## Sources\n",
        *(f"- `{name.rstrip('/').rsplit('/', 1)[-1]}`" for name in told["inputs"]),
        "\n## How it was made\n",
        "| stage | in | kept | dropped and failed |\n|---|---|---|---|",
        *(
            f"| {name} | {row['in']} | {row['kept']} | "
            + ", ".join(f"{r} {n}" for r, n in {**row["dropped"], **row["failures"]}.items())
            + " |"
            for name, row in told["stages"].items()
        ),
        "\nModels and lexicons, with hashes:\n",
        *(
            f"- {stage}: {name} `{digest}`"
            for stage, used in told["resources"].items()
            for name, digest in used.items()
        ),
        "\n## Splits and files\n",
        *(f"- {split}: {n} pairs" for split, n in told["splits"].items()),
        f"\n{told['shards']['count']} shards, {told['shards']['bytes']} bytes; a sample is `KEY.jpg`, `KEY.txt` "
        "(caption) and `KEY.json` (measures, provenance, `caption_synthetic`, `negatives`). `ledger/` has one row per "
        "input pair, also of those that were dropped, with the reason.\n",
        "## Personal and sensitive information\n",
        _privacy(recipe),
        "## Known gaps\n",
        "Captions are what pages say, with their errors and their bias towards what is published. Rules on text and "
        "thresholds on scores make mistakes in both directions; the ledger shows every decision. The rights in "
        "the images stay with their owners.\n",
        "## Loading\n",
        _SNIPPETS,
    ]
    return "\n".join(lines)


def _privacy(recipe: dict[str, Any]) -> str:
    stages = {s["name"]: s for s in recipe["stages"]}
    told = []
    if "names" in stages:
        told.append(f"Personal names in captions were replaced by {stages['names']['placeholder']}.")
    if "jpeg" in stages:
        told.append("EXIF, XMP and IPTC metadata (place, device, author) was removed from the images.")
    if stages.get("fetch", {}).get("honour_opt_out"):
        told.append("Images whose server asked not to be used for training (X-Robots-Tag: noai) were left out.")
    if "sensitive" in stages:
        told.append("Sensitive words were masked or dropped by category.")
    return " ".join(told or ["No stage of the recipe treats personal data."]) + " Faces are not blurred.\n"


def _size(n: int) -> str:
    for bound, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")):
        if n < bound:
            return name
    return "n>10M"
