"""``curate train adaptation``, ``curate adapt-serve`` and ``curate adapt``: the trainer, the cloud, the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")]
Shards = Annotated[
    list[str], typer.Argument(metavar="SHARDS...", help="tars, patterns like 'a-{000..009}.tar', folders, runs")
]


def add(app: typer.Typer, train: typer.Typer) -> None:
    """Give ``train`` its task and ``app`` the two sides of the exchange."""
    train.command()(adaptation)
    app.command(name="adapt-serve")(serve)
    app.command()(adapt)


def adaptation(
    shards: Shards,
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write: device, cloud, report")],
    task: Annotated[
        str, typer.Option(help="devices: a light model and its cloud; domain: tune a retrieval model to new shards")
    ] = "devices",
    test: Annotated[
        list[str] | None, typer.Option(help="shards to measure on; without them a share of SHARDS is held out")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="domain: the model, a folder in open_clip's format")] = None,
    replay: Annotated[list[str] | None, typer.Option(help="domain: shards of what the model knew; repeatable")] = None,
    old: Annotated[list[str] | None, typer.Option(help="domain: shards to measure on what is forgotten")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with the task's sections")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="change one field: cloud.steps=2000, devices.hue=0; repeatable")
    ] = None,
    rivals: Annotated[bool, typer.Option(help="devices: measure fine-tuning and other rivals as well")] = True,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of this process; 0: as torch likes")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="delete what an earlier training left in OUT")] = False,
    as_json: AsJson = False,
) -> None:
    """Train what adapts a light model to a device without back-propagation there, or tune a model to a domain."""
    import torch

    from . import terminal
    from .cli_train import _line
    from .errors import UsageError, nearest

    if threads:
        torch.set_num_threads(threads)
    tell = None if as_json else _line
    if task == "domain":
        from ..trainers.adaptation import domain

        if model is None:
            raise UsageError("--task domain tunes a model: give --model FOLDER (what `curate train retrieval` wrote)")
        told = domain.tune(shards, model, out, replay or [], test or [], old or [], config, sets or [], fresh, tell)
        if as_json:
            terminal.print_json(told)
            return
        for line in domain.lines(told):
            terminal.out.print(line, markup=False)
        return
    if task != "devices":
        raise UsageError(f"--task {task!r}: {nearest(task, ('devices', 'domain'))}")
    if model or replay or old:
        raise UsageError("--model, --replay and --old belong to --task domain")
    from ..trainers.adaptation.train import train as training

    told = training(shards, out, test or [], config, sets or [], fresh, rivals, tell)
    if as_json:
        terminal.print_json(told)
        return
    for line in lines(told):
        terminal.out.print(line, markup=False)


def lines(told: dict[str, Any]) -> list[str]:
    """The table of a training."""
    made = [
        f"light model of {told['parameters']:,} parameters, {told['generated']} of them generated; anchors: "
        f"{told['policy']}; folders: {told['model']}/device, {told['model']}/cloud"
    ]
    for title, table in (("unseen devices", told.get("measures")), ("cameras beyond", told.get("beyond"))):
        if table:
            names = [*next(iter(table.values()))]
            made.append(f"{title:18s}" + "".join(f"{n:>12s}" for n in names))
            made += [
                f"  {row:16s}" + "".join(f"{found[n]:12.3f}" if n in found else " " * 12 for n in names)
                for row, found in table.items()
            ]
    for name, share in (told.get("recovered") or {}).items():
        said = "no gain of labelled fine-tuning to hold it against" if share is None else f"{share:.0%}"
        made.append(f"share of labelled fine-tuning's gain, {name}: {said}")
    made.append(f"next: curate adapt-serve {told['model']}/cloud; curate adapt {told['model']}/device PHOTOS URL")
    return made


def serve(
    cloud: Annotated[Path, typer.Argument(help="the folder cloud of `curate train adaptation`")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0 takes a free one")] = 0,
    seconds: Annotated[float, typer.Option(help="longest that one connection may last")] = 10.0,
    at_once: Annotated[int, typer.Option(min=1, help="devices served at once; others are told to wait")] = 8,
) -> None:
    """Serve parameters for devices over HTTP, until Ctrl-C. There is no TLS and no login: put a proxy before it."""
    from ..trainers.adaptation.server import of_folder
    from . import terminal

    server = of_folder(cloud, host=host, port=port, seconds=seconds, at_once=at_once)
    terminal.out.print(f"{server.url} serves model {server.model}; end it with Ctrl-C", markup=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def adapt(
    device: Annotated[Path, typer.Argument(help="the folder device of `curate train adaptation`")],
    photos: Annotated[Path, typer.Argument(help="a folder of photos, or of folders with a clip's frames each")],
    url: Annotated[str, typer.Argument(help="the cloud: what `curate adapt-serve` prints")],
    state: Annotated[Path | None, typer.Option(help="where to keep the parameters [default: DEVICE]")] = None,
    anchors: Annotated[int, typer.Option(min=0, help="frames whose features are uploaded; 0: as trained")] = 0,
    seconds: Annotated[float, typer.Option(help="time for the whole exchange")] = 8.0,
    reset: Annotated[bool, typer.Option("--reset", help="go back to the static model; nothing is uploaded")] = False,
    as_json: AsJson = False,
) -> None:
    """Adapt a device's model to its photos: a few features up, parameters down; on any failure the model stays."""
    from ..trainers.adaptation.client import Limits
    from ..trainers.adaptation.device import DeviceModel
    from ..trainers.adaptation.photos import opened
    from . import terminal

    model = DeviceModel(device, state)
    if reset:
        model.forget()
        terminal.out.print("the static model works")
        return
    frames, passed_over = opened(photos, int(model.told["side"]))
    told = model.adapt(frames, url, Limits(seconds=seconds), anchors)
    if as_json:
        terminal.print_json({**told._asdict(), "frames": len(frames), "passed_over": passed_over, "note": model.note})
        return
    for note in (model.note, f"{passed_over} files did not open" if passed_over else ""):
        if note:
            terminal.err.print(f"note: {note}", markup=False)
    if told.reason:
        terminal.err.print(f"not adapted: {told.reason}", markup=False)
    terminal.out.print(
        f"the {told.working} model works; {told.anchors} of {len(frames)} frames' features, {told.sent} bytes up, "
        f"{told.received} down, {told.feature_seconds + told.exchange_seconds:.2f} s",
        markup=False,
    )
