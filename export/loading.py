"""The snippets on the dataset card that load it; ``benchmarks/loading.py`` and a test run every one as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TITLES = ("webdataset", "open_clip", "datasets", "polars", "duckdb")


def snippets(shards: Sequence[str], samples: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    """Title to (language, code), for a run with these shards (file names) and samples per split.

    All are run in the run's directory. Those over shards are left out where the run has none.
    """
    told: dict[str, tuple[str, str]] = {}
    first = next((s for s in ("train", *samples) if any(n.startswith(f"{s}-") for n in shards)), "")
    if first:
        pattern = braces([n for n in shards if n.startswith(f"{first}-")])
        told["webdataset"] = ("python", _WEBDATASET.format(pattern=pattern))
        told["open_clip"] = ("bash", _OPEN_CLIP.format(pattern=pattern, samples=samples[first]))
        told["datasets"] = ("python", _DATASETS.format(split=first))
    told["polars"] = ("python", _POLARS)
    told["duckdb"] = ("python", _DUCKDB)
    return told


def braces(names: Sequence[str]) -> str:
    """One pattern for shards ``split-000000.tar`` to ``split-000007.tar``: ``split-{000000..000007}.tar``.

    Where numbers are missing between them (``curate remove`` took a whole shard), all names stand in the braces.
    """
    ordered = sorted(names)
    stem = ordered[0].rsplit("-", 1)[0]
    numbers = [n.removeprefix(f"{stem}-").removesuffix(".tar") for n in ordered]
    if len(ordered) == 1:
        return ordered[0]
    whole = [int(n) for n in numbers] == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))
    inside = f"{numbers[0]}..{numbers[-1]}" if whole else ",".join(numbers)
    return f"{stem}-{{{inside}}}.tar"


_WEBDATASET = """import webdataset as wds

pairs = wds.WebDataset("shards/{pattern}", shardshuffle=False).decode("pil").to_tuple("jpg", "txt", "json")
image, caption, about = next(iter(pairs))
print(image.size, caption, about["score"] if "score" in about else "")
"""

_OPEN_CLIP = """python -m open_clip_train.main --train-data 'shards/{pattern}' --train-num-samples {samples} \\
    --dataset-type webdataset --model xlm-roberta-base-ViT-B-32 --batch-size 256 --workers 1 --epochs 32
"""

_DATASETS = """from datasets import Features, Image, Json, Value, load_dataset

text = Value("string")
features = Features({{"__key__": text, "__url__": text, "jpg": Image(), "json": Json(), "txt": text}})
pairs = load_dataset("webdataset", data_files="shards/{split}-*.tar", split="train", features=features)
print(len(pairs), pairs[0]["jpg"].size, pairs[0]["txt"])

for pair in load_dataset("webdataset", data_files="shards/{split}-*.tar", split="train", streaming=True):
    print(pair["__key__"], pair["txt"])
    break
"""

_POLARS = """import polars as pl

ledger = pl.scan_parquet("ledger/*.parquet")
print(ledger.group_by("status", "stage", "reason").len().sort("len", descending=True).collect())
print(ledger.select("key", "status", "reason", "caption_raw").head(1).collect())
"""

_DUCKDB = """import duckdb

ledger = "read_parquet('ledger/*.parquet')"
print(duckdb.sql(f"select status, stage, reason, count(*) as pairs from {ledger} group by all order by pairs desc"))
print(duckdb.sql(f"select key, status, reason, caption_raw from {ledger} limit 1"))
"""
