"""Reading a finished run's ledger."""

from __future__ import annotations

import polars as pl

from . import files
from .errors import RunError


def scan_ledger(run: str) -> pl.LazyFrame:
    """The ledger of a run as one lazy frame, a row per input pair.

    Raises ``RunError`` where there is none: the run did not finish.
    """
    folder = files.join(run, "ledger")
    ledger = files.scan_parquet(folder)
    if ledger is None:
        raise RunError(f"{run} holds no ledger; expected {folder}/*.parquet. Did the run finish?")
    return ledger
