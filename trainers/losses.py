"""Objectives of the dual-stream model. Shapes: n images, m captions, d embedding size, v vocabulary."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def multi_positive(groups: Tensor) -> Tensor:
    """(n,) group ids -> (n, n) rows of target shares: every caption of the same group is a right answer."""
    same = (groups[:, None] == groups[None, :]).float()
    return same / same.sum(1, keepdim=True)


def contrastive(image: Tensor, text: Tensor, scale: Tensor, groups: Tensor) -> Tensor:
    """Symmetric contrastive loss over (n, d) unit rows with soft targets for shared captions.

    CLIP (Radford et al. 2021, arXiv 2103.00020) with the targets of ALBEF's ``idx_queue`` (Li et al. 2021,
    arXiv 2107.07651): identical captions on distinct images are in this data by design.
    """
    logits = scale * image @ text.T  # (n, n)
    target = multi_positive(groups)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def threshold_loss(image: Tensor, text: Tensor, groups: Tensor, at: float, sharpness: float) -> Tensor:
    """Pulls matching pairs above the cosine ``at`` and all others below it, both sides with equal weight.

    A contrastive loss alone fixes no absolute value; a score that is held against 0.3 needs one. A
    logistic loss with its bias fixed at ``-sharpness * at`` (after SigLIP, Zhai et al. 2023,
    arXiv 2303.15343) makes ``at`` the point where both kinds of error cost the same.
    """
    logits = sharpness * (image @ text.T - at)  # (n, n)
    same = groups[:, None] == groups[None, :]
    return (F.softplus(-logits[same]).mean() + F.softplus(logits[~same]).mean()) / 2


def captioning(logits: Tensor, labels: Tensor, pad: int) -> Tensor:
    """Next-token cross entropy; ``logits`` (n, l, v), ``labels`` (n, l), padding ignored (CoCa, arXiv 2205.01917)."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=pad)
