"""Taking samples out of a finished run at somebody's request.

Named by key, image URL or SHA-256 of the image as received. Their samples leave the shards, only the shards
concerned being rewritten; what the ledger, the thumbnails and the kept parts hold of their content is
erased; a row with where it came from stays, dropped by ``removed`` with the date, so that the sums hold.
``RUN/removed.parquet`` remembers what was removed, for later runs (``curate run --removed RUN``).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ..export.shards import ShardInfo, read_index, without, write_index
from ..filters.removed import SCHEMA
from . import amend, files
from .columns import LEDGER_SCHEMA
from .finish import REMOVED
from .ledger import scan_ledger

BY = {"keys": "key", "urls": "image_url", "sha256": "image_sha256"}
"""What a request names, and the ledger's column that holds it."""

KEPT_OF_A_ROW = (
    *("key", "unit", "ordinal", "origin", "page_url", "image_url", "caption_origin", "image_sha256"),
    *("status", "stage", "reason", "detail"),
)
"""Columns of a removed pair that stay: what it was, where it came from and what became of it. No content."""


def remove(run: str, named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Remove what ``named`` (of ``keys``, ``urls``, ``sha256``) names; run.json with ``removed`` and ``unknown``.

    ``removed`` counts pairs, ``unknown`` lists what no pair of the run has. Removing again changes nothing.
    """
    amend.settle(run)
    told = amend.run_json(run)
    rows, unknown = _find(run, named)
    rows = rows.filter(pl.col("stage").fill_null("") != REMOVED)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _remember(run, named, now)
    if rows.height:
        deleted = [*_stage_shards(run, rows), *_stage_rows(run, rows, now)]
        _stage_thumbs(run, rows)
        _stage_parts(run, rows)
        told = amend.commit(run, deleted, {"what": "remove", "removed": rows.height})
    else:
        amend.commit(run, (), {"what": "remove", "removed": 0})
    return {**told, "removed": rows.height, "unknown": unknown}


def _find(run: str, named: Mapping[str, Sequence[str]]) -> tuple[pl.DataFrame, list[str]]:
    """Ledger rows that ``named`` names, with ``by``; and names that no row has."""
    ledger = scan_ledger(run)
    found, unknown = [], []
    for kind, values in sorted(named.items()):
        column = BY[kind]
        wanted = pl.DataFrame({column: list(dict.fromkeys(values))}, schema={column: pl.String})
        hits = ledger.join(wanted.lazy(), on=column).with_columns(by=pl.lit(kind)).collect()
        found.append(hits)
        unknown += wanted.join(hits, on=column, how="anti")[column].to_list()
    return pl.concat(found).unique(["unit", "ordinal"], keep="first", maintain_order=True), unknown


def _remember(run: str, named: Mapping[str, Sequence[str]], now: str) -> None:
    """Stage the list of removals: what was named, whether the run has it or not; nobody asked for more."""
    path = files.join(run, "removed.parquet")
    old = [files.read_parquet(path)] if files.exists(path) else []
    new = [pl.DataFrame({BY[k]: list(v)}, schema={BY[k]: pl.String}) for k, v in sorted(named.items())]
    new = [frame.with_columns(pl.lit(now).alias("at")) for frame in new]
    listed = pl.concat([pl.DataFrame(schema=SCHEMA), *old, *new], how="diagonal_relaxed").select(list(SCHEMA))
    listed = listed.unique([*BY.values()], keep="first", maintain_order=True)
    files.write_parquet(amend.staged(run, "removed.parquet"), listed)


def _stage_shards(run: str, rows: pl.DataFrame) -> list[str]:
    """Stage the shards concerned without the samples, and the index; names of shards that would be empty."""
    infos = {i.name: i for i in read_index(files.join(run, "shards"))}
    empty = []
    for (shard,), some in rows.filter(pl.col("shard").is_not_null()).group_by("shard"):
        name = str(shard)
        left = without(files.join(run, "shards", name), set(some["key"]), amend.staged(run, "shards", name))
        if left.samples:
            infos[name] = ShardInfo(name, left.samples, left.bytes, left.sha256)
            continue
        del infos[name]
        files.remove(amend.staged(run, "shards", name))
        empty.append(f"shards/{name}")
    if infos or empty:
        write_index(amend.staged(run, "shards"), list(infos.values()))
    return empty


def _stage_rows(run: str, rows: pl.DataFrame, now: str) -> list[str]:
    """Stage the ledger files concerned; names of those that would be empty."""
    erased = rows.with_columns(
        *(pl.lit(None, dtype=t).alias(c) for c, t in LEDGER_SCHEMA.items() if c not in KEPT_OF_A_ROW),
        status=pl.lit("dropped"),
        stage=pl.lit(REMOVED),
        reason=pl.lit("removed"),
        detail=pl.format("removed on request on {}, named by {}", pl.lit(now[:10]), "by"),
    ).select(list(LEDGER_SCHEMA))
    gone = rows.select("unit", "ordinal")
    empty = []
    was = pl.when(pl.col("shard").is_not_null())
    of_file = was.then(pl.col("shard").str.strip_suffix(".tar")).otherwise(pl.format("dropped-{}", "unit"))
    targets = {f"dropped-{u}" for u in rows["unit"].unique()}
    for stem in sorted(set(rows.select(of_file).to_series()) | targets):
        path = files.join(run, "ledger", f"{stem}.parquet")
        old = files.read_parquet(path) if files.exists(path) else erased.clear()
        new = [old.join(gone, on=["unit", "ordinal"], how="anti")]
        if stem in targets:
            new.append(erased.filter(pl.col("unit") == stem.removeprefix("dropped-")))
        merged = pl.concat(new, how="diagonal_relaxed")
        if not merged.height:
            empty.append(f"ledger/{stem}.parquet")
            continue
        order = ["ordinal"] if stem in targets else ["key"]
        files.write_parquet(amend.staged(run, "ledger", f"{stem}.parquet"), merged.sort(order))
    return empty


def _stage_thumbs(run: str, rows: pl.DataFrame) -> None:
    for name in ("thumbs.parquet", "embeddings.parquet"):  # the second is what `curate browse --embed` leaves
        if files.exists(path := files.join(run, name)):
            left = files.read_parquet(path).join(rows, on=["unit", "ordinal"], how="anti")
            files.write_parquet(amend.staged(run, name), left)


def _stage_parts(run: str, rows: pl.DataFrame) -> None:
    """Where the run keeps its parts for replays: the images are blanked and the rows point nowhere."""
    for (unit,), some in rows.group_by("unit", maintain_order=True):
        name = files.join(run, "parts", f"{unit}.parquet")
        if not files.exists(name):
            continue
        held = files.read_parquet(name)
        ours = pl.col("ordinal").is_in(some["ordinal"].implode())
        for (part,), places in held.filter(ours & pl.col("part").is_not_null()).group_by("part"):
            _blank(run, f"{part}.tar", places.select("offset", "length").rows())
        # Nothing but the row's place in the run stays.
        blank = [c for c in held.columns if c not in KEPT_OF_A_ROW]
        held = held.with_columns(pl.when(~ours).then(pl.col(c)).alias(c) for c in blank)
        files.write_parquet(amend.staged(run, "parts", f"{unit}.parquet"), held)
        thumbs = files.join(run, "parts", f"{unit}.thumbs.parquet")
        if files.exists(thumbs):
            left = files.read_parquet(thumbs).join(some, on=["unit", "ordinal"], how="anti")
            files.write_parquet(amend.staged(run, "parts", f"{unit}.thumbs.parquet"), left)


def _blank(run: str, tar: str, places: list[tuple[int, int]]) -> None:
    """Stage a part's tar with zeros where the images were: the other images' offsets stay true."""
    new = amend.staged(run, "parts", tar)
    data = io.BytesIO(files.read_bytes(new if files.exists(new) else files.join(run, "parts", tar)))
    for offset, length in places:
        data.seek(offset)
        data.write(bytes(length))
    files.write_bytes(new, data.getvalue())
