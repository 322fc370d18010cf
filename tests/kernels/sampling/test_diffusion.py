"""Samplers: of the order they claim, the same for the same noise, and chosen by one key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beside import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.model import load_model, model_fingerprint
from difffusr.kernels.networks.stage1 import Stage1
from difffusr.kernels.sampling.diffusion import cosine_schedule, ddim_sample, multistep_levels, multistep_sample
from difffusr.kernels.sampling.settings import SAMPLERS, Sampling
from difffusr.kernels.weights.checkpoints import load_weights
from difffusr.kernels.weights.shipped import shipped, shipped_sampling
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.plan.networks import sampling_of
from difffusr.pipeline.run.cost.calibration import conditions_of
from difffusr.pipeline.weights.evaluation.card import held_out_pairs
from difffusr.pipeline.weights.evaluation.curve import DISTANCES, MOST_DISTANCE, MOST_PSNR_DB, costs, point

DATA = SHARED / "data"

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


# --- the models -------


@pytest.fixture(scope="module")
def stage1():
    return Stage1.from_weights(load_weights(shipped("small", "stage1")))


def test_draft_needs_neither_noise_nor_the_diffusion_network():
    model = load_model("small", sampling=shipped_sampling().by("draft"))
    del model.stage1.ema
    reflectance = torch.Generator().manual_seed(0)
    bands = {
        gsd: 0.3 * torch.rand((1, len(GROUPS[gsd]), 360 // gsd, 360 // gsd), generator=reflectance) for gsd in GROUPS
    }
    valid = {gsd: torch.ones_like(x[:, :1], dtype=torch.bool) for gsd, x in bands.items()}
    assert model(bands, valid, None).shape == (1, 12, 144, 144)
    model.sampling = shipped_sampling().by("fast")
    with pytest.raises(ValueError, match="starts from noise"):
        model(bands, valid, None)


@pytest.mark.skipif(not DATA.exists(), reason=f"no real data: {DATA} is not there")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fast_costs_next_to_nothing_against_reference(stage1):
    pairs = held_out_pairs(DATA, "sensor")[1::6]
    own = shipped_sampling()
    cost = costs(point(stage1, pairs, own.by("fast")), point(stage1, pairs, own.by("reference")))
    assert cost["psnr"] <= MOST_PSNR_DB
    assert all(cost[name] <= MOST_DISTANCE for name in DISTANCES)


# --- the key -------


def configured(**model: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "here",
            "area": {"tiles": ["31UGR"]},
            "period": {"start": "2023-06-01", "end": "2023-06-30"},
            "source": {"stac_api": "https://example.com"},
            "store": {"url": "memory://cube.zarr"},
            "model": model,
        }
    )


PUBLISHED = {"preset": "published", "stage1": "a.ckpt", "fusion": "b.ckpt"}


def test_reference_with_published_weights_is_the_published_sampler():
    published = Sampling(solver="ddim", steps=20, denoised=False, temperature=1.0)
    assert sampling_of(configured(**PUBLISHED)) == published
    assert sampling_of(configured(**PUBLISHED, sampler="reference")) == published


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_decides_on_solver_and_steps_and_leaves_the_weights_temperature(sampler):
    own, chosen = shipped_sampling(), sampling_of(configured(sampler=sampler))
    assert (chosen.solver, chosen.steps) == SAMPLERS[sampler]
    assert (chosen.temperature, chosen.denoised) == (own.temperature, own.denoised)


def test_steps_of_the_configuration_replace_those_of_the_sampler():
    assert sampling_of(configured(sampler="fast", sampler_steps=7)) == Sampling(
        solver="multistep", steps=7, denoised=True, temperature=shipped_sampling().temperature
    )
    assert sampling_of(configured(**PUBLISHED, sampler_steps=100)).steps == 100


def test_every_sampler_has_keys_and_calibrations_of_its_own():
    choices = [{"sampler": name} for name in SAMPLERS] + [{"sampler": "fast", "sampler_steps": 20}]
    configs = [configured(**choice) for choice in choices]
    fingerprints = {model_fingerprint("small", None, None, sampling_of(config)) for config in configs}
    assert len(fingerprints) == len(choices)
    assert len({conditions_of(config) for config in configs}) == len(choices)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("sampler: best", "model.sampler: found 'best', expected 'reference', 'fast' or 'draft', or null"),
        ("sampler: reference\n  sampler_steps: 7", "model.sampler_steps: found 7, expected an integer from 2"),
        ("sampler: fast\n  sampler_steps: 100", "from 2 to 50 with model.sampler 'fast'"),
        ("sampler: fast\n  sampler_steps: 1", "model.sampler_steps: found 1"),
        ("sampler: draft\n  sampler_steps: 10", "model.sampler_steps: found 10, expected null: not valid with"),
        ("sampler: draft\n  temperature: 0.5", "model.temperature: found 0.5, expected null: not valid with"),
        ("sampler: draft\n  uncertainty_samples: 8", "model.uncertainty_samples: found 8, expected 0: not valid with"),
    ],
)  # fmt: skip
def test_what_a_sampler_cannot_do_is_told_in_one_line(tmp_path, model, said):
    file = tmp_path / "run.yaml"
    file.write_text(
        "area: {tiles: [31UGR]}\nperiod: {start: 2023-06-01, end: 2023-06-30}\n"
        f"source: {{stac_api: 'https://example.com'}}\nstore: {{url: cube.zarr}}\nmodel:\n  {model}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
