"""``curate train generation``, the text-to-image trainer, and ``curate generate``, which runs what it exported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def generation(
    shards: Annotated[
        list[str], typer.Argument(metavar="SHARDS...", help="tars, patterns like 'a-{000..009}.tar', folders, runs")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write: model, log, curves, samples")],
    stage: Annotated[str, typer.Option(help="base, align, domain, prune, guidance, steps; export, evaluate")],
    start: Annotated[
        str, typer.Option(metavar="MODEL", help="the model that the stage begins with: a folder in diffusers' layout")
    ] = "",
    config: Annotated[
        Path | None, typer.Option(help="YAML with sections data, train, diffusion, and one named as the stage")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="change one field: train.steps=2000, domain.replay=0.5; repeatable"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of this process; 0: as torch likes")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier training left in OUT")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")] = False,
) -> None:
    """Train a text-to-image model, stage by stage; the same command goes on where it was interrupted."""
    import torch

    from ..trainers.generation import evaluate  # tells of the extra where it is missing
    from ..trainers.generation import train as trainer
    from . import terminal
    from .errors import UsageError

    if stage in trainer.LAST and not start:
        raise UsageError(f"stage {stage} needs a model: give --start FOLDER")
    if threads:
        torch.set_num_threads(threads)
    first = os.environ.get("RANK", "0") == "0"
    quiet = as_json or not first
    told = trainer.train(shards, out, stage, start, config, sets or [], device, fresh, None if quiet else _line)
    if not first:
        return
    if as_json:
        terminal.print_json(evaluate.plain(told))
    elif stage == "evaluate":
        for line in evaluate.lines(told):
            terminal.out.print(line, markup=False)
        terminal.out.print(f"samples: {out}/samples.html", markup=False)
    elif stage == "export":
        sizes = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in told["bytes"].items())
        terminal.out.print(f"{sizes}; largest difference from torch {told['difference']:.1e}", markup=False)
        if "int8" in told:
            before, after = told["int8"]["milliseconds"]
            said = "kept" if told["int8"]["kept"] else "not kept"
            terminal.out.print(
                f"int8: {told['int8']['bytes'] / 1e6:.2f} MB, {before:.2f} to {after:.2f} ms a pass, error "
                f"{told['int8']['error']:.4f}: {said}",
                markup=False,
            )
        terminal.out.print(f'next: curate generate {out} "一只红色的猫" -o cat.png', markup=False)
    else:
        for row in told.get("sensitivity", ()):
            terminal.out.print(
                f"without {row['name']:<10} (after {row['after']}): {row['saved']:+.3f} of {row['whole_ms']:.3f} ms, "
                f"error {row['error']:.4f}, {row['parameters']:,} parameters",
                markup=False,
            )
        terminal.out.print(
            f"trained {told['trained']:,} of {told['parameters']:,} parameters on {told['images_seen']:,} images: "
            f"{out}",
            markup=False,
        )
        terminal.out.print(f"samples and curves: {out}/report.html", markup=False)
        terminal.out.print(
            f"next: curate train generation SHARDS --stage evaluate --start {out} -o FIGURES", markup=False
        )


def generate(
    model: Annotated[Path, typer.Argument(help="a folder that the stage export wrote")],
    prompt: Annotated[str, typer.Argument(help="what to draw, as in 一只红色的狐狸在蓝色的湖边")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG file to write")],
    number: Annotated[int, typer.Option("-n", min=1, help="images of the prompt, in one sheet")] = 1,
    steps: Annotated[int, typer.Option(min=0, help="0: as exported")] = 0,
    weight: Annotated[
        float | None, typer.Option(help="of guidance; 0 is none, more follows the prompt closer [default: as exported]")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed gives the same image")] = 0,
    size: Annotated[int, typer.Option(min=0, help="enlarge to at least so many pixels; 0: as made")] = 0,
    threads: Annotated[int, typer.Option("--threads", "-j", min=0, help="0 means all cores")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")] = False,
) -> None:
    """Draw a prompt on this machine's CPU with an exported model; needs neither torch nor a network."""
    import time

    import cv2
    import numpy as np

    from ..trainers.generation.onnx_model import OnnxModel
    from . import terminal
    from .errors import UsageError

    if not prompt.strip():
        raise UsageError("the prompt is empty; say what to draw")
    made = OnnxModel(model, threads)
    started = time.perf_counter()
    images = made.generate([prompt] * number, steps, weight, seed)
    seconds = time.perf_counter() - started
    pixels = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    factor = -(-size // pixels.shape[1]) if size else 1
    sheet = np.concatenate(list(pixels.repeat(factor, 1).repeat(factor, 2)), axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
    assert done
    out.write_bytes(data.tobytes())
    told = {"image": str(out), "seconds": round(seconds, 3), "steps": steps or made.told["steps"], "images": number}
    if as_json:
        terminal.print_json(told)
    else:
        terminal.out.print(f"{out}: {number} in {seconds:.2f} s, {told['steps']} steps", markup=False)


def _line(record: dict[str, Any]) -> None:
    from . import terminal

    figures = (f"{k} {v:.4g}" for k, v in record.items() if k not in ("step", "gradient"))
    terminal.err.print(f"step {record['step']}  {'  '.join(figures)}", markup=False)
