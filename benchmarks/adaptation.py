"""What adapting a light model to a device without back-propagation there is worth, on the sample world.

    python benchmarks/adaptation.py devices  [--kind image|video] [--seeds 3] [--work DIR] [--content-only]
    python benchmarks/adaptation.py anchors  [--kind …] [--seeds 3] [--work DIR]
    python benchmarks/adaptation.py exchange [--kind …] [--work DIR]
    python benchmarks/adaptation.py domain   [--seeds 3] [--work DIR]

``devices``: unseen devices (other samples, mixtures and cameras than any that was learned from) without adaptation,
adapted from 16 anchor frames, with labelled fine-tuning on the device (part, rate and steps chosen on validation
devices), one model for all, another device's parameters (control), and without the device's camera (ceiling).
``anchors``: the same adaptation by policy and number of anchors. ``exchange``: the real client and server on loopback,
bytes and seconds, then every planted fault. ``domain``: LoRA, replay and learning without forgetting on a retrieval
model. Every seed draws its own scenes, trains its own models and its own devices. Intervals (95 %) are bootstraps over
all devices of all seeds, paired where differences are shown. A line is INVALID where labelled fine-tuning gains less
than 2 points or its interval reaches zero: there is no gain to recover. ``--work`` keeps what was made, so that a run
that was broken off goes on, and ``anchors`` and ``exchange`` take the models of ``devices``. Times are of one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuwen.sample_data.clips import write_clip_shards
from tuwen.sample_data.faulty_cloud import FAULTS, MENDS, UPLOADS, FaultyCloud, upload
from tuwen.sample_data.shards import write_shards
from tuwen.trainers import bootstrap
from tuwen.trainers.adaptation import samples, study
from tuwen.trainers.adaptation.client import Limits
from tuwen.trainers.adaptation.cloud import CloudConfig
from tuwen.trainers.adaptation.device import DeviceModel
from tuwen.trainers.adaptation.devices import DevicesConfig
from tuwen.trainers.adaptation.exchange import pack_features
from tuwen.trainers.adaptation.export import export
from tuwen.trainers.adaptation.learn import BaseConfig
from tuwen.trainers.adaptation.light import LightConfig
from tuwen.trainers.adaptation.rivals import RivalsConfig
from tuwen.trainers.adaptation.server import AdaptServer, load, of_folder, serving
from tuwen.trainers.adaptation.study import Made, Parts
from tuwen.trainers.shards import find

LEAST_GAIN = 0.02
"""Of labelled fine-tuning, below which there is nothing to recover."""
SIZES = {"image": (5000, 1600), "video": (1800, 1000)}
"""Samples to learn from, and held out."""
_IMAGE = Parts(
    model=LightConfig(side=24),
    base=BaseConfig(steps=400),
    devices=DevicesConfig(train=256, validation=2, test=8),
    cloud=CloudConfig(steps=1200, batch=8),
    rivals=RivalsConfig(steps=(15, 40, 80), batch=16),
)
PARTS = {
    "image": _IMAGE,
    "video": replace(_IMAGE, base=BaseConfig(steps=400, batch=96), cloud=CloudConfig(steps=600, batch=8)),
}
"""Smaller than the defaults: minutes a seed on one core."""
FRAMES = 4


def clips_of(kind: str, seed: int, work: Path, side: int) -> tuple[samples.Clips, samples.Clips]:
    """Shards of fresh scenes, written once, and what is read of them."""
    folder = work / f"{kind}-{seed}" / "shards"
    made = []
    for split, n, own in zip(("train", "test"), SIZES[kind], (seed, seed + 500), strict=True):
        if not (folder / f"{split}.done").is_file():
            if kind == "image":
                write_shards(folder / split, n, own, split, alone=True)
            else:
                write_clip_shards(folder / split, n, own, split, count=FRAMES)
            (folder / f"{split}.done").touch()
        made.append(samples.read(find([str(folder / split)], split), side, 1 if kind == "image" else FRAMES))
    return made[0], made[1]


def parts_of(given: argparse.Namespace) -> Parts:
    """The settings of a kind of data."""
    parts = PARTS[given.kind]
    if given.content_only:
        parts = replace(parts, devices=replace(parts.devices, hue=0.0, gains=0.0, gamma=0.0))
    return parts


def made_of(given: argparse.Namespace, seed: int, work: Path) -> tuple[Made, samples.Clips]:
    """The models of one seed, trained once."""
    parts = parts_of(given)
    train, test = clips_of(given.kind, seed, work, parts.model.side)
    keep = work / f"{given.kind}-{seed}" / ("content" if given.content_only else "models")
    started = time.process_time()
    if given.content_only:  # the base is the same: it is trained without cameras
        base = work / f"{given.kind}-{seed}" / "models" / "base.safetensors"
        if base.is_file() and not (keep / base.name).is_file():
            keep.mkdir(parents=True, exist_ok=True)
            (keep / base.name).write_bytes(base.read_bytes())
    made = study.build(train, test, parts, seed, None, keep)
    print(f"seed {seed}: models ready, {time.process_time() - started:.0f} CPU s", file=sys.stderr, flush=True)
    return made, train


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` gave once, as JSON."""
    if not path.is_file():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), "utf-8")
    return json.loads(path.read_text("utf-8"))


