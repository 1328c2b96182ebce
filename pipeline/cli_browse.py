"""`curate browse`: a finished run in the browser of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..export.browse.server import Server

USUAL_PORT = 8700


def add(app: typer.Typer) -> None:
    """Put the command into ``app``."""
    app.command()(browse)


def browse(
    run: Annotated[str, typer.Argument(help="a run directory")],
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8700 or any free one by default")] = None,
    host: Annotated[
        str, typer.Option(help="address to serve at; one that others reach needs --with-token")
    ] = "127.0.0.1",
    with_token: Annotated[bool, typer.Option("--with-token", help="ask every visitor for a token")] = False,
    opening: Annotated[bool, typer.Option("--open", help="open the page in your browser")] = False,
    embed: Annotated[
        bool, typer.Option("--embed", help="first make the kept pairs' vectors, where the run kept none")
    ] = False,
) -> None:
    """Search a run by text or picture, and page through it.

    Pages of any reason, stories, lists of keys; on this machine alone. Ctrl-C ends it.
    """
    # A scorer named for open_clip is read from this machine's cache; browsing asks nobody anything.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from ..export.browse.server import Server, new_token
    from . import terminal

    if embed:
        _embed(run)
    token = new_token() if with_token else ""
    server = Server(run, host, port, token) if port is not None else _usual(run, host, token)
    with server:
        terminal.out.print(f"browsing {run} at {server.url}  (Ctrl-C ends it)", markup=False)
        if opening:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            terminal.out.print("ended")


def _usual(run: str, host: str, token: str) -> Server:
    """A server at the usual port, or any free one where that is taken."""
    from ..export.browse.server import PortTaken, Server

    try:
        return Server(run, host, USUAL_PORT, token)
    except PortTaken:
        return Server(run, host, 0, token)


def _embed(run: str) -> None:
    from ..export.browse.service import Browser
    from . import terminal

    browser = Browser(run)
    if browser.about()["meaning"]:
        terminal.err.print(f"{run} has its vectors already", markup=False)
        return
    done = 0
    for done, of in browser.embed():
        terminal.err.print(f"embedding: {done} of {of}")
    terminal.err.print(f"vectors of {done} kept pairs are in {run}/embeddings.parquet", markup=False)
