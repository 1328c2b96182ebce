"""What the generation trainer minimises: pure functions of tensors, each with its source.

A noised image is z = α x + σ ε with α² + σ² = 1. Tensors α and σ are (n, 1, 1, 1) or broadcast likewise; images
(n, channels, h, w). All networks predict v = α ε − σ x (Salimans and Ho 2022, arXiv 2202.00512, appendix D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_SNR = 1e4


def noised(x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """z at the noise level (α, σ)."""
    return alpha * x + sigma * noise


def velocity(x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v of an image and its noise."""
    return alpha * noise - sigma * x


def image_of(z: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = α z − σ v."""
    return alpha * z - sigma * v


def noise_of(z: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = σ z + α v."""
    return sigma * z + alpha * v


def velocity_of(z: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v from z and a predicted image: (α z − x) / σ."""
    return (alpha * z - x) / sigma


def snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """The signal-to-noise ratio α² / σ², at most ``LARGEST_SNR``."""
    return (alpha**2 / sigma**2.0).clamp(max=LARGEST_SNR)


def min_snr_weight(ratio: Tensor, gamma: float = 5.0, floor: float = 0.0) -> Tensor:
    """Weight of the squared error in v: min(SNR, γ) / (SNR + 1) (Hang et al. 2023, arXiv 2303.09556, section 3.4).

    An error in x is σ times one in v, so this is min(SNR, γ) on the error in x. A ``floor`` of 1 makes that
    clamp(SNR, 1, γ), with which steps near pure noise, where the prompt decides most, keep their weight (the
    truncation of Salimans and Ho, section 4).
    """
    return ratio.clamp(min=floor, max=gamma) / (ratio + 1)


def guided(conditional: Tensor, unconditional: Tensor, weight: Tensor | float) -> Tensor:
    """Classifier-free guidance: v_c + w (v_c − v_∅) (Ho and Salimans 2022, arXiv 2207.12598, equation 6).

    w = 0 is no guidance; diffusers' ``guidance_scale`` is 1 + w.
    """
    return conditional + weight * (conditional - unconditional)


def ddim(z: Tensor, v: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor], clip: float = 0.0) -> Tensor:
    """One deterministic step from the level ``here`` = (α, σ) to ``there`` (Song et al. 2021, equation 12).

    With ``clip`` the predicted image is held within ±clip and the noise follows from it.
    """
    x = image_of(z, v, *here)
    noise = noise_of(z, v, *here)
    if clip:
        x = x.clamp(-clip, clip)
        noise = (z - here[0] * x) / here[1]
    return there[0] * x + there[1] * noise


def two_step_target(z: Tensor, z_after: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]) -> Tensor:
    """The image that one DDIM step from ``here`` to ``there`` must predict to arrive at ``z_after``.

    x̃ = (z″ − (σ″/σ) z) / (α″ − (σ″/σ) α) (Salimans and Ho 2022, appendix G); ``z_after`` are two steps of the teacher.
    """
    ratio = there[1] / here[1]
    return (z_after - ratio * z) / (there[0] - ratio * here[0])


def progressive_weight(ratio: Tensor, most: float = 20.0) -> Tensor:
    """Weight of the squared error in x: max(SNR, 1) (Salimans and Ho 2022, section 4), here at most ``most``."""
    return ratio.clamp(min=1.0, max=most)


def features_apart(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the features of blocks (BK-SDM, arXiv 2305.15798, equation 3), averaged over blocks.

    Each is divided by the teacher's own mean square, so that one weight fits blocks of all scales.
    """
    terms = [
        ((s.float() - t.detach().float()) ** 2).mean() / (t.detach().float() ** 2).mean().clamp(min=1e-6)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()


def wrong_caption(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Hinge on errors (n,): a caption that is wrong in one attribute must explain the noise worse by ``margin``.

    The margin is a share of the right caption's error, which has another size at each noise level. After Krojer et
    al. 2023 (arXiv 2305.16397), whose loss also takes hard negatives; the hinge keeps it from growing without end.
    """
    return ((right * (1 + margin) - wrong).clamp(min=0) / right.detach().clamp(min=1e-6)).mean()


def weighted_mse(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """(n,) squared errors, mean over all but the first axis, times ``weight`` (n,)."""
    error = (predicted.float() - target.float()).pow(2).flatten(1).mean(1)
    return error if weight is None else error * weight.flatten()
