"""Noise, blending and consistency: what makes a mosaic of chips one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST
from difffusr.kernels.images.blending import WEIGHT_ONE, Layer, blend, chip_window
from difffusr.kernels.images.consistency import back_project, observe, sensor_for_group, sensor_matrix
from difffusr.kernels.images.inpaint import fill_invalid
from difffusr.kernels.sampling.noise import ground_noise, philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    words = philox4x32(tuple(torch.tensor(c) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


@given(
    row=st.integers(-4_000_000, 4_000_000),
    col=st.integers(0, 400_000),
    down=st.integers(-40, 40),
    right=st.integers(-40, 40),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=40, deadline=None)
def test_overlapping_chips_start_from_the_same_noise(row, col, down, right, seed):
    a = ground_noise(seed, 32648, row, col, 48, 56)
    b = ground_noise(seed, 32648, row + down, col + right, 48, 56)
    rows = slice(max(0, down), min(48, 48 + down))
    cols = slice(max(0, right), min(56, 56 + right))
    rows_b = slice(rows.start - down, rows.stop - down)
    cols_b = slice(cols.start - right, cols.stop - right)
    assert torch.equal(a[:, rows, cols], b[:, rows_b, cols_b])


def test_ground_noise_is_white_and_standard_normal():
    z = ground_noise(3, 32633, -200_000, 150_000, 512, 512)
    assert abs(float(z.mean())) < 5e-3
    assert abs(float(z.std()) - 1) < 5e-3
    kurtosis = float(((z - z.mean()) ** 4).mean() / z.var() ** 2)
    assert abs(kurtosis - 3) < 0.05
    for shift in ((0, 1), (1, 0), (1, 1)):
        rolled = torch.roll(z, shift, dims=(1, 2))
        assert abs(float((z * rolled).mean())) < 5e-3
    assert abs(float((z[0] * z[1]).mean())) < 1e-2
    assert abs(float((z[0] * z[2]).mean())) < 1e-2


def test_ground_noise_differs_by_seed_zone_and_stream():
    base = ground_noise(1, 32648, 0, 0, 8, 8)
    for other in (
        ground_noise(2, 32648, 0, 0, 8, 8),
        ground_noise(1 + 2**32, 32648, 0, 0, 8, 8),
        ground_noise(1, 32647, 0, 0, 8, 8),
        ground_noise(1, 32648, 0, 0, 8, 8, stream=1),
    ):
        assert not torch.equal(base, other)


@given(size=st.integers(40, 200), share=st.floats(0.05, 0.5), margin=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_windows_of_neighbours_add_up_to_one(size, share, margin):
    overlap = max(int(size * share), 2 * margin + 1)
    if overlap >= size // 2:  # no row has full weight
        return
    w = chip_window(size, overlap, margin)[size // 2]
    inner = slice(size - overlap, size)
    assert np.abs(w[inner] + w[:overlap] - WEIGHT_ONE).max() <= 1
    assert (w[:margin] == 0).all()


def _scattered_chips(rng, count=9, size=48):
    for rank in range(count):
        at = tuple(rng.integers(-30, 80, 2).tolist())
        values = rng.integers(1, 65535, (3, size, size)).astype(np.uint16)
        marks = rng.integers(0, 9, (2, size, size)).astype(np.uint16)
        valid = rng.random((size, size)) > 0.2
        yield Layer(values, marks, valid, at, rank)


def _blended(layers, window, shape, labels):
    values, marks = np.empty((layers[0].values.shape[0], *shape), np.uint16), np.empty((labels, *shape), np.uint16)
    blend(layers, window, values, list(marks))
    return values, marks


def test_chips_blended_in_any_order_give_the_same_array():
    rng = np.random.default_rng(5)
    chips, window = list(_scattered_chips(rng)), chip_window(48, 16, 2)
    results = [_blended([chips[i] for i in rng.permutation(len(chips))], window, (96, 96), 2) for _ in range(6)]
    for values, labels in results[1:]:
        assert np.array_equal(values, results[0][0])
        assert np.array_equal(labels, results[0][1])


def test_blending_equal_chips_changes_nothing_and_invalid_pixels_stay_empty():
    window = chip_window(48, 12, 2)
    world = np.random.default_rng(0).integers(1, 20_000, (2, 48, 84)).astype(np.uint16)
    valid = np.ones((48, 84), bool)
    valid[20:24, 40:44] = False
    layers = [
        Layer(world[:, :, col : col + 48], (), valid[:, col : col + 48], (0, col), rank)
        for rank, col in enumerate((0, 36))
    ]
    values, _ = _blended(layers, window, (48, 84), 0)
    inner = np.s_[2:-2, 2:-2]
    expected = np.where(valid, world, 0)
    assert np.array_equal(values[(slice(None), *inner)], expected[(slice(None), *inner)])


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


def test_filled_pixels_continue_their_surroundings():
    x = torch.full((1, 2, 37, 50), 0.3)
    valid = torch.ones(1, 1, 37, 50, dtype=torch.bool)
    valid[..., 10:, 20:] = False
    holed = torch.where(valid, x, torch.nan).nan_to_num(0.0)
    filled = fill_invalid(holed, valid)
    assert torch.allclose(filled, x, atol=1e-6)
    assert torch.equal(fill_invalid(x, torch.ones_like(valid)), x)
