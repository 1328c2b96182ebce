"""``curate run --fetch-with``: img2dataset fetches the images as a process of its own; the run reads what it leaves.

Its output lies beside the run, in OUT-img2dataset, and is kept: the same command goes on with the shards that are not
finished, and a finished fetch is not done again. What it lacks is said in docs/decisions.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from . import files
from .errors import RunError, UsageError
from .sources import open_input, read_unit
from .sources.img2dataset import UNREAD

NAME = "img2dataset"
SHARD = 1000
"""Rows of a shard: the grain at which an interrupted fetch goes on (img2dataset's default is 10,000)."""

UNASKED = "about:unread"
"""The URL of a row that failed in reading: img2dataset asks nobody for it and notes it as failed."""

TABLES = frozenset(("lines", "json", "parquet"))


def fetch_with(program: str, inputs: Sequence[str], options: Mapping[str, str], out: str, workers: int) -> str:
    """Fetch the URLs of ``inputs`` with the img2dataset that ``program`` names; the folder of its shards.

    ``program`` is ``img2dataset``, found on the PATH, or the path of that executable or of a Python that has it: its
    requirements may need an environment of their own.
    """
    command = _command(program)
    if "://" in out:
        raise UsageError(f"--fetch-with needs a local OUT, {out} is none: img2dataset writes beside it")
    folder = Path(out.rstrip("/") + f"-{NAME}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(inputs, options)
    told = {"list": hashlib.sha256(rows.write_ndjson().encode()).hexdigest(), "rows": rows.height, "shard": SHARD}
    _begin(folder, told)
    shards = folder / "shards"
    if not (folder / "done").exists():
        # A list of 8,000,000 rows is one table: img2dataset cuts it into shards itself.
        files.write_parquet(str(folder / "list.parquet"), rows)
        _run([*command, *_flags(folder / "list.parquet", shards, workers or os.cpu_count() or 1)], folder)
        _check(shards, rows.height)
        files.write_bytes(str(folder / "done"), b"")
    return str(shards)


def _command(program: str) -> list[str]:
    """How the program is called: its own command, or a module of the Python given."""
    found = shutil.which(program)
    if found is None:
        raise UsageError(
            f"--fetch-with {program}: no such program. Install it with pip install 'tuwen[img2dataset]' or in an "
            "environment of its own, and give its path: --fetch-with /path/to/venv/bin/img2dataset (or …/bin/python)"
        )
    name = Path(found).name
    if name.startswith("python"):
        return [found, "-m", "img2dataset.main"]
    if NAME not in name:
        raise UsageError(f"--fetch-with {program}: expected img2dataset, its path, or a Python that has it")
    return [found]


def _rows(inputs: Sequence[str], options: Mapping[str, str]) -> pl.DataFrame:
    """``url``, ``caption``, ``page_url`` and, for rows that failed in reading, why, of all pairs of the inputs."""
    frames = []
    for index, path in enumerate(inputs):
        for unit in open_input(path, index, options):
            if unit.reader not in TABLES:
                raise UsageError(
                    f"--fetch-with: {path} is read as {unit.reader}; expected a table or list of URLs with captions"
                )
            for batch in read_unit(unit):
                if batch["image"].count():
                    raise UsageError(f"--fetch-with: {path} holds or names image files; there is nothing to fetch")
                frames.append(batch)
    unread = pl.col("reason").is_not_null()
    return pl.concat(frames).select(
        pl.when(unread).then(pl.lit(UNASKED)).otherwise("image_url").alias("url"),
        pl.col("caption_raw").alias("caption"),
        "page_url",
        pl.when(unread).then(pl.format("{}: {}", "reason", "detail")).alias(UNREAD),
    )


def _begin(folder: Path, told: Mapping[str, Any]) -> None:
    """Note what is fetched, or refuse a folder that holds the fetch of another list."""
    at = folder / "list.json"
    if at.is_file() and json.loads(at.read_text("utf-8")) != dict(told):
        raise UsageError(f"{folder} holds the fetch of another list; give another -o, or delete that folder")
    files.write_bytes(str(at), json.dumps(told).encode())


def _flags(table: Path, shards: Path, workers: int) -> list[str]:
    """The images as they came, with the opt-outs honoured that img2dataset knows."""
    flags: dict[str, object] = {
        **{"url_list": table, "input_format": "parquet", "url_col": "url", "caption_col": "caption"},
        **{"save_additional_columns": json.dumps(["page_url", UNREAD]), "number_sample_per_shard": SHARD},
        **{"output_format": "webdataset", "output_folder": shards, "incremental_mode": "incremental"},
        **{"resize_mode": "no", "disable_all_reencoding": True, "compute_hash": "sha256", "extract_exif": False},
        **{"disallowed_header_directives": json.dumps(["noai", "noimageai", "noml"]), "user_agent_token": "tuwen"},
        **{"processes_count": workers, "thread_count": 64, "enable_wandb": False},
    }
    return [f"--{name}={value}" for name, value in flags.items()]


def _run(command: list[str], folder: Path) -> None:
    log = folder / "img2dataset.log"
    with log.open("wb") as handle:
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        done = subprocess.run(command, stdout=handle, stderr=subprocess.STDOUT, env=environment, check=False)
    last = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
    if done.returncode:
        raise RunError(
            f"img2dataset ended with {done.returncode}: {' | '.join(last) or 'no word'}. The whole is in {log}; "
            "the same command goes on from the shards that are done"
        )


def _check(shards: Path, rows: int) -> None:
    """img2dataset ends well even where a shard failed: its own counts must add up to the list."""
    counted = [json.loads(path.read_text("utf-8"))["count"] for path in sorted(shards.glob("*_stats.json"))]
    if sum(counted) != rows:
        raise RunError(
            f"img2dataset accounts for {sum(counted)} of {rows} rows ({len(counted)} shards in {shards}); the same "
            "command fetches the shards that are missing"
        )
