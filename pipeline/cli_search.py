"""`curate search`: photos of a folder by words, offline; and `curate quantise`, which makes a small model for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")]


def search(
    photos: Annotated[Path, typer.Argument(help="a folder of photos; folders in it are searched too")],
    query: Annotated[str, typer.Argument(help="what to look for, as in 红色的花")],
    model: Annotated[
        str, typer.Option(help="a folder of ONNX files (`curate export-scorer`), or any scorer's name or folder")
    ] = "embedded",
    top: Annotated[int, typer.Option(min=1, help="photos to show")] = 20,
    cache: Annotated[
        Path | None, typer.Option(help="folder for index and exported models [default: the index beside the photos]")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="read every photo again, not only those of another size or time")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", "-j", min=0, help="0 means all cores")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search a folder of photos by words, offline.

    Its index follows photos that come, go, move or change.
    """
    from ..trainers.edge.search import search as searching
    from . import terminal

    told = searching(photos, query, model, top, cache, threads or os.cpu_count() or 1, trust_stamps=not check)
    if as_json:
        terminal.print_json(told)
        return
    changes = told["changes"]
    counts = ", ".join(f"{changes[k]} {k}" for k in ("added", "changed", "moved", "removed") if changes[k])
    terminal.err.print(f"{told['photos']} photos" + (f"; {counts}" if counts else ""))
    for problem in changes["problems"]:
        terminal.err.print(f"not searched: {problem['path']}: {problem['problem']}", markup=False)
    for note in told["notes"]:
        terminal.err.print(f"note: {note}", markup=False)
    for result in told["results"]:
        terminal.out.print(f"{result['score']:.3f}  {result['path']}", markup=False)


def quantise(
    source: Annotated[Path, typer.Argument(metavar="ONNX", help="a folder that `curate export-scorer` made")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the folder to write")],
    photos: Annotated[Path, typer.Option(help="a folder of photos like those that it will see")],
    captions: Annotated[Path, typer.Option(help="a text file of captions or queries, one a line")],
    most: Annotated[int, typer.Option(min=16, help="photos, and captions, to calibrate on at most")] = 256,
    as_json: AsJson = False,
) -> None:
    """Make 8-bit integer models of an ONNX scorer.

    About a third of the size, checked against the original.
    """
    from ..trainers.edge.export import quantise as quantising
    from ..trainers.edge.search import pictures
    from . import terminal
    from .errors import InputError

    if not captions.is_file():
        raise InputError(f"{captions} is no file; expected a text file with one caption a line")
    lines = [line.strip() for line in captions.read_text("utf-8").splitlines() if line.strip()]
    told = quantising(source, out, pictures(photos, most), lines[:most])
    if as_json:
        terminal.print_json(told)
        return
    for name, tower in told["towers"].items():
        size = f"{tower['bytes_before'] / 1e6:.1f} MB to {tower['bytes'] / 1e6:.1f} MB"
        terminal.out.print(f"{name}: {size}; mean cosine with the original {tower['cosine']}")
    terminal.out.print(f"wrote {out}", markup=False)


def distilled(
    shards: list[str],
    out: Path,
    teacher: str,
    config: Path | None,
    sets: list[str],
    device: str,
    fresh: bool,
    as_json: bool,
) -> None:
    """`curate train retrieval --student TEACHER`: a student, its ONNX and int8 forms, and what they came to."""
    from ..trainers.edge.make import train_from_shards
    from . import terminal

    told = train_from_shards(shards, out, teacher, config, sets, device, fresh)
    if not told:  # under torchrun the first process prints
        return
    if as_json:
        terminal.print_json(told)
        return
    terminal.out.print(
        f"student of {told['parameters']:,} parameters, {told['share']:.3f} of its teacher's "
        f"{told['teacher']['parameters']:,}: {out}",
        markup=False,
    )
    for name, tower in told["int8"]["towers"].items():
        terminal.out.print(
            f"{out}/int8/{name}: {tower['bytes'] / 1e6:.2f} MB, mean cosine {tower['cosine']}", markup=False
        )
    terminal.out.print(f'next: curate search PHOTOS "红色的花" --model {out}/int8', markup=False)


def add(app: typer.Typer) -> None:
    """Put the commands of this file into ``app``."""
    app.command()(search)
    app.command()(quantise)
