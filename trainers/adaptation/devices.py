"""Simulated devices: what each takes pictures of (clusters of content), and through which camera.

A device sees a mixture of a few clusters, so that its photographs are hard to tell apart in ways of their own, and
renders them through its own camera: a rotation of the hue, gains of the three colours and a gamma. No single photograph
says which camera took it, since things have any colour; many together do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...pipeline.errors import UsageError

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class DevicesConfig:
    """How devices differ."""

    clusters: int = 12
    """Clusters of content in the shards."""
    concentration: float = 0.3
    """Of the Dirichlet distribution of a device over the clusters; below 1 a device sees few of them, above many."""
    hue: float = 1.6
    """Largest rotation of the hue, in radians either way; 0, with gains and gamma 0, leaves content alone."""
    gains: float = 0.3
    """Standard deviation of the logarithm of each colour's gain (white balance, exposure)."""
    gamma: float = 0.2
    """Standard deviation of the logarithm of the gamma."""
    train: int = 384
    """Simulated devices that the cloud learns from."""
    validation: int = 4
    """Devices that settings of the rivals are chosen on."""
    test: int = 16
    """Unseen devices: other samples, other mixtures, other cameras."""
    photos: int = 48
    """Samples that a device holds and adapts from; the labelled rivals have captions and answers for them."""
    gallery: int = 64
    """Further samples of the same device, on which it is measured."""


class Camera(NamedTuple):
    """How a device renders colours: ``matrix`` (3, 3) over x ** ``gamma``, clipped to 0..1."""

    matrix: Tensor
    gamma: float

    def __call__(self, frames: Tensor) -> Tensor:
        """(..., 3, h, w) uint8 to floats from -1 to 1 as the model takes them."""
        x = (frames.float() / 255) ** self.gamma
        seen = torch.einsum("ij,...jhw->...ihw", self.matrix, x)
        return seen.clamp(0, 1) * 2 - 1


PLAIN = Camera(torch.eye(3), 1.0)


def camera(config: DevicesConfig, rng: np.random.Generator, outside: bool = False) -> Camera:
    """A camera drawn from ``rng``; ``outside``: with a hue beyond all that the cloud has seen (up to half as far)."""
    low, high = (config.hue, 1.5 * config.hue) if outside else (0.0, config.hue)
    angle = float(rng.uniform(low, high) * rng.choice((-1, 1)))
    gains = np.exp(rng.normal(0, config.gains, 3))
    matrix = torch.diag(torch.tensor(gains, dtype=torch.float32)) @ hue(angle)
    return Camera(matrix, float(np.exp(rng.normal(0, config.gamma))))


def hue(angle: float) -> Tensor:
    """(3, 3) rotation of RGB about the grey axis (Rodrigues' formula)."""
    c, s = math.cos(angle), math.sin(angle)
    a, b, d = c + (1 - c) / 3, (1 - c) / 3 - s / math.sqrt(3), (1 - c) / 3 + s / math.sqrt(3)
    return torch.tensor([[a, b, d], [d, a, b], [b, d, a]])


class Device(NamedTuple):
    """Rows of what a device holds, in the order taken (by outing), of its gallery, and its camera."""

    photos: I64
    gallery: I64
    camera: Camera


def clusters(features: Tensor, k: int, seed: int) -> tuple[I64, NDArray[np.float32]]:
    """(n,) cluster of each row and the (k, d) centres, by k-means with k-means++ starts (OpenCV's)."""
    rows = features.numpy().astype(np.float32)
    if len(rows) < k:
        raise UsageError(f"{len(rows)} samples cannot make {k} clusters; set devices.clusters lower")
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    _, labels, centres = cv2.kmeans(rows, k, np.empty(0, np.int32), stop, 3, cv2.KMEANS_PP_CENTERS)
    return labels[:, 0].astype(np.int64), centres.astype(np.float32)


def nearest(features: Tensor, centres: NDArray[np.float32]) -> I64:
    """(n,) number of the centre that each row is closest to."""
    found: I64 = torch.cdist(features, torch.from_numpy(centres)).argmin(1).numpy()
    return found


def draw(
    labels: I64, config: DevicesConfig, count: int, seed: Sequence[int], gallery: int, outside: bool = False
) -> list[Device]:
    """``count`` devices over samples with the cluster ``labels`` (n,); a device never holds a sample twice.

    Raises ``UsageError`` where there are fewer samples than a device holds.
    """
    size = config.photos + gallery
    if len(labels) < size:
        raise UsageError(
            f"{len(labels)} samples, and a device holds {size}: give more shards, or lower devices.photos and "
            "devices.gallery"
        )
    rng = np.random.default_rng(list(seed))
    present = np.unique(labels)
    made = []
    for _ in range(count):
        share = rng.dirichlet(np.full(len(present), config.concentration)) + 1e-6
        weight = (share / np.bincount(labels)[present])[np.searchsorted(present, labels)]
        # Gumbel's top-k: drawn by weight, none twice.
        keys = np.log(weight) + rng.gumbel(size=len(labels))
        chosen = rng.permutation(np.argsort(-keys)[:size])
        photos = chosen[: config.photos]
        made.append(
            Device(
                photos[np.argsort(labels[photos], kind="stable")],
                chosen[config.photos :],
                camera(config, rng, outside),
            )
        )
    return made
