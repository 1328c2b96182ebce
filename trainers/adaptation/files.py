"""The two folders that adaptation writes: ``device`` (what a device holds) and ``cloud``; both run without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...pipeline.errors import InputError

DEVICE, CLOUD = "device.json", "cloud.json"


def told_in(folder: Path, name: str) -> dict[str, Any]:
    """The description of a folder; ``InputError`` where it has none."""
    try:
        told: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        words = str(error).splitlines()[0]
        raise InputError(f"{folder} holds no {name} ({words}); `curate train adaptation` writes such folders") from None
    return told


def session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
