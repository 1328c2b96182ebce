"""Momentum distillation: a slow copy of the model whose similarities are soft targets, and a queue of what it encoded.

ALBEF (Li et al. 2021, arXiv 2107.07651, sections 3.2 and 3.3; settings of its published Pretrain.yaml): the copy's
weights follow with a decay of 0.995, the queue holds 65,536 pairs, targets are
``alpha * softmax(momentum similarities) + (1 - alpha) * right answers`` with alpha rising to 0.4 over the first of 30
epochs. Queued captions keep their group, so that a caption met again is a right answer there too (``idx_queue``).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import gather
from .losses import Keys


class Momentum(nn.Module):
    """The slow copy and its queue; all of it is in ``state_dict``."""

    image_queue: Tensor
    text_queue: Tensor
    group_queue: Tensor
    pushed: Tensor

    def __init__(self, model: nn.Module, dimension: int, decay: float, size: int) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay, self.size = decay, size
        self.register_buffer("image_queue", torch.zeros(size, dimension))
        self.register_buffer("text_queue", torch.zeros(size, dimension))
        self.register_buffer("group_queue", torch.full((size,), -1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Momentum:
        """The copy stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move the copy's weights towards the model's by ``1 - decay``."""
        for slow, fast in zip(self.model.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.decay)

    @torch.no_grad()
    def keys(self, image: Tensor, text: Tensor, groups: Tensor, scale: Tensor, alpha: float) -> tuple[Keys, Tensor]:
        """What this rank's rows are held against, and the (m,) groups of all ranks.

        ``image`` and ``text`` (n, d) are the copy's rows of this rank; columns are those of all ranks, then the queue.
        """
        all_groups = gather(groups)
        filled = min(int(self.pushed), self.size)
        images = torch.cat([gather(image), self.image_queue[:filled]])
        texts = torch.cat([gather(text), self.text_queue[:filled]])
        right = torch.cat([all_groups, self.group_queue[:filled]])
        soft_to_text = (scale * image @ texts.T).softmax(1)
        soft_to_image = (scale * text @ images.T).softmax(1)
        made: Any = {"soft_to_text": soft_to_text, "soft_to_image": soft_to_image, "alpha": alpha}
        return Keys(images, texts, right, **made), all_groups

    @torch.no_grad()
    def push(self, keys: Keys, new: int) -> None:
        """Queue the first ``new`` columns of ``keys``, over the oldest ones."""
        new = min(new, self.size)  # of more than fit the first stay: all are of this step
        places = (self.pushed + torch.arange(new, device=self.pushed.device)) % self.size
        self.image_queue[places] = keys.image[:new]
        self.text_queue[places] = keys.text[:new]
        self.group_queue[places] = keys.groups[:new]
        self.pushed += new
