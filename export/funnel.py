"""The closing funnel on the terminal: per stage what came in, stayed, fell and failed."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table


def funnel_table(told: dict[str, Any]) -> Table:
    """A table of run.json's stages."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for name in ("in", "kept", "dropped", "failed", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("reasons", overflow="fold")
    for stage, row in told["stages"].items():
        lost = sorted({**row["dropped"], **row["failures"]}.items(), key=lambda item: -item[1])
        table.add_row(
            stage,
            str(row["in"]),
            str(row["kept"]),
            str(sum(row["dropped"].values()) or ""),
            str(row["failed"] or ""),
            f"{row['seconds']:.1f}",
            ", ".join(f"{reason} {n}" for reason, n in lost),
        )
    return table


def comparison_table(found: dict[str, Any]) -> Table:
    """A table of the reasons whose counts differ; ``found`` from ``compare``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reason")
    for name in ("before", "now", "difference"):
        table.add_column(name, justify="right")
    for reason, before, now in found["reasons"]:
        if before != now:
            table.add_row(reason, str(before), str(now), f"{now - before:+d}")
    return table
