"""Changing a finished run: `curate retry` and `remove`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson, Run, Sets, Workers, close, served_again
from .errors import InputError, UsageError


def retry(run: Run, sets: Sets = None, workers: Workers = 0, as_json: AsJson = False) -> None:
    """Fetch again what failed for a cause that may have passed.

    What comes is added to the run.
    """
    from . import amend, terminal
    from . import retry as retrying
    from .recipe import from_description

    told = amend.run_json(run)
    recipe = from_description(told["recipe"], sets or [])
    with ExitStack() as stack:
        recipe = served_again(told, recipe, stack)
        told = retrying.retry(run, recipe, workers or os.cpu_count() or 1)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"{told['retried']} pairs fetched again, {told['came']} of them kept now")
    close(run, told, as_json)


def remove(
    run: Run,
    urls: Annotated[Path | None, typer.Option(help="file of image URLs, one a line")] = None,
    keys: Annotated[Path | None, typer.Option(help="file of keys, one a line")] = None,
    sha256: Annotated[Path | None, typer.Option(help="file of SHA-256 of images as received, one a line")] = None,
    as_json: AsJson = False,
) -> None:
    """Take samples out of a run, and remember it for later runs.

    A takedown: shards, ledger, thumbnails and card change together.
    """
    from . import takedown, terminal

    given = {"urls": urls, "keys": keys, "sha256": sha256}
    named = {kind: _lines(path) for kind, path in given.items() if path is not None}
    if not named:
        raise UsageError("nothing to remove was named; give a file with --urls, --keys or --sha256")
    told = takedown.remove(run, named)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(
        f"{told['removed']} pairs removed; {len(told['unknown'])} of the names given are not in this run"
    )
    close(run, told, as_json)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is no file; expected a text file with one name a line")
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(retry)
    app.command()(remove)
