"""Zero-shot image safety: is an image nearer to a prompt of an unsafe class than to any ordinary one?

CLIP's zero-shot classification (Radford and others 2021) with the vectors that the score needs anyway, so it costs a
few dot products an image. The prompts are a text file that the operator edits, ``class: prompt`` a line; those of
the class ``safe`` describe ordinary pictures, and the nearest of them is what an unsafe prompt has to beat: cosines
alone differ from scorer to scorer, their difference less so. It finds what the scorer knows by name, no more; a
trained detector (``image_safety``) finds more.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..pipeline.errors import RecipeError
from .blocks import Embeddings
from .scorer import Scorer

SHIPPED = "default"
SAFE = "safe"


class Prompts(NamedTuple):
    """Prompts with their classes, in the order of the file."""

    classes: tuple[str, ...]
    texts: tuple[str, ...]


def read_prompts(spec: str) -> Prompts:
    """The prompts of a file, or those that ship for ``default``; ``RecipeError`` names file and line."""
    return _parse(_text(spec), spec)


def prompts_hash(spec: str) -> str:
    """16 hex digits over the file's text."""
    return hashlib.sha256(_text(spec).encode()).hexdigest()[:16]


def _text(spec: str) -> str:
    if spec == SHIPPED:
        return (files(__package__) / "lexicons" / "safety_prompts.txt").read_text("utf-8")
    path = Path(spec)
    if not path.is_file():
        raise RecipeError(
            f"score.prompts: no file at {spec!r}; expected {SHIPPED!r} or a file of 'class: prompt' lines"
        )
    return path.read_text("utf-8")


@lru_cache(8)
def _parse(text: str, name: str) -> Prompts:
    held: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stated = line.split("#")[0].strip()
        if not stated:
            continue
        kind, colon, prompt = (part.strip() for part in stated.replace("：", ":", 1).partition(":"))
        if not (colon and kind and prompt):
            raise RecipeError(f"{name}:{number}: given {stated!r}; expected 'class: prompt', e.g. 'safe: 一张风景照片'")
        held.append((kind, prompt))
    kinds = {kind for kind, _ in held}
    if SAFE not in kinds or len(kinds) < 2:
        raise RecipeError(f"{name}: has classes {sorted(kinds)}; expected {SAFE!r} and at least one unsafe class")
    return Prompts(tuple(k for k, _ in held), tuple(p for _, p in held))


def margins(images: Embeddings, vectors: Embeddings, classes: tuple[str, ...]) -> tuple[Embeddings, list[str]]:
    """For each image (n, d): cosine of the nearest unsafe prompt less that of the nearest safe one, and its class."""
    cosine = images @ vectors.T  # (images, prompts)
    safe = np.array([kind == SAFE for kind in classes])
    unsafe = np.flatnonzero(~safe)
    best = cosine[:, unsafe].argmax(axis=1)
    margin = cosine[np.arange(len(images)), unsafe[best]] - cosine[:, safe].max(axis=1, initial=-1)
    return np.asarray(margin, dtype=np.float32), [classes[unsafe[i]] for i in best]


_vectors: dict[tuple[str, str, str], Embeddings] = {}


def prompt_vectors(model: Scorer, spec: str) -> tuple[Embeddings, tuple[str, ...]]:
    """Vectors and classes of the prompts; embedded once per process, scorer and text."""
    prompts = read_prompts(spec)
    key = (model.name, model.hash, prompts_hash(spec))
    if key not in _vectors:
        _vectors[key] = model.embed_texts(prompts.texts)
    return _vectors[key], prompts.classes
