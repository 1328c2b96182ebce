"""A device's roll from a folder: every image in it and in the folders in it, by name, in the size of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...pipeline.errors import InputError
from ..value.pixels import small
from .device import U8

KINDS = (".jpg", ".jpeg", ".png", ".webp")


def opened(folder: Path, side: int) -> tuple[U8, int]:
    """(n, 3, side, side) frames and how many files did not open; ``InputError`` where there is none that does."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in KINDS and p.is_file())
    found = [small(path.read_bytes(), side) for path in paths]
    frames = [picture for picture in found if picture is not None]
    if not frames:
        raise InputError(f"{folder} holds no image that opens ({', '.join(KINDS)})")
    return np.stack(frames).transpose(0, 3, 1, 2), len(found) - len(frames)
