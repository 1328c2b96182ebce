"""What the commands share: their options, the sample's server, the closing funnel."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UsageError

Out = Annotated[str, typer.Option("-o", "--out", help="the run directory to write (local or any fsspec URL)")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="change one field: stage.field=value; repeatable")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document; progress as JSON lines")]
Plain = Annotated[bool, typer.Option("--plain", help="progress as lines, not bars (always so without a terminal)")]
Run = Annotated[str, typer.Argument(help="a run directory")]
Workers = Annotated[int, typer.Option("--workers", "-j", help="local processes; 0 means all cores")]


def options(pairs: list[str]) -> dict[str, str]:
    """The name=value pairs of ``--input``."""
    held = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--input {pair!r}: expected name=value, e.g. --input caption=title")
        held[name] = value
    return held


def caption_column(pairs: list[str] | None) -> str:
    """The caption column that was named, if one was."""
    given = options(pairs or [])
    if unknown := sorted(set(given) - {"caption"}):
        raise UsageError(f"--input {', '.join(unknown)}: only caption=COLUMN is known here")
    return given.get("caption", "")


def served(config: Any, recipe: Any, stack: ExitStack) -> tuple[Any, Any]:
    """A sample crawl is served from a local HTTP server for the time of the run, so that the fetch is real."""
    import dataclasses

    marker = Path(config.inputs[0]) / "sample.json"
    if len(config.inputs) != 1 or not marker.is_file():
        return config, recipe
    from ..sample_data.serve import serve

    told = json.loads(marker.read_text("utf-8"))
    port = stack.enter_context(serve(Path(config.inputs[0])))
    hosts = dict.fromkeys(told["served"], f"127.0.0.1:{port}")
    fetching = tuple(s.model_copy(update={"connect_to": hosts}) if s.name == "fetch" else s for s in recipe.stages)
    page_input = str(Path(config.inputs[0]) / told["input"])
    return dataclasses.replace(config, inputs=(page_input,)), recipe.model_copy(update={"stages": fetching})


def served_again(told: dict[str, Any], recipe: Any, stack: ExitStack) -> Any:
    """The recipe for a run on a sample crawl, with the sample's server up again; any other as it is."""
    from .engine import RunConfig

    folder = Path(told["inputs"][0]).parent
    if len(told["inputs"]) != 1 or not (folder / "sample.json").is_file():
        return recipe
    return served(RunConfig((str(folder),), ""), recipe, stack)[1]


def close(out: str, told: dict[str, Any], as_json: bool) -> None:
    """The closing funnel, what a reader must know, and where to look next."""
    from ..export.funnel import funnel_table
    from . import terminal

    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(funnel_table(told))
    counts = told["counts"]
    terminal.out.print(
        f"{counts['inputs']} pairs = {counts['kept']} kept + {counts['dropped']} dropped + {counts['failed']} failed; "
        f"{told['shards']['count']} shard{'' if told['shards']['count'] == 1 else 's'}"
    )
    for notice in told["notices"]:
        terminal.out.print(f"note: {notice}", markup=False)
    terminal.out.print(f"report: {out}/report.html   ledger: {out}/ledger/   shards: {out}/shards/", markup=False)
