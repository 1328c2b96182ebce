"""``curate evaluate``: how well a model retrieves, classifies and tells details, on shards, with intervals.

Any scorer can be measured: what was trained here, open_clip's models, Chinese-CLIP, ONNX exports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import shards
from ..bootstrap import Estimate
from .hard_negatives import hard_negatives
from .pairs import load, overlap
from .similarity import alignment, auc, retrieval, uniformity
from .zero_shot import read_labels, zero_shot


def evaluate(
    model: str,
    given: Sequence[str],
    split: str = "test",
    labels: Path | None = None,
    train: Sequence[str] = (),
    limit: int = 0,
    device: str = "auto",
    batch: int = 64,
) -> dict[str, Any]:
    """All figures of one model on one set of shards, as a dictionary of dictionaries of ``Estimate`` or numbers."""
    from ...scoring.scorer import load_scorer

    prompts = read_labels(labels) if labels else None
    found = shards.find(given, split)
    scorer = load_scorer(model, device, batch)
    pairs = load(found, scorer, limit)
    of_image, of_caption = pairs.clusters
    shared = Counter(pairs.right[:, 1].tolist())
    told: dict[str, Any] = {
        "model": scorer.name,
        "weights": scorer.hash,
        "data": {
            "shards": len(found.paths),
            "images": len(pairs.images),
            "captions": len(pairs.captions),
            "captions of several images": sum(1 for n in shared.values() if n > 1),
            "clusters": len(np.unique(of_image)),
        },
        "image to text": retrieval(pairs.images, pairs.texts, pairs.right, of_image),
        "text to image": retrieval(pairs.texts, pairs.images, pairs.right[:, ::-1], of_caption),
        "pairs": {"AUC": auc(pairs), "alignment": alignment(pairs)},
        "uniformity": {"images": uniformity(pairs.images), "captions": uniformity(pairs.texts)},
    }
    known: list[tuple[str, str]] = []
    if train:
        told["also in the training shards"], known = overlap(pairs, shards.find(train, "train"))
    if negatives := hard_negatives(pairs, scorer, known):
        told["hard negatives"] = negatives
    if prompts:
        told["zero-shot"] = zero_shot(pairs, scorer, prompts)
    return told


def plain(told: Any) -> Any:
    """``told`` for JSON."""
    if isinstance(told, Estimate):
        return told.describe()
    return {k: plain(v) for k, v in told.items()} if isinstance(told, dict) else told


def lines(told: dict[str, Any]) -> Iterator[str]:
    """``told`` for people; figures with their 95 % intervals."""
    yield f"{told['model']} ({told['weights']})"
    for section, fields in told.items():
        if not isinstance(fields, dict):
            continue
        yield section
        for name, value in fields.items():
            if isinstance(value, dict):
                inner = "   ".join(f"{n} {v}" for n, v in value.items())
                yield f"  {name:<28}{inner}   n {next(iter(value.values())).n}"
            else:
                yield f"  {name:<28}{value}"
