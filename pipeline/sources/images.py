"""Folders of images with a caption beside each: NAME.txt, or NAME.json with a caption field.

Several lines of a .txt are several captions of one image. With the option ``caption=filename`` the
file's own name is the caption where there is no sidecar.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .. import files
from ..units import Unit
from .names import CAPTION_COLUMNS, pick
from .rows import Pair, failure

MAX_IMAGE = 64 * 2**20
"""Bytes of an image file that are read; a larger one fails."""

SIDECARS = (".txt", ".json")


def read(unit: Unit) -> Iterator[Pair]:
    """One row per image and caption; an image without a caption fails, so that no file is passed over in silence."""
    from_name = dict(unit.options).get("caption") == "filename"
    folders: dict[str, set[str]] = {}
    for name in unit.files:
        path = files.join(unit.root, name) if name else unit.root
        parent = path.rsplit("/", 1)[0]
        if parent not in folders:
            folders[parent] = set(files.names(parent))
        stem = path.rsplit("/", 1)[-1].rpartition(".")[0]
        shown = name or path.rsplit("/", 1)[-1]
        beside = [f"{stem}{s}" for s in SIDECARS if f"{stem}{s}" in folders[parent]]
        captions = _captions(parent, beside)
        if isinstance(captions, str):
            yield failure(f"{shown}#0#0", "bad_sidecar", captions)
            continue
        source = "sidecar"
        if not captions and from_name:
            captions, source = [stem.replace("_", " ").replace("-", " ")], "filename"
        image, reason, detail = read_image(path, MAX_IMAGE)
        if not captions:
            reason = reason or "caption_missing"
            detail = detail or (
                f"no {stem}.txt or {stem}.json with a caption beside it; add one, or say --input caption=filename"
            )
        for k, caption in enumerate(captions or [""]):
            yield Pair(
                origin=f"{shown}#0#{k}",
                caption=caption,
                caption_origin=source if captions else None,
                image=image,
                failure=reason,
                detail=detail,
            )


def read_image(path: str, limit: int) -> tuple[bytes | None, str | None, str | None]:
    """The file's bytes, or a reason and a detail: ``image_missing``, ``image_too_large``, ``file_unreadable``."""
    try:
        with files.open_read(path) as handle:
            data = handle.read(limit + 1)
    except FileNotFoundError:
        return None, "image_missing", f"no file at {path!r}; paths are relative to the table or page that names them"
    except (OSError, ValueError) as error:
        return None, "file_unreadable", f"{type(error).__name__}: {error}"
    if len(data) > limit:
        return None, "image_too_large", f"more than {limit} bytes; such a file is no image for training"
    if not data:
        return None, "image_empty", "the file holds no bytes"
    return data, None, None


def _captions(folder: str, sidecars: list[str]) -> list[str] | str:
    """Captions from the sidecars (the first that has any), or a message on one that cannot be read."""
    for name in sidecars:
        data = files.read_bytes(files.join(folder, name))
        if name.endswith(".txt"):
            lines = [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]
            found = [line for line in lines if line]
        else:
            try:
                found = sidecar_captions(json.loads(data))
            except ValueError as error:
                return f"{name} is not valid JSON: {error}"
        if found:
            return found
    return []


def sidecar_captions(told: Any) -> list[str]:
    """Captions of a JSON sidecar: a string, a list of strings, or an object with a caption field."""
    if isinstance(told, dict):
        field = pick(told, CAPTION_COLUMNS)
        told = told[field] if field else []
    values = told if isinstance(told, list) else [told]
    return [v.strip() for v in values if isinstance(v, str) and v.strip()]
