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
        wanted, gone = seen.mean(1), torch.zeros(seen.shape[:2], dtype=torch.bool, device=seen.device)
        total = torch.zeros_like(wanted)
        anchors, places = [], []
        for j in range(k):
            reached = (total[:, None] + seen) / (j + 1)
            distance = (reached - wanted[:, None]).square().sum(2).masked_fill(gone, torch.inf)  # (devices, N)
            soft = (-distance / self.temperature).softmax(1)
            place = distance.argmin(1)
            hard = nn.functional.one_hot(place, distance.shape[1]).to(soft.dtype)
            weight = hard + soft - soft.detach()
            anchors.append((weight[:, :, None] * features).sum(1))
            places.append(place)
            total = total + (weight[:, :, None] * seen).sum(1)
            gone = gone | hard.bool()
        return torch.stack(anchors, 1), torch.stack(places, 1)
