"""What is held out: no pair is evaluated on that anything ties to a pair that is trained on.

The run's own split keeps near-identical images of *kept* pairs together. Here dropped pairs are trained on as well,
and one of them may be the copy of an evaluation pair, show its caption or stand on its page. So clusters are made
anew over all pairs, dropped ones included: connected components over near-identical images and equal folded captions
(as found and as shipped). What shares a cluster or a page with a val or test pair leaves training as a whole.

Two things keep that from eating the data. Pages tie in one step, not in chains: 点击查看大图 stands on every page, and
chains over captions and pages would make one cluster of the whole web. And what such captions and chance likenesses
chain together into a large cluster is trained on as a whole: no question is asked from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ...filters.components import components
from ...filters.joins import HASHES, Joins
from ...filters.shingles import I64
from ...pipeline.columns import with_missing
from ...pipeline.errors import UsageError
from .subsets import Mask

TIES = ("image", "caption", "page")
IMAGE_BITS = 4
"""Bits of 64 by which hashes of one picture may differ: as in the stage ``split``."""
LARGEST, LARGEST_SHARE = 20, 0.01
"""Pairs of a cluster, and share of all, up to both of which its pairs may be asked about."""


@dataclass(frozen=True)
class HeldOut:
    """``train`` (n,): pairs that may be trained on; ``evaluable`` (n,): pairs that nothing ties to those."""

    train: Mask
    evaluable: Mask


def clusters(rows: pl.DataFrame, ties: Sequence[str] = TIES, image_bits: int = IMAGE_BITS) -> I64:
    """(n,) the number of each row's cluster: equal where images or captions tie rows, in however many steps.

    ``rows`` has caption_raw, and of caption and the image hashes those that are known.
    """
    rows = with_missing(rows, ("caption", "caption_raw", *HASHES))
    a = b = np.zeros(0, np.int64)
    if "image" in ties:
        a, b = Joins(image_bits).pairs(rows)
    if "caption" in ties:
        # A caption may be trained on as it was found and evaluated as it ships: either spelling ties.
        both = [rows.select(caption=pl.coalesce("caption", "caption_raw")), rows.select(caption="caption_raw")]
        more = Joins(None, caption=True).pairs(pl.concat(both))
        a, b = (np.concatenate([old, new % rows.height]) for old, new in zip((a, b), more, strict=True))
    return components(rows.height, a, b)


def groupings(rows: pl.DataFrame, ties: Sequence[str] = TIES) -> list[I64]:
    """Per kind of group that must stay on one side (clusters, pages), the number of each row's group, (n,) each."""
    if unknown := sorted(set(ties) - set(TIES)):
        raise UsageError(f"--tie {unknown[0]}: expected some of {', '.join(TIES)}")
    found = [clusters(rows, ties)]
    if "page" in ties:
        pages = with_missing(rows, ("page_url",))["page_url"]
        # A pair without a page stands on one of its own.
        named = pl.select(pl.coalesce(pages, pl.format("#{}", pl.int_range(rows.height)))).to_series()
        found.append(named.rank("dense").cast(pl.Int64).to_numpy())
    return found


def reached(groups: Sequence[I64], seeds: Mask) -> Mask:
    """(n,) rows that share any group with one of ``seeds``."""
    found = np.zeros(len(seeds), np.bool_)
    for group in groups:
        found |= np.isin(group, group[seeds])
    return found


def hold_out(rows: pl.DataFrame, seeds: Mask, ties: Sequence[str] = TIES, most: float = 0.5) -> HeldOut:
    """Hold out ``seeds`` (n,), pairs to evaluate on, with all that ``ties`` tie to them; at most the share ``most``.

    Seeds of a large cluster are not held out. ``UsageError`` where there are no seeds or too much is tied to them.
    """
    if not seeds.any():
        raise UsageError(
            "the run has no val and no test pairs to evaluate on: give them a share "
            "(`curate replay RUN -o OUT --set split.test=0.05`) or bring pairs of your own with --eval"
        )
    groups = groupings(rows, ties)
    sizes = np.bincount(groups[0])[groups[0]]
    seeds = seeds & (sizes <= max(LARGEST, LARGEST_SHARE * rows.height))
    held = reached(groups, seeds)
    if held.mean() > most:
        raise UsageError(
            f"{held.sum()} of {len(held)} pairs are tied to {seeds.sum()} val and test pairs by {', '.join(ties)}, "
            "which leaves too little to train on; make split.val and split.test smaller, or tie by less, e.g. "
            f"{' '.join(f'--tie {t}' for t in TIES if t != 'page')}"
        )
    return HeldOut(~held, held & ~reached(groups, ~held))
