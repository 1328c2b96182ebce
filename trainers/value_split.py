"""What is held out: no pair is evaluated on that anything ties to a pair that is trained on.

The run's own split keeps near-identical images of *kept* pairs together. Here dropped pairs are trained on as well,
and one of them may be the copy of an evaluation pair, show its caption or stand on its page. So clusters are made
anew over all pairs, dropped ones included: connected components over near-identical images and equal folded captions
(as found and as shipped). What shares a cluster or a page with a val or test pair leaves training as a whole.

Pages tie in one step, not in chains: a caption like 点击查看大图 stands on every page, so that chains over captions and
pages would make one cluster of the whole web.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ..filters.components import components
from ..filters.joins import HASHES, Joins
from ..filters.shingles import I64
from ..pipeline.columns import with_missing
from ..pipeline.errors import UsageError
from .subsets import Mask

TIES = ("image", "caption", "page")
IMAGE_BITS = 4
"""Bits of 64 by which hashes of one picture may differ: as in the stage ``split``."""


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


def hold_out(rows: pl.DataFrame, seeds: Mask, ties: Sequence[str] = TIES, most: float = 0.5) -> HeldOut:
    """Hold out ``seeds`` (n,), the pairs to evaluate on, with all that ``ties`` tie to them; at most ``most``."""
    if unknown := sorted(set(ties) - set(TIES)):
        raise UsageError(f"--tie {unknown[0]}: expected some of {', '.join(TIES)}")
    if not seeds.any():
        raise UsageError(
            "the run has no val and no test pairs to evaluate on: give them a share "
            "(`curate replay RUN -o OUT --set split.test=0.05`) or bring pairs of your own with --eval"
        )
    cluster = clusters(rows, ties)
    held = np.isin(cluster, cluster[seeds])
    groups = [cluster]
    if "page" in ties:
        pages = with_missing(rows, ("page_url",))["page_url"]
        # A pair without a page stands on one of its own.
        page = pl.select(pl.coalesce(pages, pl.format("#{}", pl.int_range(rows.height)))).to_series()
        page_of = page.rank("dense").to_numpy()
        held |= np.isin(page_of, page_of[seeds])
        groups.append(page_of)
    evaluable = held.copy()
    for group in groups:
        evaluable &= ~np.isin(group, group[~held])
    if held.mean() > most:
        raise UsageError(
            f"{held.sum()} of {len(held)} pairs are tied to the {seeds.sum()} val and test pairs by "
            f"{', '.join(ties)}, which leaves too little to train on; make split.val and split.test smaller, or "
            f"tie by less, e.g. {' '.join(f'--tie {t}' for t in TIES if t != 'page')}"
        )
    return HeldOut(~held, evaluable)
