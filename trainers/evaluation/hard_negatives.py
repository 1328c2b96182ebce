"""Whether an image is nearer to its caption than to one that is wrong in a detail, and what a blind model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import bootstrap
from ..bootstrap import Estimate
from . import blind
from .pairs import KERNEL, Pairs


def hard_negatives(pairs: Pairs, scorer: Any, train: Sequence[tuple[str, str]] = ()) -> dict[str, dict[str, Estimate]]:
    """For each kind: how often the image is nearer to its caption than to the negative; the same by a blind model.

    ``blind`` is trained on the negatives of other clusters; ``blind, trained`` on ``train``, the (caption, negative)
    pairs of training shards. ``mined`` are no made negatives but the captions of other images nearest by their
    characters: another generator than any rule, whose captions are as true to life as the right ones. What a blind
    model learned of the rules' negatives should not help it there.
    """
    made = [*pairs.negatives, *_mined(pairs)]
    if not made:
        return {}
    texts = scorer.embed_texts([wrong for _, _, _, wrong in made])
    image = np.array([i for i, _, _, _ in made])
    caption = np.array([c for _, c, _, _ in made])
    right = np.einsum("nd,nd->n", pairs.images[image], pairs.texts[caption])
    wrong = np.einsum("nd,nd->n", pairs.images[image], texts)
    won = (right > wrong) + 0.5 * (right == wrong)
    clusters = pairs.clusters[0][image]
    words = [(pairs.captions[c], w) for _, c, _, w in made]
    kinds = np.array([k for _, _, k, _ in made])
    ruled = len(pairs.negatives)
    unseen = np.concatenate(
        [blind.across_folds(words[:ruled], clusters[:ruled]), blind.preferred(words[:ruled], words[ruled:])]
    )
    trained = blind.preferred(train, words) if train else None
    told = {}
    for kind in ("all made", *sorted(set(kinds))):
        of_kind = kinds == kind if kind != "all made" else kinds != "mined"
        if of_kind.any():
            told[kind] = {
                "model": bootstrap.mean(won[of_kind], clusters[of_kind]),
                "blind": bootstrap.mean(unseen[of_kind], clusters[of_kind]),
            }
            if trained is not None:
                told[kind]["blind, trained"] = bootstrap.mean(trained[of_kind], clusters[of_kind])
    return told


def _mined(pairs: Pairs, most: int = KERNEL) -> list[tuple[int, int, str, str]]:
    """For each of the first pairs the caption of another image that shares most characters with its own."""
    some = pairs.right[np.unique(pairs.right[:, 0], return_index=True)[1]][:most]
    among = pairs.captions[: 5 * most]
    some = some[some[:, 1] < len(among)]
    bags = np.zeros((len(among), 2048), np.float32)
    for row, words in enumerate(among):
        np.add.at(bags[row], [g % 2048 for g in blind.grams(words)], 1)
    bags /= np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-9)
    found = []
    right: dict[int, set[int]] = {}
    for image, caption in pairs.right.tolist():
        right.setdefault(image, set()).add(caption)
    for image, caption in some.tolist():
        near = bags @ bags[caption]
        near[[c for c in right[image] if c < len(among)]] = -1
        best = int(near.argmax())
        if near[best] > 0:
            found.append((image, caption, "mined", pairs.captions[best]))
    return found