def devices(given: argparse.Namespace, work: Path) -> None:
    """Adaptation beside its rivals."""
    parts = parts_of(given)
    found = []
    for seed in seeds(given):
        name = f"{given.kind}-{seed}-devices{'-content' * given.content_only}.json"

        def compare(seed: int = seed) -> Any:
            made, _ = made_of(given, seed, work)
            return {**study.compare(made, parts, seed), "policy": made.policy}

        found.append(kept(work / name, compare))
    told = f"{given.kind}: {len(found)} seeds of {parts.devices.test} unseen devices of {parts.devices.photos} samples"
    print(
        f"{told}, galleries of {parts.devices.gallery}" + ("; content alone, no cameras" if given.content_only else "")
    )
    print(f"anchors: {parts.cloud.anchors}, picked {', '.join(one['policy'] for one in found)}\n")
    for name in found[0]["rows"]["adapted"][0]:
        table(name, found, "rows", ("none", "adapted", "labelled", "another device's", "one for all", "no camera"))
        verdict(name, found)
        beyond = found[0]["beyond"]
        if beyond:
            print("  cameras beyond those learned from")
            table(name, found, "beyond", tuple(beyond))
        for one in found[:1]:
            for what, cost in one["costs"].items():
                if what.endswith(name):
                    print(f"  fine-tuning ({what}): {cost['backward_passes']} backward passes at {cost['rate']}, "
                          f"{cost['seconds']:.2f} s a device")  # fmt: skip
        print()


