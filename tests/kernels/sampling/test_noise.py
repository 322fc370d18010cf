"""The same ground starts from the same noise, whichever chip, window or device asks for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
