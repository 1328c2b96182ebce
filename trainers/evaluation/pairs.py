"""An evaluation set, read from shards and encoded.

Images with the same bytes are one image with several captions; captions equal after folding are one caption with
several images, and all of them are right answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import InputError
from .. import bootstrap, shards
from ..bootstrap import I64
from ..retrieval import caption_group

F32 = NDArray[np.float32]
BLOCK = 256
"""Images and captions that are encoded between two reports of progress."""
KERNEL = 2000
"""Rows of which all pairs are compared."""


@dataclass
class Pairs:
    """An evaluation set. ``right`` (p, 2) are the pairs (image, caption) that belong together, by number."""

    captions: list[str]
    right: I64
    images: F32
    """(n, d) rows of unit length."""
    texts: F32
    told: list[dict[str, Any]]
    """What the shards say of each image."""
    negatives: list[tuple[int, int, str, str]] = field(default_factory=list)
    """(image, caption, kind, wrong caption)."""
    hashes: set[str] = field(default_factory=set)

    @property
    def clusters(self) -> tuple[I64, I64]:
        """For each image and each caption the number of the cluster that shared captions and images tie it to."""
        return bootstrap.components(self.right[:, 0], self.right[:, 1])


def load(found: shards.Shards, scorer: Any, limit: int = 0) -> Pairs:
    """Encode what the shards hold; ``limit`` is the most samples that are read, 0 for all."""
    numbers: dict[str, int] = {}
    groups: dict[int, int] = {}
    captions: list[str] = []
    right: dict[tuple[int, int], None] = {}
    told: list[dict[str, Any]] = []
    negatives: list[tuple[int, int, str, str]] = []
    waiting: list[bytes] = []
    images: list[F32] = []
    for read, sample in enumerate(shards.every(found)):
        if limit and read == limit:
            break
        digest = hashlib.sha256(sample.image).hexdigest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            told.append(sample.told)
            waiting.append(sample.image)
        image = numbers[digest]
        for i, words in enumerate(_captions(sample)):
            caption = groups.setdefault(caption_group(words), len(groups))
            if caption == len(captions):
                captions.append(words)
            right.setdefault((image, caption))
            if i == 0:
                negatives += [(image, caption, kind, wrong) for kind, wrong in sample.negatives()]
        if len(waiting) == BLOCK:
            images.append(_encoded(scorer, waiting))
            waiting = []
    if waiting:
        images.append(_encoded(scorer, waiting))
    if len(numbers) < 2 or len(captions) < 2:
        raise InputError(
            f"the shards hold {len(numbers)} images and {len(captions)} captions; retrieval needs at least two of both"
        )
    texts = scorer.embed_texts(captions)
    return Pairs(captions, np.array(list(right)), np.concatenate(images), texts, told, negatives, set(numbers))


def _captions(sample: shards.Sample) -> Iterator[str]:
    """A sample's caption, then others that its image is known to have."""
    yield sample.caption
    for name in ("captions_merged", "captions_beside", "captions"):
        held = sample.told.get(name)
        yield from (str(c) for c in held if c) if isinstance(held, list) else ()


def _encoded(scorer: Any, images: list[bytes]) -> F32:
    try:
        rows: F32 = scorer.embed_images(images)
    except OSError as error:
        raise InputError(f"an image in the shards does not open: {error}") from None
    return rows


def overlap(pairs: Pairs, train: shards.Shards) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """How many images and captions of ``pairs`` are in the shards ``train`` too, and these' (caption, negative)s."""
    own = {caption_group(c) for c in pairs.captions}
    images, captions = set(), set()
    negatives: list[tuple[str, str]] = []
    for sample in shards.every(train):
        images.add(hashlib.sha256(sample.image).hexdigest())
        captions.add(caption_group(sample.caption))
        negatives += [(sample.caption, wrong) for _, wrong in sample.negatives()]
    return {"images": len(images & pairs.hashes), "captions": len(captions & own)}, negatives
