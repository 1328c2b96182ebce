"""Before a run: `curate doctor` and `init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson, options

MARKS = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}


def doctor(
    out: Annotated[str, typer.Option("-o", "--out", help="where a run would be written: its disk is looked at")] = ".",
    no_self_test: Annotated[bool, typer.Option("--no-self-test", help="leave out the small run")] = False,
    as_json: AsJson = False,
) -> None:
    """Look whether this machine is fit for a run.

    Exit code 1 where something is broken.
    """
    from . import terminal
    from .doctor import broken, checks

    found = []
    for check in checks(out, not no_self_test):
        found.append(check)
        if not as_json:
            terminal.out.print(f"{MARKS[check.state]}  {check.name}: {check.said}", markup=False)
            if check.todo:
                terminal.out.print(f"        {check.todo}", markup=False)
    if as_json:
        terminal.print_json({"broken": broken(found), "checks": [c.describe() for c in found]})
    if broken(found):
        raise typer.Exit(1)


def init(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="what `curate run` would read")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the recipe to write")] = Path("recipe.yaml"),
    recipe: Annotated[str, typer.Option("-r", "--recipe", help="begin with this one instead of the one chosen")] = "",
    pairs: Annotated[int, typer.Option(min=1, help="pairs to look at")] = 500,
    option: Annotated[list[str] | None, typer.Option("--input", help="how to read the input, as for run")] = None,
    force: Annotated[bool, typer.Option("--force", help="write over a file that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at an input and write a commented recipe for it."""
    from . import terminal
    from .init import look, write_recipe

    seen = look(source, options(option or []), pairs)
    told = write_recipe(seen, out, recipe, force)
    if as_json:
        terminal.print_json(told)
        return
    for line in told["seen"]:
        terminal.out.print(line, markup=False)
    terminal.out.print(f"wrote {out}, from the recipe {told['recipe']}: {told['because']}", markup=False)
    terminal.out.print(f"next: {told['next']}", markup=False)


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(doctor)
    app.command()(init)
