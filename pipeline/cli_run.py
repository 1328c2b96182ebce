"""Making a run: `curate sample`, `run` and `replay`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson, Out, Plain, Run, Sets, Workers, close, options, served
from .errors import UsageError


def sample(
    directory: Annotated[Path, typer.Argument(help="folder to write the sample crawl to")],
    seed: Annotated[int, typer.Option(help="another seed gives another crawl of the same kind")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the sample crawl, with faults planted in it.

    Pages, images, URL list, WARC, and the labels of the faults.
    """
    from ..sample_data.generate import write_sample
    from . import terminal

    if directory.exists() and any(directory.iterdir()) and not (directory / "sample.json").exists():
        raise UsageError(f"{directory} is not empty and holds no sample; give an empty or new folder")
    told = write_sample(directory, seed=seed)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"wrote a sample crawl to {directory}")
    terminal.out.print(f"next: curate run {directory} -o {directory}-run")


def run(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT... [-- BEAM OPTIONS]", help="WARC, HTML, folder, table, URL list or tar"),
    ],
    out: Out,
    recipe: Annotated[str, typer.Option("-r", "--recipe", help="a shipped recipe's name or a YAML file")] = "oppovl",
    sets: Sets = None,
    scorer: Annotated[str | None, typer.Option(help="same as --set score.scorer=…")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--input", help="how to read the input: caption=COLUMN, image=COLUMN, …")
    ] = None,
    workers: Workers = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier run left in OUT")] = False,
    measure_all: Annotated[
        bool, typer.Option("--measure-all", help="measure dropped pairs too, so that replay may loosen thresholds")
    ] = False,
    removed: Annotated[
        list[str] | None,
        typer.Option("--removed", help="a run that `curate remove` was used on; what it took out stays out"),
    ] = None,
    fetch_with: Annotated[
        str,
        typer.Option(help="img2dataset, or the path of its executable or Python: it fetches instead of the recipe"),
    ] = "",
    index: Annotated[
        str, typer.Option("--add-to-index", help="directory of signatures that later runs are checked against")
    ] = "",
    spread_above: Annotated[
        int, typer.Option(min=0, help="pairs above which a cluster compares them with one another, not this process")
    ] = 1_000_000,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Read pairs, filter them, write shards, ledger and report.

    The same command goes on with a run that was interrupted.
    """
    from . import engine, files, terminal
    from .recipe import load, with_removed

    given, beam_args = _split(inputs, context.args)
    changes = [*(sets or []), *([f"score.scorer={scorer}"] if scorer else [])]
    chosen = load(recipe, changes)
    lists = [*(removed or []), *([out] if files.exists(files.join(out, "removed.parquet")) else [])]
    if lists:
        chosen = with_removed(chosen, lists)
    reading = options(option or [])
    if fetch_with:
        from .fetch_with import fetch_with as fetching

        given, reading = [fetching(fetch_with, given, reading, out, workers)], {}
    config = engine.RunConfig(
        inputs=tuple(given),
        out=out,
        workers=workers,
        beam_args=tuple(beam_args),
        fresh=fresh,
        dropped_too=measure_all,
        index=index,
        spread_above=spread_above,
        input_options=reading,
    )
    with ExitStack() as stack:
        config, chosen = served(config, chosen, stack)
        report = stack.enter_context(terminal.progress(as_json, plain))
        told = engine.run(config, chosen, report)
    close(out, told, as_json)


def replay(
    run: Run,
    out: Out,
    sets: Sets = None,
    recipe: Annotated[str | None, typer.Option("-r", "--recipe", help="another recipe over the same measures")] = None,
    workers: Workers = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier replay left in OUT")] = False,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Decide again with other thresholds; no model runs.

    From the measures in a run's ledger.
    """
    from . import engine, terminal
    from . import replay as replaying
    from .recipe import load

    config = engine.RunConfig(inputs=(), out=out, workers=workers, fresh=fresh)
    with terminal.progress(as_json, plain) as report:
        told = replaying.replay(run, sets or [], config, load(recipe, sets or []) if recipe else None, report)
    close(out, told, as_json)


def _split(inputs: list[str], extra: list[str]) -> tuple[list[str], list[str]]:
    """Inputs and Beam's own options, which follow `--`."""
    words = [*inputs, *extra]
    first = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
    if first == 0:
        raise UsageError("no INPUT given before the Beam options")
    return words[:first], words[first:]


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(sample)
    app.command(context_settings={"allow_extra_args": True})(run)
    app.command()(replay)
