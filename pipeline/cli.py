"""The `curate` command: each family of commands stands in a file of its own, ``cli_<family>.py``.

Every command is a thin layer over a function that can be called from Python.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from .. import __version__
from . import (
    cli_amend,
    cli_browse,
    cli_crawl,
    cli_look,
    cli_run,
    cli_score,
    cli_search,
    cli_setup,
    cli_text,
    cli_train,
    cli_value,
)
from .errors import TuwenError

app = typer.Typer(
    name="curate",
    help="Build Chinese image-text datasets and see why every pair was kept or lost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tuwen {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Exit codes: 0 done, 1 the run failed, 2 wrong usage or recipe, 3 an input cannot be read."""


for family in (
    cli_setup,
    cli_run,
    cli_score,
    cli_crawl,
    cli_amend,
    cli_look,
    cli_browse,
    cli_text,
    cli_train,
    cli_value,
    cli_search,
):
    family.add(app)


def main() -> None:
    """Entry point: known errors become one message and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Beam warns at import of Google clients that tuwen does not use.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    try:
        app()
    except TuwenError as error:
        from .terminal import err

        err.print(f"curate: {error}", markup=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
