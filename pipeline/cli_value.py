"""``curate value``: what a run's data is worth, and what each of its stages was."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def add(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(value)


def value(
    run: Annotated[str, typer.Argument(help="a run directory; made with --measure-all for all that can be told")],
    steps: Annotated[int, typer.Option(min=1, help="steps of every training")] = 150,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of every arm; under 3 little can be proven")] = 3,
    batch: Annotated[int, typer.Option(min=2, help="pairs a step")] = 256,
    learning_rate: Annotated[float, typer.Option(help="highest learning rate, the same for every arm")] = 3e-3,
    part: Annotated[
        list[str] | None, typer.Option(help="main, sizes, stages or style; repeatable, all by default")
    ] = None,
    evaluation: Annotated[
        str, typer.Option("--eval", help="evaluate on these pairs (shards, a folder of images) instead of val and test")
    ] = "",
    tie: Annotated[
        list[str] | None, typer.Option(help="image, caption or page: what is held out with a pair; all by default")
    ] = None,
    gallery: Annotated[int, typer.Option(min=50, help="most pairs that are evaluated on")] = 1000,
    truth: Annotated[str, typer.Option(help="labels.jsonl of a sample crawl: adds an oracle and planted shares")] = "",
    threads: Annotated[int, typer.Option(min=1, help="threads of a training; results are those of this number")] = 1,
    workers: Annotated[int, typer.Option("--workers", "-j", min=1, help="processes that train at once")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")] = False,
) -> None:
    """Ask what the data, and each stage, is worth.

    One small model is trained on the run's data in many versions: what did each part of the curation buy?

    Writes value.json and value.html into RUN; trainings already done are not done again.
    """
    from ..trainers.value.points import Budget
    from ..trainers.value.run import study
    from ..trainers.value.split import TIES
    from ..trainers.value.study import PARTS, Options
    from ..trainers.value.tables import tables
    from . import terminal

    budget = Budget(steps, batch, seeds, learning_rate, threads)
    options = Options(budget, tuple(part or PARTS), tuple(tie or TIES), gallery, truth, evaluation)
    with terminal.progress(as_json) as report:
        told: dict[str, Any] = study(run, options, report, workers)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print("\n".join(tables(told)), markup=False)
    terminal.out.print(f"page: {run}/value.html   figures: {run}/value.json", markup=False)
