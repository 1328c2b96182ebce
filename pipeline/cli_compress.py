"""``curate train compression``: a trained model made to fit a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def compression(
    model: Annotated[str, typer.Argument(help="folder of a trained model: open_clip's format, or network.json")],
    shards: Annotated[
        list[str], typer.Argument(metavar="SHARDS...", help="tars, patterns like 'a-{000..009}.tar', folders, runs")
    ],
    target: Annotated[
        list[str],
        typer.Option(help="latency_ms=2.5,size_mb=0.5x: at most; x is a share of the uncompressed model; repeatable"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write: ONNX, network, report")],
    tower: Annotated[str, typer.Option(help="of a dual stream: image or text")] = "image",
    held: Annotated[
        list[str] | None, typer.Option(help="shards to measure quality on [default: the last of SHARDS, kept apart]")
    ] = None,
    device: Annotated[str, typer.Option(help="local, or the address of an agent: http://HOST:PORT")] = "",
    config: Annotated[Path | None, typer.Option(help="YAML with sections compress, data, measure")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="change one field: compress.steps=4000; repeatable")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads for training; 0: as torch likes")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")] = False,
) -> None:
    """Compress a trained model to a measured latency, size, memory, FLOPs or energy."""
    import torch

    from ..trainers.compression.train import train as training
    from . import terminal

    if threads:
        torch.set_num_threads(threads)
    changes = [*([f"measure.device={device}"] if device else []), *(sets or [])]
    told = training(model, shards, out, target, tower, held or [], config, changes, None if as_json else _line)
    if as_json:
        terminal.print_json(told)
        return
    quality = told["quality"]
    terminal.out.print(
        f"{told['metric']} {quality['uncompressed']:.4g} to {quality['compressed']:.4g} ({told['quality_on']})",
        markup=False,
    )
    for name, share in told["shares"].items():
        bound = told["budgets"].get(name)
        aim = "" if bound is None else f", target {bound:.4g} ({told['measured'][name] / bound - 1:+.1%})"
        line = f"{name} {told['reference'][name]:.4g} to {told['measured'][name]:.4g} ({share:.3f}){aim}"
        terminal.out.print(line, markup=False)
    terminal.out.print(f"masked and cut network differ by {told['masked_difference']:.1e} at most", markup=False)
    terminal.out.print(f"model: {out}/onnx   report: {out}/report.html", markup=False)


def _line(record: dict[str, Any]) -> None:
    from . import terminal

    if "note" in record:
        terminal.err.print(record["note"], markup=False)
        return
    shown = (f"{k} {v:.4g}" for k, v in record.items() if k != "step" and not k.startswith("predicted"))
    terminal.err.print(f"step {record['step']}  {'  '.join(shown)}", markup=False)
