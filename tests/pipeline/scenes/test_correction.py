"""What is done to DN: gain, factor and offset, and back again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from difffusr.kernels.bands import BANDS, GROUPS
from difffusr.pipeline.scenes.correction import Correction

BOUNDS = (500_040.0, 5_198_040.0, 501_960.0, 5_199_960.0)


def correction(**changes: Any) -> Correction:
    plain = Correction(
        499_980.0, 5_200_020.0, 109_800.0, np.ones(12), np.zeros((12, 2, 2)), np.ones((12, 23, 23), np.float32),
        499_980.0, 5_200_020.0, 5_000.0,
    )  # fmt: skip
    return replace(plain, **changes)


def chip(seed: int = 0, low: int = 2, high: int = 9000) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    dn = {
        gsd: rng.integers(low, high, (len(bands), 1920 // gsd, 1920 // gsd)).astype(np.uint16)
        for gsd, bands in GROUPS.items()
    }
    for plane in dn.values():
        plane[:, :2] = 0
    return dn


def test_nothing_done_is_nothing_changed() -> None:
    dn = chip()
    out = correction().corrected(dn, BOUNDS)
    for gsd in GROUPS:
        np.testing.assert_array_equal(out[gsd], dn[gsd])


@pytest.mark.parametrize(("gain", "offset"), [(1.02, -130.0), (0.98, 45.5), (1.0, 310.0)])
def test_gain_and_offset_of_each_band(gain: float, offset: float) -> None:
    gains, offsets = np.ones(12), np.zeros((12, 2, 2))
    number = BANDS.index("B04")
    gains[number], offsets[number] = gain, offset
    dn = chip(low=400)
    out = correction(gain=gains, offset=offsets).corrected(dn, BOUNDS)
    for gsd, bands in GROUPS.items():
        for i, band in enumerate(bands):
            here = dn[gsd][i]
            if band == "B04":
                wanted = np.where(here > 0, np.rint(here * np.float32(gain) + np.float32(offset)), 0)
                np.testing.assert_array_equal(out[gsd][i], wanted)
            else:
                np.testing.assert_array_equal(out[gsd][i], here)


def test_the_offset_is_bilinear_between_the_corners() -> None:
    offset = np.zeros((12, 2, 2))
    offset[:] = [[0, 100], [200, 300]]
    one = correction(offset=offset)
    for east, south, wanted in ((0, 0, 0), (1, 0, 100), (0, 1, 200), (1, 1, 300), (0.5, 0.5, 150), (0.25, 0.5, 125)):
        x, y = one.left + east * one.side_m, one.top - south * one.side_m
        _, added = one.scale_and_offset("B02", (x - 5, y - 5, x + 5, y + 5), 10)
        assert added.item() == pytest.approx(wanted, abs=0.01)


def test_the_factor_is_that_of_the_place_on_every_grid() -> None:
    factor = np.ones((12, 23, 23), np.float32)
    factor[:] = np.linspace(0.95, 1.05, 23)[None, :]
    one = correction(factor=factor)
    scales = {gsd: one.scale_and_offset(bands[0], BOUNDS, gsd)[0] for gsd, bands in GROUPS.items()}
    np.testing.assert_allclose(scales[10].reshape(32, 6, 32, 6).mean(axis=(1, 3)), scales[60], rtol=1e-5)
    np.testing.assert_allclose(scales[20].reshape(32, 3, 32, 3).mean(axis=(1, 3)), scales[60], rtol=1e-5)
    assert scales[10][0, 0] < scales[10][0, -1]


@pytest.mark.parametrize("offset", [-9500.0, 70_000.0])
def test_dn_stay_dn(offset: float) -> None:
    dn = chip()
    out = correction(offset=np.full((12, 2, 2), offset)).corrected(dn, BOUNDS)
    for gsd in GROUPS:
        assert out[gsd].dtype == np.uint16
        assert ((out[gsd] == 0) == (dn[gsd] == 0)).all()
        assert set(np.unique(out[gsd][dn[gsd] > 0])) == {1 if offset < 0 else 65534}


@pytest.mark.parametrize("seed", range(3))
def test_it_can_be_undone_to_the_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = correction(
        gain=rng.uniform(0.97, 1.03, 12),
        offset=rng.normal(0, 60, (12, 2, 2)),
        factor=rng.uniform(0.92, 1.08, (12, 23, 23)).astype(np.float32),
    )
    dn = chip(seed, low=900)
    out = one.corrected(dn, BOUNDS)
    for gsd, bands in GROUPS.items():
        for i, band in enumerate(bands):
            scale, offset = one.scale_and_offset(band, BOUNDS, gsd)
            there = dn[gsd][i] > 0
            back = (out[gsd][i] - offset) / scale
            assert np.abs(back - dn[gsd][i])[there].max() <= 0.5 / scale.min() + 1e-2


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": np.full(12, 1.0001)},
        {"offset": np.full((12, 2, 2), 0.1)},
        {"factor": np.full((12, 23, 23), 1.00002, np.float32)},
        {"left": 499_920.0},
        {"side_m": 100.0},
        {"factor_top": 5_200_080.0},
        {"hazy": True},
    ],
)
def test_its_key_is_that_of_all_it_does(changes: dict[str, Any]) -> None:
    assert correction().key() == correction().key()
    assert correction(**changes).key() != correction().key()


def test_the_scene_table_holds_what_undoes_it() -> None:
    offset = np.arange(48.0).reshape(12, 2, 2)
    told = correction(offset=offset, hazy=True).to_json()
    assert told["gain"] == [1.0] * 12
    assert told["offset"][1] == [4.0, 5.0, 6.0, 7.0]
    assert told["factor"] == [1.0] * 12
    assert told["square"] == [499_980.0, 5_200_020.0, 109_800.0]
    assert told["hazy"]
