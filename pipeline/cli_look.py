"""Looking at runs and stages: `curate report`, `why` and `stages`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_shared import AsJson, Run, close


def report(
    run: Run,
    against: Annotated[
        str, typer.Option(help="another run of the same input: write comparison.html, what RUN does otherwise")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write the report page again, or compare two runs.

    The funnel is printed as well.
    """
    from ..export.funnel import comparison_table
    from ..export.report import write_comparison, write_report
    from . import amend, terminal

    told = amend.run_json(run)
    if not against:
        write_report(run)
        close(run, told, as_json)
        return
    amend.run_json(against)
    found = write_comparison(run, against)
    if as_json:
        terminal.print_json({k: v for k, v in found.items() if k not in ("thumbs", "shown", "words")})
        return
    terminal.out.print(comparison_table(found))
    terminal.out.print(f"{found['changed']} pairs end otherwise than in {against}", markup=False)
    terminal.out.print(f"comparison: {run}/comparison.html", markup=False)


def why(
    run: Run,
    pair: Annotated[
        str, typer.Argument(metavar="KEY|URL|WORDS", help="a pair's key or its first digits, a URL, words of a caption")
    ],
    as_json: AsJson = False,
) -> None:
    """One pair's whole story, from its source to its shard."""
    from . import terminal
    from .why import stories
    from .why_text import page

    told = stories(run, pair)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print("\n\n".join(map(page, told)), markup=False)


def stages(
    name: Annotated[str | None, typer.Argument(help="one stage, with its fields")] = None, as_json: AsJson = False
) -> None:
    """Every stage, or one with fields, units and reasons."""
    from . import terminal
    from .catalogue import catalogue, describe

    told = [describe(name)] if name else catalogue()
    if as_json:
        terminal.print_json(told)
        return
    for stage in told:
        terminal.out.print(f"{stage['name']} ({stage['phase']}): {stage['about']}", markup=False)
        terminal.out.print(f"  reasons: {', '.join(stage['reasons']) or 'none'}", markup=False)
        for field in stage["fields"] if name else []:
            kind = f" [{field['kind']}]" if field["kind"] else ""
            terminal.out.print(f"  {field['name']} = {field['default']!r}{kind}", markup=False)
            terminal.out.print(f"      {field['about']}", markup=False)


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(report)
    app.command()(why)
    app.command()(stages)
