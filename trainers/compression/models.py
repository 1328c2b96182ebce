"""The models that can be compressed, opened from their folders: towers of open_clip, and networks of units.

A folder of a network holds ``network.json``: its units, and under ``task`` what it is for:

    {"kind": "classify", "field": "concept", "labels": [...], "side": 32, "mean": 0.5, "std": 0.25}
    {"kind": "classify", "field": "concept", "labels": [...], "characters": "...", "length": 24}    reads captions
    {"kind": "restore", "factor": 2, "noise": 0.0, "side": 64}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pipeline.errors import InputError, UsageError, nearest
from ...scoring.export_scorer import export_scorer
from ...scoring.onnx_scorer import read_description
from ...scoring.scorer import fingerprint, model_and_tokenizer
from ..edge.make import teacher_config
from ..edge.search import write_sums
from ..edge.student import Prepare
from ..shards import Shards
from . import dual
from . import network as networks
from .network import DESCRIPTION, Network
from .tasks import Classify, Restore, Retrieval, Run, Task, labels_of

TOWERS = ("image", "text")
IMAGE_SIDE = 32
"""Of images that come with captions which alone are read."""


@dataclass
class Model:
    """``network`` with all branches, to be compressed; ``whole`` the same as it was given."""

    name: str
    network: Network
    whole: Network
    task: Task
    side: int
    described: dict[str, Any]
    source: str = ""
    tower: str = ""

    @property
    def teacher(self) -> Run:
        """What the uncompressed network gives."""

        def run(x: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = self.whole(x)
            return found

        return run

    def write(self, out: Path, model: bytes) -> None:
        """``model`` as the device takes it: alone, or in a scorer's folder beside the other tower."""
        if not self.tower:
            out.mkdir(parents=True)
            (out / "model.onnx").write_bytes(model)
            return
        export_scorer(self.source, out)
        told = read_description(out)
        (out / (told.image if self.tower == "image" else told.text)).write_bytes(model)
        write_sums(out)


def open_model(folder: str, tower: str, found: Sequence[Shards]) -> Model:
    """The model in a folder; ``found`` are the shards whose labels a classifier is taught and measured on."""
    if tower not in TOWERS:
        raise UsageError(f"--tower {tower!r}: {nearest(tower, TOWERS)}")
    path = Path(folder.removeprefix("local-dir:"))
    if (path / DESCRIPTION).is_file():
        network, told = networks.load(path)
        return of_network(network, told, found, path.name)
    return _tower(folder, tower)


def of_network(network: Network, told: Mapping[str, Any], found: Sequence[Shards], name: str = "network") -> Model:
    """A network of units with its task."""
    task = told.get("task") or {}
    kind = task.get("kind")
    made: Task
    try:
        if kind == "restore":
            made = Restore(int(task.get("factor", 2)), float(task.get("noise", 0)))
        elif kind == "classify":
            of = {k: v for one in found for k, v in labels_of(one, task["field"]).items()}
            read = reader(task["characters"], int(task["length"])) if "characters" in task else None
            scale = float(task.get("mean", 0.5)), float(task.get("std", 0.5))
            made = Classify(task["labels"], of, scale, read)
        else:
            raise InputError(f"{DESCRIPTION}: task.kind {kind!r}; {nearest(str(kind), ('classify', 'restore'))}")
        side = int(task.get("side", IMAGE_SIDE))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{DESCRIPTION}: task lacks {error}, or has another type there than is expected") from None
    whole = copy.deepcopy(network)
    whole.drop_unused()
    return Model(name, network, whole.eval(), made, side, dict(told))


def reader(characters: str, length: int) -> Any:
    """Captions to (n, length) ids: 0 is padding, 1 any other character."""
    known = {c: i + 2 for i, c in enumerate(characters)}

    def read(captions: Sequence[str]) -> Tensor:
        rows = [[known.get(c, 1) for c in caption[:length]] for caption in captions]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64)

    return read


def _tower(folder: str, tower: str) -> Model:
    path, told = teacher_config(folder)
    model, _, tokenize = model_and_tokenizer(path, "cpu")
    image, text = model.visual, getattr(model, "text", model)
    network = dual.vision(image) if tower == "image" else dual.text(text)
    preprocess = told.get("preprocess_cfg") or {}
    mean, std = (tuple(preprocess.get(k) or getattr(image, f"image_{k}")) for k in ("mean", "std"))
    other = model.encode_text if tower == "image" else model.encode_image
    task = Retrieval(other, Prepare(mean, std, tokenize), tower, float(model.logit_scale.detach().exp()))
    size = image.image_size
    side = int(size if isinstance(size, int) else size[0])
    whole = copy.deepcopy(network)
    whole.drop_unused()
    described = {"name": path.name, "tower": tower, "source": fingerprint(folder)}
    return Model(path.name, network, whole.eval(), task, side, described, folder, tower)
