"""Precision and recall per planted fault: what a run on the sample crawl made of each.

    python benchmarks/planted_faults.py [--run RUN --sample SAMPLE] [--seed N] [--check]

Without a run it writes a sample crawl with a seed of its own (not the one anything was looked at with) and
runs the ``oppovl`` recipe on it. Recall: of the pairs with this fault, how many ended as they should, with
the right reason. Precision: of the pairs that ended with one of the fault's reasons, how many should have.
For faults that are mended (a tail cut, a name replaced), right means kept with exactly the caption expected.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

FLOORS = {"precision": 0.95, "recall": 0.90}


def table(run: Path, sample: Path) -> list[dict[str, Any]]:
    """One row per fault: pairs, right ones, precision, recall."""
    ledger = pl.read_parquet(run / "ledger" / "*.parquet").select(
        "image_url", "caption_raw", "status", "reason", "caption"
    )
    labels = pl.read_ndjson(sample / "labels.jsonl", schema_overrides={"shipped": pl.String}).rename(
        {"status": "expected", "reasons": "right"}
    )
    # Two equal pairs (an exact duplicate) have one kept and one dropped row; they are matched in that order.
    order = pl.col("status").replace_strict({"kept": 0}, default=1)
    same = ["image_url", "caption_raw"]
    ledger = ledger.sort(*same, order).with_columns(n=pl.int_range(pl.len()).over(same))
    labels = labels.sort(*same, pl.col("expected") != "kept").with_columns(n=pl.int_range(pl.len()).over(same))
    joined = labels.join(ledger, on=[*same, "n"], how="left")
    if joined["status"].null_count() or joined.height != ledger.height:
        raise SystemExit(
            f"{joined['status'].null_count()} labelled pairs are not in the ledger of {ledger.height} rows"
        )
    mended = pl.col("shipped").is_null() | (pl.col("caption") == pl.col("shipped"))
    right = pl.when(pl.col("expected") == "kept").then((pl.col("status") == "kept") & mended)
    right = right.otherwise((pl.col("status") == pl.col("expected")) & pl.col("right").list.contains(pl.col("reason")))
    # Which of a group of duplicates stays depends on their scores; that all but one go is what is asked.
    grouped = pl.col("group") != ""
    fallen = pl.col("reason").is_in(["same_pair", "pair_duplicate"])
    one_stays = ((pl.col("status") == "kept").sum().over("group") == 1) & ((pl.col("status") == "kept") | fallen)
    joined = joined.with_columns(
        ok=pl.when(grouped).then(one_stays).otherwise(right),
        reason=pl.col("reason").fill_null("kept"),
        right=pl.when(grouped).then(pl.lit(["same_pair", "pair_duplicate"])).otherwise("right"),
    )
    rows = []
    for (fault,), group in joined.sort("fault").group_by("fault", maintain_order=True):
        reasons = set(group["right"].explode().drop_nulls())
        claimed = joined.filter(pl.col("reason").is_in(list(reasons)))
        true = claimed.filter(pl.col("right").list.contains(pl.col("reason")))
        rows.append(
            {
                "fault": fault,
                "pairs": group.height,
                "right": int(group["ok"].sum()),
                "recall": group["ok"].sum() / group.height,
                "precision": true.height / claimed.height if claimed.height else None,
                "ended": ", ".join(f"{r} {n}" for r, n in group["reason"].value_counts(sort=True).rows()),
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--seed", type=int, default=20261)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a fault is under the floors")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, sample = given.run, given.sample
        if run is None:
            run, sample = Path(folder) / "run", Path(folder) / "sample"
            curate = [sys.executable, "-m", "tuwen.pipeline.cli"]
            subprocess.run([*curate, "sample", str(sample), "--seed", str(given.seed), "--json"], check=True, stdout=-3)
            subprocess.run([*curate, "run", str(sample), "-o", str(run), "--json"], check=True, stdout=-3)
        rows = table(run, sample)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, tuwen {_version()}")
    print(f"sample crawl with seed {given.seed}, recipe oppovl; {sum(r['pairs'] for r in rows)} pairs\n")
    print(f"{'fault':<18} {'pairs':>5} {'right':>5} {'recall':>7} {'precision':>9}  ended as")
    for row in rows:
        precision = "" if row["precision"] is None else f"{row['precision']:.3f}"
        counts = f"{row['pairs']:>5} {row['right']:>5} {row['recall']:>7.3f} {precision:>9}"
        print(f"{row['fault']:<18} {counts}  {row['ended']}")
    bad = [r["fault"] for r in rows if r["recall"] < FLOORS["recall"] or (r["precision"] or 1) < FLOORS["precision"]]
    if given.check and bad:
        sys.exit(f"under the floors {FLOORS}: {', '.join(bad)}")


def _version() -> str:
    try:
        return version("tuwen")
    except Exception:  # run from a checkout that is not installed
        from tuwen import __version__

        return __version__


if __name__ == "__main__":
    main()
