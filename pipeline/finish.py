"""What stands at the end of a run: the sums checked, run.json, the report, the card.

All counts come from the tables, never from Beam's metrics, which may double on a retry.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import polars as pl

from .. import __version__
from ..export.card import write_card
from ..export.croissant import write_croissant
from ..export.gallery import TWINS_SHOWN
from ..export.report import write_report
from ..export.shards import ShardInfo, write_index
from . import files
from .errors import RunError
from .ledger import scan_ledger
from .recipe import Recipe
from .relate import in_order
from .stage import StageModel, Tally
from .thumbs import PER_REASON, SCHEMA, thumbnail

REMOVED = "removed"
"""The stage under which a takedown stands."""

KEPT_SHOWN = 48
"""Kept pairs, and pairs per relate-phase reason, that the report shows."""


def finish(
    out: str,
    parts: str,
    recipe: Recipe,
    units: list[str],
    seconds: dict[str, float],
    bytes_from: str | None,
    header: dict[str, Any],
    related: Mapping[str, Tally],
) -> dict[str, Any]:
    """Check that nothing was lost and write all that describes the run; returns what run.json holds.

    ``related`` are the relate phase's tallies, for their times alone: counts come from the ledger.

    Raises ``RunError`` (exit code 1) where inputs != kept + dropped + failed.
    """
    measured = files.each(lambda unit: json.loads(files.read_bytes(files.join(parts, f"{unit}.json"))), units, parts)
    ledger = scan_ledger(out)
    infos, made = _shards(out, parts)
    spent = _microseconds([*measured, *made, {"stages": related}])
    summed = summary(ledger, recipe, sum(m["inputs"] for m in measured), spent, infos, bool(bytes_from))
    write_index(files.join(out, "shards"), infos)
    told = {
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {
            **recipe.describe(operational=True),
            "hash": recipe.hash,
            "about": recipe.about,
            "source": recipe.source,
        },
        **header,
        **summed,
        "resources": {s.name: dict(s.resources()) for s in recipe.stages if s.resources()},
        "notices": [*(n for s in recipe.stages for n in s.notices()), *_shortfalls(summed["stages"], header)],
        "times": seconds,
        "machine": _machine(),
    }
    files.write_parquet(files.join(out, "thumbs.parquet"), _thumbs(ledger, parts, bytes_from, units))
    files.write_bytes(files.join(out, "run.json"), json.dumps(told, ensure_ascii=False, indent=1).encode())
    write_card(out)
    write_croissant(out)
    write_report(out)  # last: it links what lies beside it
    return told


def summary(
    ledger: pl.LazyFrame,
    recipe: Recipe,
    inputs: int,
    spent: dict[str, int],
    infos: list[ShardInfo],
    shipped: bool,
) -> dict[str, Any]:
    """counts, stages, splits and shards of run.json, from the ledger and the shards; ``spent`` in microseconds.

    Raises ``RunError`` where the sums do not hold; ``shipped`` is False for a ledger that has no shards.
    """
    table = ledger.group_by("status", "stage", "reason").len().collect()
    counts = {"inputs": inputs}
    for status in ("kept", "dropped", "failed"):
        counts[status] = int(table.filter(pl.col("status") == status)["len"].sum())
    _check(counts, int(table["len"].sum()), sum(i.samples for i in infos) if shipped else counts["kept"])
    kept = ledger.filter(pl.col("status") == "kept")
    return {
        "counts": counts,
        "stages": funnel(table, recipe.stages, inputs, spent),
        "splits": dict(kept.group_by("split").len().sort("split").collect().rows()),
        "shards": {"count": len(infos), "bytes": sum(i.bytes for i in infos)},
    }


def _shortfalls(stages: Mapping[str, Any], header: dict[str, Any]) -> list[str]:
    """What a replay could not answer or write, in words."""
    told = []
    unmeasured = sum(stage["failures"].get("not_measured", 0) for stage in stages.values())
    if unmeasured:
        told.append(
            f"{unmeasured} pairs pass the new thresholds but were never measured further: the run dropped them early. "
            "They are counted as failed (not_measured); a run with --measure-all can answer for them."
        )
    missing = int(header.get("bytes_missing") or 0)
    if missing:
        told.append(
            f"{missing} pairs are kept now whose images the run no longer has, so no shards were written; the "
            "verdicts are in the ledger. A run with --measure-all keeps the images."
        )
    return told


def funnel(
    table: pl.DataFrame, stages: tuple[StageModel, ...], inputs: int, spent: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Per stage: pairs in, kept, failed, dropped by reason, seconds.

    A stage's ``in`` is what the stages before it left over, so the column reads as one funnel.
    """
    order = ["read", *(s.name for s in stages if s.phase == "measure")]
    order += [s.name for s in in_order([s for s in stages if s.phase == "relate"])]
    order += ["emit", *(s.name for s in stages if s.phase == "emit"), REMOVED]
    left = inputs
    told: dict[str, dict[str, Any]] = {}
    for name in order:
        own = table.filter(pl.col("stage") == name)
        dropped = {
            r: int(n)
            for r, n in own.filter(pl.col("status") == "dropped").select("reason", "len").sort("reason").rows()
        }
        failures = own.filter(pl.col("status") == "failed").select("reason", "len").sort("reason").rows()
        lost = sum(dropped.values()) + sum(n for _, n in failures)
        if name in ("relate", "emit", REMOVED) and not lost:
            continue
        told[name] = {
            "in": left,
            "kept": left - lost,
            "failed": sum(n for _, n in failures),
            "failures": dict(failures),
            "dropped": dropped,
            "seconds": round(spent.get(name, 0) / 1e6, 3),
        }
        left -= lost
    return told


