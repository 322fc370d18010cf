"""The sensor model, and back-projection: seen through the sensor, the result is what was measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST
from difffusr.kernels.images.consistency import back_project, observe, sensor_for_group, sensor_matrix


@pytest.mark.parametrize("band", ["B01", "B04", "B11"])
def test_the_sensor_has_its_mtf_at_nyquist_and_keeps_the_mean(band):
    factor = {"B01": 24, "B04": 4, "B11": 8}[band]
    m = sensor_matrix(64, factor, MTF_NYQUIST[band])
    assert np.allclose(m @ np.ones(64 * factor), 1)
    x = (np.arange(64 * factor) + 0.5) / factor
    wave = np.cos(np.pi * (x - 0.5))  # peaks at the coarse pixels' centres
    seen = (m @ wave)[16:48]
    assert np.abs(seen).max() == pytest.approx(MTF_NYQUIST[band], rel=0.02)


@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_back_projection_gives_the_measurement_back(gsd):
    size = {10: 96, 20: 48, 60: 16}[gsd]
    factor = int(gsd / 2.5)
    generator = torch.Generator().manual_seed(gsd)
    sensor = sensor_for_group(gsd, size, iterations=1000)
    bands = len(GROUPS[gsd])
    truth = torch.rand((2, bands, size * factor, size * factor), generator=generator) * 0.3
    measured = observe(truth, sensor)
    guess = truth + 0.05 * torch.randn(truth.shape, generator=generator) + 0.03
    better = back_project(guess, measured, torch.ones(2, 1, size, size), sensor)
    before = (observe(guess, sensor) - measured).abs().mean()
    after = (observe(better, sensor) - measured).abs().mean()
    assert after < 0.03 * before
    assert (better - truth).pow(2).mean() < (guess - truth).pow(2).mean()


@pytest.mark.parametrize("gsd", [10, 20, 60])
def test_what_the_sensor_passes_is_given_back_in_few_iterations(gsd):
    size, factor = 960 // gsd, int(gsd / 2.5)
    sensor = sensor_for_group(gsd, size)
    ramp = torch.linspace(0.05, 0.4, size * factor).expand(1, len(GROUPS[gsd]), size * factor, size * factor)
    measured = observe(ramp, sensor)
    better = back_project(torch.full_like(ramp, 0.2), measured, torch.ones(1, 1, size, size), sensor)
    assert (observe(better, sensor) - measured).abs().max() < 0.002


def test_back_projection_asks_nothing_where_nothing_was_measured():
    sensor = sensor_for_group(10, 48)
    x = torch.full((1, 4, 192, 192), 0.1)
    measured = torch.full((1, 4, 48, 48), 0.9)
    assert torch.equal(back_project(x, measured, torch.zeros(1, 1, 48, 48), sensor), x)
