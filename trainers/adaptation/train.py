"""``curate train adaptation``: shards in; the folders ``device`` and ``cloud`` out, and what they are worth."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...pipeline.errors import UsageError, nearest
from .. import curves, settings
from ..journal import Journal
from ..retrieval import caption_group
from ..shards import find
from . import study
from .cloud import CloudConfig
from .devices import DevicesConfig
from .export import export
from .learn import BaseConfig
from .light import LightConfig
from .measure import mean, rounded
from .pick import POLICIES
from .rivals import RivalsConfig
from .samples import Clips, read, several


@dataclass(frozen=True)
class DataConfig:
    """What is read."""

    most: int = 20_000
    """Samples read at most."""
    held: float = 0.3
    """Share of the samples (by caption, so that equal ones stay together) that the devices for validation and the
    unseen ones are made of, where no --test is given."""


SECTIONS: dict[str, type[Any]] = {
    "model": LightConfig,
    "data": DataConfig,
    "devices": DevicesConfig,
    "base": BaseConfig,
    "cloud": CloudConfig,
    "rivals": RivalsConfig,
}


def train(
    given: Sequence[str],
    out: Path,
    test: Sequence[str] = (),
    config: Path | None = None,
    sets: Sequence[str] = (),
    fresh: bool = False,
    rivals: bool = True,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train on the shards that ``given`` names and write ``out``; the same call goes on with an interrupted one.

    ``rivals`` False leaves out what adaptation is compared with. Returns what was done, for people and programs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("adaptation trains in one process; start it without torchrun")
    parts = settings.read(SECTIONS, config, sets)
    checked(parts)
    data: DataConfig = parts.pop("data")
    chosen = study.Parts(**parts)
    told = {"data": asdict(data), **asdict(chosen)}
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    _same(out, json.loads(json.dumps(told)))
    found = find(given)
    frames = chosen.model.frames or (4 if several(found) else 1)
    clips = read(found, chosen.model.side, frames, data.most)
    if test:
        held = read(find(test, "test"), chosen.model.side, frames, data.most)
    else:
        clips, held = parted(clips, data.held)
    journal = Journal(out / "adaptation.jsonl")

    def noted(record: dict[str, Any]) -> None:
        journal.write(record)
        if tell:
            tell(record)

    made = study.build(clips, held, chosen, chosen.base.seed, noted, out)
    exported = export(made.light, made.trained, made.world.words, out, made.policy, chosen.cloud.anchors, made.largest)
    journal.close()
    facts: dict[str, Any] = {
        "model": str(out),
        "samples": len(clips),
        "held_out": len(held),
        "frames": frames,
        "frame_bytes": clips.bytes,
        "parameters": sum(p.numel() for p in made.light.parameters()),
        "generated": made.light.dynamic,
        "policy": made.policy,
        "onnx_difference": exported["difference"],
        "versions": {n: version(n) for n in ("torch", "onnxruntime", "numpy")}
        | {"tuwen": __version__, "python": sys.version.split()[0]},
    }
    if rivals:
        facts |= summary(study.compare(made, chosen, chosen.base.seed))
    (out / "adaptation.json").write_text(json.dumps({**facts, "settings": told}, indent=1) + "\n", "utf-8")
    shown = {k: v for k, v in facts.items() if k not in ("versions", "costs")} | facts["versions"]
    (out / "report.html").write_text(curves.page(f"Adaptation {out.name}", journal.records, shown, told), "utf-8")
    return facts


def checked(parts: dict[str, Any]) -> None:
    """Settings that fit one another; ``UsageError`` says which do not."""
    model, cloud, devices = parts["model"], parts["cloud"], parts["devices"]
    if model.side % 8 or model.side < 8:
        raise UsageError(f"model.side {model.side}: expected a multiple of 8")
    if model.width % 8:
        raise UsageError(f"model.width {model.width}: expected a multiple of 8 (groups of the normalisation)")
    if cloud.policy not in ("auto", *POLICIES):
        raise UsageError(f"cloud.policy {cloud.policy!r}: {nearest(cloud.policy, ('auto', *POLICIES))}")
    if cloud.anchors * cloud.features > 4096 or cloud.anchors < 1:
        raise UsageError(
            f"cloud.anchors {cloud.anchors} of cloud.features {cloud.features} bytes: expected 1 or more anchors, and "
            "at most 4,096 bytes together"
        )
    if min(devices.train, devices.validation, devices.test) < 2:
        raise UsageError("devices.train, devices.validation and devices.test must be 2 or more")


def parted(clips: Clips, share: float) -> tuple[Clips, Clips]:
    """The samples to learn from, and ``share`` of them, whole groups of equal captions, to measure on."""
    held = np.array([caption_group(c) % 1000 < 1000 * share for c in clips.captions])
    if held.all() or not held.any():
        raise UsageError(f"data.held {share} of {len(clips)} samples leaves one side empty; give --test SHARDS")
    return clips.take(np.flatnonzero(~held).tolist()), clips.take(np.flatnonzero(held).tolist())


def summary(compared: dict[str, Any]) -> dict[str, Any]:
    """Means over devices, and shares recovered, of what ``study.compare`` found."""
    rows = compared["rows"]
    shares = {n: study.recovered(rows, n) for n in rows["adapted"][0]}
    return {
        "measures": {name: rounded(mean(found)) for name, found in rows.items()},
        "beyond": {name: rounded(mean(found)) for name, found in compared["beyond"].items()},
        "recovered": {n: None if np.isnan(s) else round(s, 3) for n, s in shares.items()},
        "costs": compared["costs"],
    }


def _same(out: Path, told: dict[str, Any]) -> None:
    path = out / "settings.json"
    if path.is_file():
        changed = settings.differences(json.loads(path.read_text("utf-8")), told)
        if changed:
            raise UsageError(
                f"{out} holds an adaptation with other settings ({'; '.join(changed)}: there, here). Give the same, "
                "another -o, or --fresh to begin again"
            )
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no adaptation; give an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
