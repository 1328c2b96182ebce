"""``curate train TASK``: the reference trainers, on shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_adapt
from .cli_compress import compression
from .cli_generate import generate, generation

train = typer.Typer(help="Train reference models on shards.", no_args_is_help=True, rich_markup_mode=None)


def add(app: typer.Typer) -> None:
    """Give the command line ``train`` and ``evaluate``."""
    app.add_typer(train, name="train")
    train.command()(generation)
    train.command()(compression)
    app.command()(generate)
    app.command()(evaluate)
    cli_adapt.add(app, train)


@train.callback()
def _train() -> None:
    """Train reference models on shards.

    Also under torchrun: torchrun … -m tuwen.pipeline.cli train ….
    """


@train.command()
def retrieval(
    shards: Annotated[
        list[str], typer.Argument(metavar="SHARDS...", help="tars, patterns like 'a-{000..009}.tar', folders, runs")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write: model, log, curves, checkpoints")],
    config: Annotated[Path | None, typer.Option(help="YAML with sections model, data, train")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="change one field: train.steps=2000, data.batch=512; repeatable")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of this process; 0: as torch likes")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier training left in OUT")] = False,
    student: Annotated[
        str,
        typer.Option(metavar="TEACHER", help="distil this model (embedded, or an open_clip folder) into a small one"),
    ] = "",
    align: Annotated[
        str,
        typer.Option(metavar="ENGLISH", help="give this open_clip folder a Chinese text tower, from parallel captions"),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")] = False,
) -> None:
    """Train an image tower and a Chinese text tower.

    The same command goes on where it was interrupted.
    """
    import torch

    from ..trainers.journal import has_tensorboard
    from ..trainers.train_retrieval import train as training
    from . import terminal

    if threads:
        torch.set_num_threads(threads)
    if student:
        from .cli_search import distilled

        distilled(shards, out, student, config, sets or [], device, fresh, as_json)
        return
    if align:
        from ..trainers.align_towers import train_from_shards

        aligned = train_from_shards(shards, out, align, config, sets or [], device)
        if as_json:
            terminal.print_json(aligned)
        else:
            terminal.out.print(f"loss {aligned['first']:.4f} to {aligned['last']:.4f}; model: {out}", markup=False)
        return
    quiet = as_json or not _first()
    told = training(shards, out, config, sets or [], device, fresh, None if quiet else _line)
    if not _first():
        return
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"trained on {told['pairs_seen']:,} pairs; model: {out}", markup=False)
    terminal.out.print(f"curves: {out}/training.svg   report: {out}/report.html", markup=False)
    if not has_tensorboard():
        terminal.out.print(
            f"TensorBoard is not installed (pip install 'tuwen[tensorboard]'); {out}/train.jsonl has the same figures",
            markup=False,
        )
    terminal.out.print(f"next: curate evaluate {out} SHARDS", markup=False)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="what was trained, or any scorer: embedded, a folder, open_clip NAME/WEIGHTS")
    ],
    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...", help="tars, patterns, folders, runs")],
    split: Annotated[str, typer.Option(help="of folders with SPLIT-*.tar: which")] = "test",
    labels: Annotated[
        Path | None, typer.Option(help="YAML of classes for zero-shot classification: labels, templates, field")
    ] = None,
    train: Annotated[
        list[str] | None, typer.Option(help="the training shards: what they share with these, and their negatives")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="most samples to read; 0: all")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="JSON file to write as well")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="images or captions encoded at once")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of a table")] = False,
) -> None:
    """Measure a model on shards, with 95 % intervals.

    Retrieval, AUC, zero-shot classes, hard negatives.
    """
    import json

    from ..trainers.evaluation import evaluate as evaluating
    from . import terminal

    told = evaluating.evaluate(model, shards, split, labels, train or (), limit, device, batch)
    if out is not None:
        out.write_text(json.dumps(evaluating.plain(told), ensure_ascii=False, indent=1) + "\n", "utf-8")
    if as_json:
        terminal.print_json(evaluating.plain(told))
        return
    for line in evaluating.lines(told):
        terminal.out.print(line, markup=False)


def _first() -> bool:
    """Whether this is the process that prints, under torchrun."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _line(record: dict[str, Any]) -> None:
    from . import terminal

    figures = (f"{k} {v:.4g}" for k, v in record.items() if k not in ("step", "gradient"))
    terminal.err.print(f"step {record['step']}  {'  '.join(figures)}", markup=False)
