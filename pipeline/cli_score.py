"""Scorers: `curate calibrate` and `export-scorer`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson, Sets, options, served


def calibrate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...|RUN", help="what `curate run` reads, or a finished run")
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="folder for calibration.json and .svg")] = None,
    scorer: Annotated[str | None, typer.Option(help="another scorer than the recipe's or the run's")] = None,
    precision: Annotated[float, typer.Option(help="share of the kept pairs that should match")] = 0.95,
    mismatched: Annotated[float, typer.Option(help="share of mismatched pairs assumed in the data to filter")] = 0.5,
    pairs: Annotated[int, typer.Option(min=20, help="pairs to score, drawn by --seed")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="another seed draws other pairs and other shuffles")] = 0,
    recipe: Annotated[
        str, typer.Option("-r", "--recipe", help="whose stages before the score an INPUT goes through")
    ] = ("oppovl"),
    sets: Sets = None,
    option: Annotated[list[str] | None, typer.Option("--input", help="how to read the input, as for run")] = None,
    as_json: AsJson = False,
) -> None:
    """Find a threshold for a scorer on this data.

    By true pairs against shuffled ones.
    """
    from . import calibrate as calibrating
    from . import engine, terminal
    from .recipe import load

    if len(inputs) == 1 and calibrating.is_run(inputs[0]):
        gathered = calibrating.from_run(inputs[0], scorer, pairs, seed)
    else:
        with ExitStack() as stack:
            config = engine.RunConfig(inputs=tuple(inputs), out="", input_options=options(option or []))
            config, chosen = served(config, load(recipe, sets or []), stack)
            gathered = calibrating.from_input(config.inputs, chosen, scorer, pairs, seed, config.input_options)
    found = calibrating.find(gathered, precision, mismatched, seed)
    if out:
        found.write(out)
    if as_json:
        terminal.print_json(found.describe())
        return
    terminal.out.print(found.summary(), markup=False)
    if out:
        terminal.out.print(f"picture: {out}/calibration.svg   figures: {out}/calibration.json", markup=False)


def export_scorer(
    scorer: Annotated[str, typer.Argument(help="embedded, an open_clip NAME/WEIGHTS, or a folder")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write; give it to --scorer afterwards")],
    as_json: AsJson = False,
) -> None:
    """Write a scorer as ONNX files, which run without torch.

    Their scores are compared with its own.
    """
    from ..scoring.export_scorer import export_scorer as exporting
    from . import terminal

    told = exporting(scorer, out)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"wrote {out}; scores differ by at most {told['difference']:.1e}", markup=False)


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(calibrate)
    app.command("export-scorer")(export_scorer)