def column(found: list[Any], table: str, row: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A measure of all devices of all seeds."""
    return np.array([device[name] for one in found for device in one[table].get(row, ()) if name in device])


def table(name: str, found: list[Any], which: str, first: tuple[str, ...]) -> None:
    """Means with intervals, and the differences from none."""
    rows = [*first, *(r for r in found[0][which] if r not in first)]
    none = column(found, which, "none", name)
    print(f"  {name:22s}{'mean and 95 %':>26s}{'less none':>28s}")
    for row in rows:
        values = column(found, which, row, name)
        if len(values):
            less = f"{bootstrap.mean(values - none)}" if row not in ("none", "blind") else ""
            print(f"  {row:22s}{bootstrap.mean(values)!s:>26s}{less:>28s}")


def verdict(name: str, found: list[Any]) -> None:
    """Which share of labelled fine-tuning's gain adaptation has, and whether another device's parameters help."""
    none, labelled, adapted, other = (
        column(found, "rows", row, name) for row in ("none", "labelled", "adapted", "another device's")
    )
    gain = bootstrap.mean(labelled - none)
    if gain.value < LEAST_GAIN or gain.low <= 0:
        print(f"  INVALID: labelled fine-tuning gains {gain}; there is nothing to recover")
        return
    drawn = bootstrap.draws(len(none))
    share = (adapted - none).mean() / (labelled - none).mean()
    spread = np.percentile((drawn @ (adapted - none)) / (drawn @ (labelled - none)), (2.5, 97.5))
    wrong = bootstrap.mean(other - none)
    said = "yes" if spread[0] >= 0.8 else "by its mean" if share >= 0.8 else "no"
    print(f"  share of the labelled gain: {share:.2f} ({spread[0]:.2f} to {spread[1]:.2f}); at least 0.8: {said}")
    said = "yes" if wrong.low <= 0 else "no"
    print(f"  another device's parameters do no better than none ({wrong}): {said}")


def anchors(given: argparse.Namespace, work: Path) -> None:
    """Accuracy against bytes uploaded, by policy."""
    parts = parts_of(given)
    found, errors = [], []
    for seed in seeds(given):

        def measure(seed: int = seed) -> Any:
            made, _ = made_of(given, seed, work)
            return {"table": study.anchors(made, parts), "errors": study.reasoned(made, parts), "policy": made.policy}

        one = kept(work / f"{given.kind}-{seed}-anchors.json", measure)
        found.append(one["table"])
        errors.append(one["errors"])
        print(f"seed {seed}: validation devices chose {one['policy']}")
    ks = [*found[0]["uniform"]]
    for name in found[0]["all"]["0"][0]:
        print(f"\n  {name}, by anchors (bytes of features)")
        print(f"  {'':10s}" + "".join(f"{f'{k} ({int(k) * parts.cloud.features})':>12s}" for k in ks))
        for policy in ("learned", "uniform", "random", "herding"):
            means = [np.mean([d[name] for one in found for d in one[policy][k]]) for k in ks]
            print(f"  {policy:10s}" + "".join(f"{m:12.3f}" for m in means))
        every = np.mean([d[name] for one in found for d in one["all"]["0"]])
        print(f"  all frames {every:.3f}")
        for rival in ("uniform", "random", "herding"):
            each, clusters = [], []
            for number, one in enumerate(found):
                for k in ks:
                    for at, (own, other) in enumerate(zip(one["learned"][k], one[rival][k], strict=True)):
                        each.append(own[name] - other[name])
                        clusters.append(1000 * number + at)
            print(f"  learned less {rival}, all numbers: {bootstrap.mean(np.array(each), np.array(clusters))}")
    print("\n  root mean square error of the moments of all frames' features")
    names = [*errors[0][ks[0]]]
    print(f"  {'':24s}" + "".join(f"{k:>10s}" for k in ks))
    for name in names:
        print(f"  {name:24s}" + "".join(f"{np.mean([e[k][name] for e in errors]):10.4f}" for k in ks))


def exchange(given: argparse.Namespace, work: Path) -> None:
    """Bytes, seconds, and every planted fault."""
    parts, seed = parts_of(given), given.first
    made, train = made_of(given, seed, work)
    folder = work / f"{given.kind}-{seed}" / "exported"
    export(made.light, made.trained, made.world.words, folder, made.policy, parts.cloud.anchors, made.largest)
    world = made.world
    with tempfile.TemporaryDirectory() as state, serving(of_folder(folder / "cloud")) as server:
        model = DeviceModel(folder / "device", Path(state))
        rows = []
        for device in world.unseen:
            rows.append(model.adapt(frames_of(world.test.clips, device), server.url))
        n = len(frames_of(world.test.clips, world.unseen[0]))
        sent = max(r.sent for r in rows)
        every = n * train.bytes
        seconds = [r.feature_seconds + r.exchange_seconds for r in rows]
        print(f"{len(rows)} devices of {n} frames, {rows[0].anchors} anchors, model of {model.static.size} parameters")
        limits = ("at most 4,096", sent <= 4096), ("at most 5 %", sent <= every * 0.05)
        held = ", ".join(f"{words}: {'yes' if right else 'no'}" for words, right in limits)
        print(f"up: {sent} bytes with headers, {sent / every:.2%} of the {every:,} of all frames ({held})")
        passed = np.median([r.exchange_seconds for r in rows])
        print(f"down: {max(r.received for r in rows)} bytes; backward passes on the device: 0")
        print(f"device: {np.median(seconds):.3f} s, of which the exchange {passed:.3f} s")
    faults(folder, frames_of(world.test.clips, world.unseen[0]))


def frames_of(clips: samples.Clips, device: Any) -> Any:
    """A device's roll as it would take it: uint8 through its camera."""
    pixels = device.camera(clips.frames[torch.from_numpy(device.photos)]).flatten(0, 1)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def faults(folder: Path, frames: Any) -> None:
    """Every planted fault of the cloud, then of the upload."""
    generate, told = load(folder / "cloud")
    limits = Limits(seconds=1.5, pause=0.1)
    given = (generate, told["model"], told["features"], told["anchors"])
    print(f"\ncloud's fault (a device's limit: {limits.seconds} s)   seconds tries  model after  answers  reason")
    good = 0
    for fault, words in FAULTS.items():
        with tempfile.TemporaryDirectory() as state, serving(FaultyCloud(fault, *given, seconds=4.0)) as server:
            model = DeviceModel(folder / "device", Path(state))
            started = time.monotonic()
            one = model.adapt(frames, server.url, limits)
            passed = time.monotonic() - started
            works = bool(np.isfinite(model.clips(frames[None, : model.told["frames"]])).all())
            right = one.working == ("adapted" if fault in MENDS else "static") and works and passed < 2 * limits.seconds
            good += right
            print(f"{fault:14s} {words[:34]:34s}{passed:8.2f} {server.asked:5d}  {one.working:11s}  "
                  f"{'yes' if works else 'NO':7s}  {one.reason[:60]}{'' if right else '   WRONG'}")  # fmt: skip
    print(f"{good} of {len(FAULTS)} as they should be")
    good = 0
    print("\nupload's fault           wanted  got  seconds (the server's limit: 1 s)   next device served")
    anchors = np.zeros((told["anchors"], told["features"]), np.float32)
    with serving(AdaptServer(*given, seconds=1.0)) as server, tempfile.TemporaryDirectory() as state:
        for name, (wanted, _) in UPLOADS.items():
            status, seconds = upload(server, name, pack_features(anchors))
            model = DeviceModel(folder / "device", Path(state))
            model.forget()
            after = model.adapt(frames, server.url).working
            right = status == wanted and seconds < 2 and after == "adapted"
            good += right
            print(f"{name:24s} {wanted:6d} {status:4d} {seconds:8.3f} {after:>38s}{'' if right else '   WRONG'}")
    print(f"{good} of {len(UPLOADS)} as they should be")


def seeds(given: argparse.Namespace) -> Iterator[int]:
    """Numbers of the runs."""
    yield from range(given.first, given.first + given.seeds)


@contextmanager
def place(work: Path | None) -> Iterator[Path]:
    """The folder to work in; a temporary one where none was named."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> None:
    """Command line."""
    from adaptation_domain import domain

    commands = {"devices": devices, "anchors": anchors, "exchange": exchange, "domain": domain}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=commands)
    parser.add_argument("--kind", choices=("image", "video"), default="image")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=7100, help="the first seed")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--content-only", action="store_true", help="devices differ in content alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with place(given.work) as work:
        names = ("torch", "onnxruntime", "numpy")
        print(f"{platform.machine()}, one thread, Python {platform.python_version()}, "
              + ", ".join(f"{n} {version(n)}" for n in names)
              + f"; seeds {', '.join(map(str, seeds(given)))}")  # fmt: skip
        commands[given.command](given, work)


if __name__ == "__main__":
    main()