def _check(counts: dict[str, int], rows: int, samples: int) -> None:
    ended = counts["kept"] + counts["dropped"] + counts["failed"]
    if not counts["inputs"] == ended == rows:
        raise RunError(
            f"pairs were lost or doubled: {counts['inputs']} read, {rows} in the ledger, {counts['kept']} kept + "
            f"{counts['dropped']} dropped + {counts['failed']} failed = {ended}. This is a defect; please report it."
        )
    if samples != counts["kept"]:
        raise RunError(
            f"{counts['kept']} pairs are kept but the shards hold {samples}. This is a defect; please report it."
        )


def _shards(out: str, parts: str) -> tuple[list[ShardInfo], list[dict[str, Any]]]:
    names = files.names(parts, ".tar.json")
    made = files.each(lambda name: json.loads(files.read_bytes(files.join(parts, name))), names, parts)
    present = set(files.names(files.join(out, "shards"), ".tar"))
    infos = [ShardInfo(**m["info"]) for m in made if m["info"]["name"] in present]
    return infos, made


def _microseconds(told: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in told:
        for stage, tally in one["stages"].items():
            total[stage] = total.get(stage, 0) + int(tally.get("us", 0))
    return total


def _thumbs(ledger: pl.LazyFrame, parts: str, bytes_from: str | None, units: list[str]) -> pl.DataFrame:
    """Thumbnails of what the measure phase set aside, of kept pairs, and of pairs that relate dropped."""
    names = files.names(parts, ".thumbs.parquet")
    early = pl.concat([pl.DataFrame(schema=SCHEMA), *(files.read_parquet(files.join(parts, n)) for n in names)])
    verdicts = ledger.select("unit", "ordinal", "status", "reason")
    early = (
        early.lazy()
        .join(verdicts.filter(pl.col("status") != "kept"), on=["unit", "ordinal"])
        .sort("key")
        .group_by("reason", maintain_order=True)
        .head(3 * PER_REASON)
        .select(list(SCHEMA))
        .collect()
    )
    if bytes_from is None:
        return early
    late = (
        ledger.filter(
            (pl.col("status") == "kept") | pl.col("duplicate_of").is_not_null() | pl.col("contaminates").is_not_null()
        )
        .select("unit", "ordinal", "key", pl.col("reason").fill_null("kept"))
        .sort("key")
        .group_by("reason", maintain_order=True)
        .head(KEPT_SHOWN)
        .collect()
    )
    staying = pl.concat([late, _staying(ledger, late).select(late.columns)]).unique(
        ["unit", "ordinal"], maintain_order=True
    )
    return pl.concat([early, _late_thumbs(staying, parts, bytes_from)])


def _staying(ledger: pl.LazyFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """The kept pairs that duplicates among the first of ``shown`` repeat: the report sets them side by side."""
    first = shown.sort("key").group_by("reason", maintain_order=True).head(TWINS_SHOWN)
    repeated = (
        ledger.filter(pl.col("duplicate_of").is_not_null())
        .join(first.lazy(), on=["unit", "ordinal"], how="semi")
        .select(key="duplicate_of")
        .unique()
    )
    kept = ledger.filter(pl.col("status") == "kept").join(repeated, on="key", how="semi")
    return kept.select("unit", "ordinal", "key", reason=pl.lit("kept")).collect()


def _late_thumbs(rows: pl.DataFrame, parts: str, bytes_from: str) -> pl.DataFrame:
    made: list[tuple[str, int, str, bytes]] = []
    for (unit,), wanted in rows.sort("unit").group_by("unit", maintain_order=True):
        places = files.read_parquet(files.join(parts, f"{unit}.parquet"), ["ordinal", "part", "offset", "length"])
        found = wanted.join(places, on="ordinal").filter(pl.col("part").is_not_null()).sort("part", "offset")
        for (part,), group in found.group_by("part", maintain_order=True):
            with files.open_read(files.join(bytes_from, f"{part}.tar")) as handle:
                for ordinal, key, offset, length in group.select("ordinal", "key", "offset", "length").rows():
                    handle.seek(offset)
                    thumb = thumbnail(handle.read(length))
                    if thumb:
                        made.append((str(unit), ordinal, key, thumb))
    return pl.DataFrame(made, schema=SCHEMA, orient="row")


def _machine() -> dict[str, str]:
    libraries = ("apache-beam", "polars", "torch", "open_clip_torch", "opencv-python-headless")
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        **{name: version(name) for name in libraries},
    }
