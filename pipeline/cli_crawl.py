"""`curate crawl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson
from .errors import UsageError


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
    proxy: Annotated[
        str, typer.Option(help="URL of an HTTP proxy; it then resolves names, and only literal addresses are checked")
    ] = "",
    resolve: Annotated[
        list[str] | None, typer.Option(help="HOST=ADDRESS: connect there for that host, as curl's --resolve")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Crawl politely into WARC files.

    The same command goes on with a crawl that was interrupted.
    """
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
        proxy=proxy,
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


def add(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(crawl)
