"""What the arms are asked: held-out pairs of the run, or pairs from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from ...filters.images import load
from ...filters.phash import phashes
from ...filters.pixels import cv
from ...pipeline.columns import with_missing
from ...pipeline.errors import UsageError
from ...pipeline.sources import open_input, read_unit
from .arms import Truth
from .pixels import Pixels, small
from .points import Questions
from .split import groupings, reached
from .subsets import Mask

LEAST = 50
"""Questions under which no score is worth printing: one of 50 is 2 points."""


def questions_of(
    rows: pl.DataFrame, pixels: Pixels, chosen: Mask, truth: Truth | None, most: int
) -> tuple[Questions, Questions | None]:
    """At most ``most`` of the ``chosen`` pairs of a ledger, and those of them that have a synthetic caption.

    Which of too many are asked goes by their keys, which are hashes. The second is None where they are too few.
    """
    own = truth.captions if truth else rows.select(pl.coalesce("caption", "caption_raw")).to_series()
    frame = rows.select("key", caption=own, synthetic="caption_synthetic").with_row_index("at")
    frame = frame.filter(pl.Series(chosen)).sort("key").head(most)
    if frame.height < LEAST:
        raise UsageError(
            f"{frame.height} held-out pairs to evaluate on; at least {LEAST} are needed. Give val and test a larger "
            "share (`curate replay RUN -o OUT --set split.test=0.05`), or bring pairs of your own with --eval"
        )
    asked = Questions(_tensor(pixels[frame["at"].to_numpy()]), {"original": frame["caption"].to_list()})
    both = frame.drop_nulls("synthetic")
    if both.height < LEAST:
        return asked, None
    captions = {"original": both["caption"].to_list(), "synthetic": both["synthetic"].to_list()}
    return asked, Questions(_tensor(pixels[both["at"].to_numpy()]), captions)


@dataclass(frozen=True)
class External:
    """Pairs that were given to evaluate on: ``rows`` with caption_raw and phash, and their ``pixels``."""

    path: str
    rows: pl.DataFrame
    pixels: Pixels

    def apart_from(self, rows: pl.DataFrame, trainable: Mask, ties: Sequence[str], most: int) -> Questions:
        """Those that nothing ties to a pair of ``rows`` that is trained on."""
        kept = rows.filter(pl.Series(trainable))
        # Training pairs are the seeds here: what they do not reach may be asked.
        both = pl.concat([with_missing(f, _TIED).select(_TIED) for f in (kept, self.rows)])
        seeds = np.arange(both.height) < kept.height
        free = ~reached(groupings(both, ties), seeds)[kept.height :]
        chosen = np.flatnonzero(free)[:most]
        if len(chosen) < LEAST:
            raise UsageError(
                f"--eval {self.path}: {free.sum()} of its {len(free)} pairs are neither copies nor captions of pairs "
                f"that are trained on; at least {LEAST} are needed"
            )
        return Questions(_tensor(self.pixels[chosen]), {"original": self.rows["caption_raw"].gather(chosen).to_list()})


def external(path: str, side: int) -> External:
    """The pairs of an input whose images come with it; what has none or cannot be decoded is left out."""
    frames, pictures = [], []
    for unit in open_input(path):
        for batch in read_unit(unit):
            held = batch.filter(pl.col("image").is_not_null())
            seen = [small(image, side) for image in held["image"]]
            found = pl.Series([s is not None for s in seen], dtype=pl.Boolean)
            held = held.filter(found)
            hashes = [_phash(image) for image in held["image"]]
            frames.append(held.select("caption_raw", "page_url").with_columns(phash=pl.Series(hashes, dtype=pl.UInt64)))
            pictures += [s for s in seen if s is not None]
    if not pictures:
        raise UsageError(f"--eval {path}: no pairs with images in it; give shards or a folder of images with captions")
    return External(path, pl.concat(frames), np.stack(pictures))


_TIED = ("caption", "caption_raw", "page_url", "phash", "phash_inside")


def _phash(data: bytes) -> int:
    _, seen = load(data, 256, 1024)
    return phashes(cv().cvtColor(seen, cv().COLOR_BGR2GRAY))[0]


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
