"""Text alone: `curate text` and `lexicon`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_shared import AsJson, Sets, caption_column


def text(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="jsonl, csv, tsv, txt or parquet of captions; - for stdin")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="jsonl to write, one line per caption; - for stdout")],
    recipe: Annotated[str, typer.Option("-r", "--recipe", help="a shipped recipe's name or a YAML file")] = "oppovl",
    stage: Annotated[list[str] | None, typer.Option(help="run this stage only; repeatable, in this order")] = None,
    sets: Sets = None,
    option: Annotated[list[str] | None, typer.Option("--input", help="caption=COLUMN")] = None,
) -> None:
    """Try the text stages on captions alone.

    Results and spans, one line per caption.
    """
    from . import terminal
    from .recipe import load
    from .text import chosen_stages, run_text

    told = run_text(source, out, chosen_stages(load(recipe, sets or []), stage or []), caption_column(option))
    terminal.err.print(
        f"{told['inputs']} captions = {told['kept']} kept + {told['dropped']} dropped + {told['failed']} failed"
    )


def lexicon_check(
    lexicon: Annotated[list[str], typer.Argument(metavar="FILE...", help=".txt, .csv or .yaml; or default")],
    sample: Annotated[
        str, typer.Option(help="captions (jsonl, csv, tsv, txt, parquet) to report each entry's hit rate on")
    ] = "",
    option: Annotated[list[str] | None, typer.Option("--input", help="caption=COLUMN, for the sample")] = None,
    as_json: AsJson = False,
) -> None:
    """Lint lexicons that are used together: 0 no errors, 1 errors found, 3 a file cannot be read."""
    from . import terminal
    from .lexicons import check, shown

    told = check(lexicon, sample, caption_column(option))
    if as_json:
        terminal.print_json(told)
    else:
        for part in shown(told):
            terminal.out.print(part, markup=False) if isinstance(part, str) else terminal.out.print(part)
    if told["levels"].get("error"):
        raise typer.Exit(1)


def _lexicon() -> None:
    """Lexicons of sensitive words."""


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(text)
    lexicons = typer.Typer(help="Lexicons of sensitive words.", no_args_is_help=True, rich_markup_mode=None)
    lexicons.callback()(_lexicon)
    lexicons.command("check")(lexicon_check)
    app.add_typer(lexicons, name="lexicon")
