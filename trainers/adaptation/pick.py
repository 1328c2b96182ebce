"""Which frames' features a device uploads: its anchor frames. NumPy alone, as it runs on the device.

``uniform`` takes frames evenly over the roll, ``random`` any, ``herding`` those whose mean comes closest to the mean of
all (Welling 2009; iCaRL, Rebuffi et al. 2017), ``learned`` does the same in a projection that was trained together with
what the cloud makes of the anchors (``anchors.Selector``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import UsageError, nearest

F32 = NDArray[np.float32]
POLICIES = ("learned", "uniform", "random", "herding")


def spaced(n: int, k: int) -> list[int]:
    """``k`` evenly spaced numbers below ``n``, the middles of k equal parts."""
    return [int((i + 0.5) * n / k) for i in range(k)]


def pick(policy: str, features: F32, k: int, projection: F32 | None = None, seed: int = 0) -> list[int]:
    """Places of ``k`` anchors (all, where there are fewer) among features (N, f), in rising order.

    ``projection`` (f, f) is the learned one: features times its transpose.
    """
    if policy not in POLICIES or (policy == "learned" and projection is None):
        raise UsageError(f"anchors {policy!r}: {nearest(policy, POLICIES)}; learned needs a trained projection")
    n = len(features)
    k = min(k, n)
    if policy == "uniform":
        return spaced(n, k)
    if policy == "random":
        return sorted(np.random.default_rng(seed).permutation(n)[:k].tolist())
    seen = features @ projection.T if policy == "learned" and projection is not None else features
    return sorted(herd(seen, k))


def herd(seen: F32, k: int) -> list[int]:
    """``k`` of the rows (N, f), each chosen so that the mean of those chosen comes closest to the mean of all."""
    wanted, total = seen.mean(0), np.zeros(seen.shape[1], seen.dtype)
    chosen: list[int] = []
    for j in range(k):
        distance = np.square((total + seen) / (j + 1) - wanted).sum(1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
        total += seen[chosen[-1]]
    return chosen
