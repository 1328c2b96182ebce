"""Objectives of the dual-stream model. Shapes: n images, m captions, d embedding size, v vocabulary.

Every objective takes the rows of this process and, as ``Keys``, what they are held against: the rows of all
processes, a momentum queue, hard negatives. Without ``Keys`` a batch is held against itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EXCLUDED = -1e9
"""A logit that takes a column out of a softmax; finite, so that its product with a target of zero is zero."""


class Keys(NamedTuple):
    """Columns: images (m, d) and captions (m, d) with their groups (m,), and captions that are wrong for every image.

    ``negatives`` (k, d) with ``negative_groups`` (k,); a group below zero marks padding. ``soft_to_text`` (n, m) and
    ``soft_to_image`` (n, m) are a teacher's shares, mixed into the targets with the weight ``alpha``.
    """

    image: Tensor
    text: Tensor
    groups: Tensor
    negatives: Tensor | None = None
    negative_groups: Tensor | None = None
    soft_to_text: Tensor | None = None
    soft_to_image: Tensor | None = None
    alpha: float = 0.0


def multi_positive(groups: Tensor, others: Tensor | None = None) -> Tensor:
    """(n,) group ids -> (n, m) rows of target shares: every caption of the same group is a right answer.

    ``others`` (m,) are the groups of the columns; the rows' own where they are not given.
    """
    same = (groups[:, None] == (groups if others is None else others)[None, :]).float()
    return same / same.sum(1, keepdim=True)


def contrastive(image: Tensor, text: Tensor, scale: Tensor, groups: Tensor, keys: Keys | None = None) -> Tensor:
    """Symmetric contrastive loss over (n, d) unit rows with soft targets for shared captions.

    CLIP (Radford et al. 2021, arXiv 2103.00020) with the targets of ALBEF's ``idx_queue`` (Li et al. 2021,
    arXiv 2107.07651): identical captions on distinct images are in this data by design. Hard negatives are columns
    beside the captions, for images only (NegCLIP, Yuksekgonul et al. 2023, arXiv 2210.01936); one that equals a
    caption of the batch is left out.
    """
    keys = keys or Keys(image, text, groups)
    target = multi_positive(groups, keys.groups)  # (n, m)
    to_text, to_image = scale * image @ keys.text.T, scale * text @ keys.image.T
    beside = None
    if keys.negatives is not None and keys.negative_groups is not None:
        unfit = (keys.negative_groups < 0) | torch.isin(keys.negative_groups, keys.groups)
        beside = (scale * image @ keys.negatives.T).masked_fill(unfit[None, :], EXCLUDED)  # (n, k)
    rows = _cross_entropy(to_text, _mixed(target, keys.soft_to_text, keys.alpha), beside)
    columns = _cross_entropy(to_image, _mixed(target, keys.soft_to_image, keys.alpha))
    return (rows + columns) / 2


def _mixed(target: Tensor, soft: Tensor | None, alpha: float) -> Tensor:
    return target if soft is None else alpha * soft + (1 - alpha) * target


def _cross_entropy(logits: Tensor, target: Tensor, beside: Tensor | None = None) -> Tensor:
    """Mean over rows; ``beside`` are more columns, never right."""
    both = logits if beside is None else torch.cat([logits, beside], 1)
    return -(target * both.log_softmax(1)[:, : logits.shape[1]]).sum(1).mean()


def threshold_loss(
    image: Tensor, text: Tensor, groups: Tensor, at: float, sharpness: float, keys: Keys | None = None
) -> Tensor:
    """Pulls matching pairs above the cosine ``at`` and all others below it, both sides with equal weight.

    A contrastive loss alone fixes no absolute value; a score that is held against 0.3 needs one. A
    logistic loss with its bias fixed at ``-sharpness * at`` (after SigLIP, Zhai et al. 2023,
    arXiv 2303.15343) makes ``at`` the point where both kinds of error cost the same.

    With ``keys`` from several processes this is n / m of their common loss for these rows, counted so that the mean
    over equal processes is that of the whole batch.
    """
    keys = keys or Keys(image, text, groups)
    logits = sharpness * (image @ keys.text.T - at)  # (n, m)
    same = groups[:, None] == keys.groups[None, :]
    if len(keys.groups) == len(groups):
        return (F.softplus(-logits[same]).mean() + F.softplus(logits[~same]).mean()) / 2
    matching = (keys.groups[:, None] == keys.groups[None, :]).sum()
    share = len(keys.groups) / len(groups)
    pulled = F.softplus(-logits[same]).sum() * share / matching
    pushed = F.softplus(logits[~same]).sum() * share / (len(keys.groups) ** 2 - matching)
    return (pulled + pushed) / 2


def captioning(logits: Tensor, labels: Tensor, pad: int) -> Tensor:
    """Next-token cross entropy; ``logits`` (n, l, v), ``labels`` (n, l), padding ignored (CoCa, arXiv 2205.01917)."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=pad)


def token_sums(logits: Tensor, labels: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """(n,) summed cross entropy and (n,) counted tokens of each row: what a mean over several batches is made of."""
    each = F.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=ignore, reduction="none")
    return each.sum(1), (labels != ignore).sum(1).float()


def two_views(first: Tensor, second: Tensor, all_first: Tensor, all_second: Tensor, offset: int, t: float) -> Tensor:
    """SimCLR's loss over (n, d) unit rows of two views, against all (m, d) rows of all processes.

    NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1): the other view of the image is right, all other views of
    all other images are wrong. ``offset`` is this process's first row among all; ``t`` the temperature.
    """
    n, m = len(first), len(all_first)
    own = torch.arange(n, device=first.device) + offset
    everything = torch.cat([all_first, all_second])

    def side(rows: Tensor, itself: Tensor, right: Tensor) -> Tensor:
        logits = rows @ everything.T / t  # (n, 2m)
        return F.cross_entropy(logits.scatter(1, itself[:, None], EXCLUDED), right)

    return (side(first, own, own + m) + side(second, own + m, own)) / 2
