"""The `curate` command. Every command is a thin layer over a function that can be called from Python."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from .cli_value import add as add_value
from .errors import InputError, TuwenError, UsageError

app = typer.Typer(
    name="curate",
    help="Build Chinese image-text datasets and see why every pair was kept or lost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[str, typer.Option("-o", "--out", help="the run directory to write (local or any fsspec URL)")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="change one field: stage.field=value; repeatable")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead of a table")]
Run = Annotated[str, typer.Argument(help="a run directory")]
Workers = Annotated[int, typer.Option("--workers", "-j", help="local processes; 0 means all cores")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tuwen {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Exit codes: 0 done, 1 the run failed, 2 wrong usage or recipe, 3 an input cannot be read."""


@app.command()
def sample(
    directory: Annotated[Path, typer.Argument(help="folder to write the sample crawl to")],
    seed: Annotated[int, typer.Option(help="another seed gives another crawl of the same kind")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the sample crawl: pages, images, URL list, WARC and the labels of the faults planted in it."""
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


@app.command(context_settings={"allow_extra_args": True})
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
    as_json: AsJson = False,
) -> None:
    """Read pairs, filter, score, deduplicate and write shards, ledger and report to OUT."""
    from . import engine, files, terminal
    from .recipe import load, with_removed

    given, beam_args = _split(inputs, context.args)
    changes = [*(sets or []), *([f"score.scorer={scorer}"] if scorer else [])]
    chosen = load(recipe, changes)
    lists = [*(removed or []), *([out] if files.exists(files.join(out, "removed.parquet")) else [])]
    if lists:
        chosen = with_removed(chosen, lists)
    reading = _options(option or [])
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
        config, chosen = _served(config, chosen, stack)
        report = stack.enter_context(terminal.progress(quiet=as_json))
        told = engine.run(config, chosen, report)
    _close(out, told, as_json)


@app.command()
def replay(
    run: Run,
    out: Out,
    sets: Sets = None,
    recipe: Annotated[str | None, typer.Option("-r", "--recipe", help="another recipe over the same measures")] = None,
    workers: Workers = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier replay left in OUT")] = False,
    as_json: AsJson = False,
) -> None:
    """Decide again from a run's ledger with other thresholds; no model runs."""
    from . import engine, terminal
    from . import replay as replaying
    from .recipe import load

    config = engine.RunConfig(inputs=(), out=out, workers=workers, fresh=fresh)
    with terminal.progress(quiet=as_json) as report:
        told = replaying.replay(run, sets or [], config, load(recipe, sets or []) if recipe else None, report)
    _close(out, told, as_json)


@app.command()
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
    """Find a threshold for a scorer on this data: true pairs against shuffled ones."""
    from . import calibrate as calibrating
    from . import engine, terminal
    from .recipe import load

    if len(inputs) == 1 and calibrating.is_run(inputs[0]):
        gathered = calibrating.from_run(inputs[0], scorer, pairs, seed)
    else:
        with ExitStack() as stack:
            config = engine.RunConfig(inputs=tuple(inputs), out="", input_options=_options(option or []))
            config, chosen = _served(config, load(recipe, sets or []), stack)
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


@app.command("export-scorer")
def export_scorer(
    scorer: Annotated[str, typer.Argument(help="embedded, an open_clip NAME/WEIGHTS, or a folder")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write; give it to --scorer afterwards")],
    as_json: AsJson = False,
) -> None:
    """Write a scorer as ONNX files, which run without torch, and compare their scores with its own."""
    from ..scoring.export_scorer import export_scorer as exporting
    from . import terminal

    told = exporting(scorer, out)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"wrote {out}; scores differ by at most {told['difference']:.1e}", markup=False)


@app.command()
def crawl(
    seeds: Annotated[list[str], typer.Argument(metavar="SEED...", help="addresses to begin at")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for the WARC files")],
    contact: Annotated[str, typer.Option(help="mail address or URL by which sites reach you; sent as user agent")],
    host: Annotated[
        list[str] | None, typer.Option(help="hosts to stay on, e.g. '*.example.cn'; the seeds' by default")
    ] = None,
    path: Annotated[str, typer.Option(help="regular expression that paths must match from their start")] = "",
    language: Annotated[str, typer.Option(help="zh: Chinese pages only; empty: all")] = "zh",
    pages: Annotated[int, typer.Option(help="most pages")] = 10_000,
    depth: Annotated[int, typer.Option(help="most links from a seed")] = 10,
    gigabytes: Annotated[float, typer.Option(help="most gigabytes of WARC")] = 10,
    hours: Annotated[float, typer.Option(help="most hours")] = 24,
    delay: Annotated[float, typer.Option(help="seconds between requests to a host; more where it answers slowly")] = 1,
    per_host: Annotated[int, typer.Option(help="requests to a host at once")] = 2,
    ignore_opt_out: Annotated[
        bool, typer.Option("--ignore-opt-out", help="archive pages that reserve themselves (noai, TDM) as well")
    ] = False,
    allow_private: Annotated[bool, typer.Option("--allow-private", help="crawl private addresses (intranets)")] = False,
    resolve: Annotated[
        list[str] | None, typer.Option(help="HOST=ADDRESS: connect there for that host, as curl's --resolve")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Crawl politely into WARC files; the same command goes on with a crawl that was interrupted."""
    from . import terminal
    from .crawl.job import CrawlOptions
    from .crawl.job import crawl as crawling

    fixed = {name: at for name, _, at in (pair.partition("=") for pair in resolve or [])}
    if "" in fixed.values():
        raise UsageError("--resolve: expected HOST=ADDRESS, e.g. --resolve www.example.cn=10.0.0.7")
    options = CrawlOptions(
        seeds=tuple(seeds),
        contact=contact,
        hosts=tuple(host or ()),
        path=path,
        language=language,
        pages=pages,
        depth=depth,
        bytes=int(gigabytes * 2**30),
        seconds=max(1, int(hours * 3600)),
        delay=delay,
        per_host=per_host,
        honour_opt_out=not ignore_opt_out,
        allow_private=allow_private,
        resolve=fixed,
    )
    told = crawling(options, out)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"{told['pages']} pages ({told['new']} new), {told['bytes']:,} bytes; ended: {told['ended']}")
    for what, n in told["counts"].items():
        terminal.out.print(f"  {what} {n}", markup=False)
    terminal.out.print(f"next: curate run {out} -o {out}-run", markup=False)


@app.command()
def retry(run: Run, sets: Sets = None, workers: Workers = 0, as_json: AsJson = False) -> None:
    """Fetch again what failed for a cause that may have passed, and add what comes to the run."""
    from . import amend, terminal
    from . import retry as retrying
    from .recipe import from_description

    told = amend.run_json(run)
    recipe = from_description(told["recipe"], sets or [])
    with ExitStack() as stack:
        recipe = _served_again(told, recipe, stack)
        told = retrying.retry(run, recipe, workers or os.cpu_count() or 1)
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(f"{told['retried']} pairs fetched again, {told['came']} of them kept now")
    _close(run, told, as_json)


@app.command()
def remove(
    run: Run,
    urls: Annotated[Path | None, typer.Option(help="file of image URLs, one a line")] = None,
    keys: Annotated[Path | None, typer.Option(help="file of keys, one a line")] = None,
    sha256: Annotated[Path | None, typer.Option(help="file of SHA-256 of images as received, one a line")] = None,
    as_json: AsJson = False,
) -> None:
    """Take samples out of a run's shards and ledger (a takedown), and remember it for later runs."""
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
    _close(run, told, as_json)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is no file; expected a text file with one name a line")
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


@app.command()
def report(run: Run, as_json: AsJson = False) -> None:
    """Write the report page again and print the funnel."""
    from ..export.report import write_report
    from . import amend

    told = amend.run_json(run)
    write_report(run)
    _close(run, told, as_json)


@app.command()
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
    """Try the text stages on captions alone: results and spans, one line per caption."""
    from . import terminal
    from .recipe import load
    from .text import chosen_stages, run_text

    told = run_text(source, out, chosen_stages(load(recipe, sets or []), stage or []), _caption_column(option))
    terminal.err.print(
        f"{told['inputs']} captions = {told['kept']} kept + {told['dropped']} dropped + {told['failed']} failed"
    )


lexicons = typer.Typer(help="Lexicons of sensitive words.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lexicons, name="lexicon")


@lexicons.callback()
def _lexicon() -> None:
    """Lexicons of sensitive words."""


@lexicons.command("check")
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

    told = check(lexicon, sample, _caption_column(option))
    if as_json:
        terminal.print_json(told)
    else:
        for part in shown(told):
            terminal.out.print(part, markup=False) if isinstance(part, str) else terminal.out.print(part)
    if told["levels"].get("error"):
        raise typer.Exit(1)


@app.command()
def why(run: Run, key: Annotated[str, typer.Argument(help="a pair's key, or its first digits")]) -> None:
    """One pair's whole story, from its source to its shard."""
    from . import terminal
    from .why import story

    terminal.out.print(story(run, key), markup=False)


@app.command()
def stages(
    name: Annotated[str | None, typer.Argument(help="one stage, with its fields")] = None, as_json: AsJson = False
) -> None:
    """Every stage, or one with its fields, units, defaults and reasons."""
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


add_value(app)


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


def _split(inputs: list[str], extra: list[str]) -> tuple[list[str], list[str]]:
    """Inputs and Beam's own options, which follow `--`."""
    words = [*inputs, *extra]
    first = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
    if first == 0:
        raise UsageError("no INPUT given before the Beam options")
    return words[:first], words[first:]


def _options(pairs: list[str]) -> dict[str, str]:
    held = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--input {pair!r}: expected name=value, e.g. --input caption=title")
        held[name] = value
    return held


def _caption_column(pairs: list[str] | None) -> str:
    """The caption column that was named, if one was."""
    given = _options(pairs or [])
    if unknown := sorted(set(given) - {"caption"}):
        raise UsageError(f"--input {', '.join(unknown)}: only caption=COLUMN is known here")
    return given.get("caption", "")


def _served(config: Any, recipe: Any, stack: ExitStack) -> tuple[Any, Any]:
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


def _served_again(told: dict[str, Any], recipe: Any, stack: ExitStack) -> Any:
    """The recipe for a run on a sample crawl, with the sample's server up again; any other as it is."""
    from .engine import RunConfig

    folder = Path(told["inputs"][0]).parent
    if len(told["inputs"]) != 1 or not (folder / "sample.json").is_file():
        return recipe
    return _served(RunConfig((str(folder),), ""), recipe, stack)[1]


def _close(out: str, told: dict[str, Any], as_json: bool) -> None:
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


if __name__ == "__main__":
    main()
