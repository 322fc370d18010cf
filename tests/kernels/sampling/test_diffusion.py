"""Samplers are of the order they claim, and the same for the same noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difffusr.kernels.sampling.diffusion import cosine_schedule, ddim_sample, multistep_levels, multistep_sample

SCHEDULE = cosine_schedule()


#: Clean images in a world where the best estimate is known: independent pixels, normal around MEAN.
MEAN, SPREAD = 0.3, torch.logspace(-1.3, 0, 768, dtype=torch.float64).view(1, 3, 16, 16)


def denoise(x: Tensor, level: Tensor) -> Tensor:
    """The mean of all clean images that x could come from (Bayes for two normal distributions)."""
    level = level.view(-1, 1, 1, 1)
    variance = (level * SPREAD) ** 2 + 1 - level**2
    return MEAN + level * SPREAD**2 / variance * (x - level * MEAN)


def exact(x_T: Tensor, start: float, end: float) -> Tensor:
    """The estimate at the level `end` on the exact path from x_T at `start`: x keeps its place in its marginal."""
    deviation = [((level * SPREAD) ** 2 + 1 - level**2).sqrt() for level in (start, end)]
    x = end * MEAN + deviation[1] / deviation[0] * (x_T - start * MEAN)
    return denoise(x, torch.tensor([[end]], dtype=x.dtype))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def multistep_error(steps: int) -> float:
    levels, x_T = multistep_levels(SCHEDULE, steps), noise(1, 3, 16, 16)
    return float(
        (multistep_sample(denoise, x_T, levels, clip=9) - exact(x_T, levels[0], levels[-1])).square().mean().sqrt()
    )


def ddim_error(steps: int) -> float:
    skip, x_T = 1000 // steps, noise(1, 3, 16, 16)
    x0 = ddim_sample(denoise, x_T, SCHEDULE, skip=skip, skip_last=True, denoised=True, clip=9)
    start, end = (float(SCHEDULE.sqrt_alphas_cumprod[t]) for t in (1000 - skip, skip))
    return float((x0 - exact(x_T, start, end)).square().mean().sqrt())


@pytest.mark.parametrize("steps", [20, 40, 80])
def test_the_multistep_solver_is_of_second_order(steps):
    assert multistep_error(steps) / multistep_error(2 * steps) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("steps", [50, 100, 125, 250])
def test_ddim_is_of_first_order(steps):
    assert ddim_error(steps) / ddim_error(2 * steps) == pytest.approx(2, rel=0.1)


def test_five_multistep_evaluations_are_nearer_to_the_path_than_twenty_steps_of_ddim():
    assert multistep_error(5) < ddim_error(20)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(2, 9), batch=st.integers(1, 4))
def test_a_stacked_batch_is_its_single_runs_bit_for_bit(seed, steps, batch):
    x_T = torch.randn((batch, 3, 4, 5), generator=torch.Generator().manual_seed(seed))
    levels = multistep_levels(SCHEDULE, steps)
    spread = SPREAD.float()[:, :, :4, :5]

    def of_pixels(x: Tensor, level: Tensor) -> Tensor:
        return level.view(-1, 1, 1, 1) * spread * x

    stacked = multistep_sample(of_pixels, x_T, levels)
    singles = [multistep_sample(of_pixels, x[None], levels) for x in x_T]
    assert torch.equal(stacked, torch.cat(singles))
    assert torch.equal(stacked, multistep_sample(of_pixels, x_T, levels))


def test_one_step_of_first_order_is_a_step_of_ddim():
    x_T = noise(2, 3, 16, 16)
    levels = [float(SCHEDULE.sqrt_alphas_cumprod[t]) for t in (500, 0)]  # where two steps of DDIM evaluate
    ddim = ddim_sample(denoise, x_T, SCHEDULE, skip=500, denoised=True, clip=9)
    torch.testing.assert_close(
        multistep_sample(denoise, x_T, levels, clip=9), ddim, rtol=0, atol=1e-4
    )  # a float32 schedule


@settings(deadline=None)
@given(steps=st.integers(2, 50))
def test_levels_are_even_in_lambda_from_the_first_to_the_last_of_the_published_twenty_steps(steps):
    levels = torch.tensor(multistep_levels(SCHEDULE, steps), dtype=torch.float64)
    lam = (levels / (1 - levels**2).sqrt()).log()
    assert len(levels) == steps
    assert (lam.diff() > 0).all()
    torch.testing.assert_close(lam.diff(), lam.diff()[:1].expand(steps - 1), rtol=1e-6, atol=0)
    ends = SCHEDULE.sqrt_alphas_cumprod[[950, 50]].double()
    torch.testing.assert_close(levels[[0, -1]], ends, rtol=1e-6, atol=0)


def test_the_network_sees_each_level_once_and_its_estimates_are_clamped():
    seen = []

    def far_off(x: Tensor, level: Tensor) -> Tensor:
        seen.append(level)
        return 7 * x.sign()

    levels = multistep_levels(SCHEDULE, 6)
    assert multistep_sample(far_off, noise(2, 3, 4, 4), levels, clip=2).abs().max() == 2
    assert [x.shape for x in seen] == [(2, 1)] * 6
    assert [float(x[1]) for x in seen] == levels
