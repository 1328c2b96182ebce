"""The objectives against closed forms and against diffusers' own schedulers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tuwen.trainers.generation import model, objectives
from tuwen.trainers.generation.onnx_model import track

DRAW = torch.Generator().manual_seed(0)


def levels(*steps: int) -> tuple[Tensor, Tensor]:
    table = torch.cat([model.scheduler().alphas_cumprod.double(), torch.ones(1)])
    squared = table[list(steps)].view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def drawn(n: int = 3) -> Tensor:
    return torch.randn(n, 2, 4, 4, generator=DRAW, dtype=torch.float64)


def test_velocity_gives_back_image_and_noise() -> None:
    x, noise, at = drawn(), drawn(), levels(3, 500, 1000)
    z, v = objectives.noised(x, noise, *at), objectives.velocity(x, noise, *at)
    torch.testing.assert_close(objectives.image_of(z, v, *at), x)
    torch.testing.assert_close(objectives.noise_of(z, v, *at), noise)
    torch.testing.assert_close(objectives.velocity_of(z, x, *at), v)
    # (z, v) is (ε, x) turned by the angle φ with α = cos φ: lengths stay.
    torch.testing.assert_close(z**2 + v**2, x**2 + noise**2)


def test_velocity_is_diffusers() -> None:
    scheduler, x, noise = model.scheduler(), drawn(), drawn()
    steps = torch.tensor([0, 300, 900])
    at = levels(*steps.tolist())
    torch.testing.assert_close(objectives.velocity(x, noise, *at), scheduler.get_velocity(x, noise, steps))
    torch.testing.assert_close(objectives.noised(x, noise, *at), scheduler.add_noise(x, noise, steps))


@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_sampling_steps_are_those_of_diffusers(steps: int) -> None:
    scheduler = model.scheduler()
    scheduler.set_timesteps(steps)
    way = track(model.LEVELS, steps)
    assert way == [*scheduler.timesteps.tolist(), -1]
    z, v = drawn(1), drawn(1)
    mine = theirs = z
    for here, there in pairwise(way):
        mine = objectives.ddim(mine, v, levels(here), levels(there), clip=1.0)
        theirs = scheduler.step(v, here, theirs, use_clipped_model_output=True).prev_sample
        if steps != 50:  # diffusers' own step back is 1024 // 50
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_min_snr_weight() -> None:
    ratio = torch.tensor([0.01, 1.0, 4.0, 5.0, 20.0])
    told = objectives.min_snr_weight(ratio)
    torch.testing.assert_close(told, torch.tensor([0.01 / 1.01, 0.5, 0.8, 5 / 6, 5 / 21]))
    torch.testing.assert_close(objectives.min_snr_weight(ratio, floor=1.0)[:2], torch.tensor([1 / 1.01, 0.5]))
    # An error in x is σ times one in v, and σ² = 1 / (SNR + 1): the weight on x is clamped SNR.
    alpha, sigma = levels(100)
    error = drawn(1)
    ratio = objectives.snr(alpha, sigma)
    on_x = (sigma * error).pow(2).mean() * ratio.clamp(max=5.0)
    torch.testing.assert_close(error.pow(2).mean() * objectives.min_snr_weight(ratio), on_x)


def test_guided_target() -> None:
    with_, without = drawn(), drawn()
    torch.testing.assert_close(objectives.guided(with_, without, 0.0), with_)
    torch.testing.assert_close(objectives.guided(with_, without, -1.0), without)
    scale = 7.5  # diffusers: v_∅ + scale (v_c − v_∅)
    torch.testing.assert_close(objectives.guided(with_, without, scale - 1), without + scale * (with_ - without))


def test_two_step_target_is_what_one_step_needs() -> None:
    here, half, there = levels(800), levels(600), levels(400)
    z, first, second = drawn(1), drawn(1), drawn(1)
    after = objectives.ddim(objectives.ddim(z, first, here, half), second, half, there)
    wanted = objectives.two_step_target(z, after, here, there)
    arrives = objectives.ddim(z, objectives.velocity_of(z, wanted, *here), here, there)
    torch.testing.assert_close(arrives, after)


def test_two_step_target_of_a_perfect_teacher_is_the_image() -> None:
    here, half, there = levels(1023), levels(511), levels(-1)
    x, noise = drawn(1), drawn(1)
    z = objectives.noised(x, noise, *here)
    middle = objectives.ddim(z, objectives.velocity(x, noise, *here), here, half)
    after = objectives.ddim(middle, objectives.velocity(x, noise, *half), half, there)
    torch.testing.assert_close(after, x)
    torch.testing.assert_close(objectives.two_step_target(z, after, here, there), x)


def test_progressive_weight() -> None:
    told = objectives.progressive_weight(torch.tensor([0.1, 1.0, 7.0, 100.0]))
    assert told.tolist() == [1.0, 1.0, 7.0, 20.0]


def test_features_apart_is_relative() -> None:
    a = [drawn(), 100 * drawn()]
    assert objectives.features_apart(a, a) == 0
    assert objectives.features_apart([2 * t for t in a], a) == pytest.approx(1.0)


def test_wrong_caption_asks_for_a_margin() -> None:
    right = torch.tensor([1.0, 2.0], requires_grad=True)
    assert objectives.wrong_caption(right, torch.tensor([1.2, 2.3]), 0.1) == 0
    told = objectives.wrong_caption(right, torch.tensor([1.0, 2.0]), 0.1)
    assert told.item() == pytest.approx(0.1)
    told.backward()
    assert right.grad is not None
    assert (right.grad > 0).all()


def test_guidance_weight_embedding_is_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline

    weight = torch.tensor([0.0, 1.5, 7.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, weight, embedding_dim=32)
    torch.testing.assert_close(model.weight_embedding(weight, 32), theirs, rtol=1e-3, atol=2e-3)


def test_levels_end_at_noise_and_image() -> None:
    alpha, sigma = levels(model.LEVELS - 1, -1)
    assert float(alpha[0]) < 1e-3
    assert float(sigma[0]) > 1 - 1e-6
    assert math.isclose(float(alpha[1]), 1.0)
