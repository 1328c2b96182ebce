"""The learned choice of anchor frames, as it is trained in the cloud; ``pick`` makes the same choice on a device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Selector(nn.Module):
    """Greedy choice of k of N frames whose mean in a learned projection follows that of all N.

    Each choice is a hard one; gradients flow as through a softmax over the distances (straight-through). The projection
    begins as a random rotation, for which the choice is herding.
    """

    def __init__(self, features: int, temperature: float = 0.05) -> None:
        super().__init__()
        self.project = nn.Linear(features, features, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.temperature = temperature

    def forward(self, features: Tensor, k: int) -> Tensor:
        """(devices, N, f) to the (devices, k, f) anchors."""
        chosen, _ = self.choose(features, k)
        return chosen

    def choose(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Anchors (devices, k, f) and their places (devices, k)."""
        seen = self.project(features) / features.shape[-1] ** 0.5
        products = seen @ seen.transpose(1, 2)  # (devices, N, N)
        # |(t + x_i) / (j + 1) - m|^2 with t the sum of those chosen and m the mean, but for |m|^2, from products alone.
        own, to_mean = products.diagonal(0, 1, 2), products.mean(2)
        counts = torch.zeros_like(own)
        anchors, places = [], []
        for j in range(k):
            to_total = (products @ counts[:, :, None])[:, :, 0]
            size = (counts * to_total).sum(1, keepdim=True)
            distance = (size + 2 * to_total + own) / (j + 1) ** 2
            distance = distance - 2 * ((counts * to_mean).sum(1, keepdim=True) + to_mean) / (j + 1)
            distance = distance.masked_fill(counts.detach() > 0.5, torch.inf)
            soft = (-distance / self.temperature).softmax(1)
            place = distance.argmin(1)
            weight = nn.functional.one_hot(place, distance.shape[1]) + soft - soft.detach()
            anchors.append((weight[:, None] @ features)[:, 0])
            places.append(place)
            counts = counts + weight
        return torch.stack(anchors, 1), torch.stack(places, 1)
