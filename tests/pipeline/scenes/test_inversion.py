"""What is done to a scene's DN can be taken back."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from balanced_scenes import LEFT, SIDE, TOP, balanced, correction

from difffusr.kernels.bands import BANDS, GROUPS
from difffusr.pipeline.plan.balance import read_balance, write_balance
from difffusr.pipeline.scenes.correction import Correction
from difffusr.pipeline.storage.objects import Storage

KINDS = {
    "nothing": correction(),
    "an offset": correction(offset=-143),
    "a tilted offset": correction(offset=25, tilt=-80.5),
    "a gain above 1": correction(gain=1.08),
    "a gain below 1": correction(gain=0.9),
    "a factor alone": correction(factor=0.954, slope=0.08),
    "all, brighter": correction(1.03, 40, 60, 1.02, 0.05),
    "all, darker": correction(0.94, -20, 30, 0.96, -0.04, hazy=True),
}

#: Windows of 6 × 6 km: at the north-west corner, in the middle, across the eastern edge, beyond the tile.
PLACES = {"corner": (0, 0), "middle": (54_000, 48_000), "edge": (SIDE - 3000, 0), "beyond": (-90_000, SIDE + 9000)}


def bounds_of(place: str) -> tuple[float, float, float, float]:
    east, south = PLACES[place]
    return LEFT + east, TOP - south - 6000, LEFT + east + 6000, TOP - south


def some_dn(low: int = 500, high: int = 16_000) -> dict[int, np.ndarray]:
    """DN of a window with holes."""
    rng = np.random.default_rng(5)
    out = {}
    for gsd, bands in GROUPS.items():
        dn = rng.integers(low, high, (len(bands), 6000 // gsd, 6000 // gsd)).astype(np.uint16)
        dn[:, :3, :5] = 0
        out[gsd] = dn
    return out


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_dn_come_back_to_the_rounding(kind: str, place: str) -> None:
    done, dn, bounds = KINDS[kind], some_dn(), bounds_of(place)
    back = done.inverted(done.corrected(dn, bounds), bounds)
    for gsd, bands in GROUPS.items():
        assert back[gsd].dtype == np.uint16
        np.testing.assert_array_equal(back[gsd] == 0, dn[gsd] == 0)
        for i, band in enumerate(bands):
            off = np.abs(back[gsd][i].astype(int) - dn[gsd][i])
            scale = done.scale_and_offset(band, bounds, gsd)[0]
            assert off.max() <= 1
            assert not off[scale > 1.01].any()
            assert (off <= 0.5 / scale + 0.51).all()


@pytest.mark.parametrize("kind", ["nothing", "a gain above 1", "all, brighter"])
def test_where_the_scale_is_above_1_every_dn_comes_back(kind: str) -> None:
    done, bounds = KINDS[kind], bounds_of("middle")
    dn = {gsd: np.arange(200, 200 + 36_000_000 // gsd**2).reshape(6000 // gsd, -1) % 50_000 + 1 for gsd in GROUPS}
    whole = {gsd: np.repeat(dn[gsd][None], len(bands), 0).astype(np.uint16) for gsd, bands in GROUPS.items()}
    back = done.inverted(done.corrected(whole, bounds), bounds)
    for gsd in GROUPS:
        np.testing.assert_array_equal(back[gsd], whole[gsd])


def test_only_what_was_clipped_is_lost() -> None:
    done, bounds, dn = correction(offset=-400), bounds_of("middle"), some_dn(1, 900)
    balanced_dn = done.corrected(dn, bounds)
    back = done.inverted(balanced_dn, bounds)
    for gsd in GROUPS:
        clipped = (dn[gsd] > 0) & (dn[gsd] <= 401)
        assert clipped.any()
        assert (balanced_dn[gsd][clipped] == 1).all()
        np.testing.assert_array_equal(back[gsd][~clipped], dn[gsd][~clipped])
        assert (back[gsd][clipped] == 401).all()


def test_too_bright_is_clipped_below_no_data() -> None:
    done, bounds, dn = correction(gain=1.5), bounds_of("middle"), some_dn(60_000, 65_535)
    for gsd, planes in done.corrected(dn, bounds).items():
        assert set(np.unique(planes)) == {0, 65_534}, gsd


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_of_the_documentation_is_what_is_done(kind: str) -> None:
    """By hand at the middle of one pixel, from the figures of the cube's scene table and the grid."""
    done, bounds = KINDS[kind], bounds_of("middle")
    told = done.to_json()
    dn = some_dn()
    made = done.corrected(dn, bounds)
    row, col = 40, 77
    x, y = bounds[0] + (col + 0.5) * 20, bounds[3] - (row + 0.5) * 20
    left, top, side = told["square"]
    u, v = (x - left) / side, (top - y) / side
    for i, band in enumerate(GROUPS[20]):
        number = BANDS.index(band)
        nw, ne, sw, se = told["offset"][number]
        offset = (nw * (1 - u) + ne * u) * (1 - v) + (sw * (1 - u) + se * u) * v
        p, q = (x - done.factor_left) / done.factor_step_m, (done.factor_top - y) / done.factor_step_m
        a, b = int(q), int(p)
        nodes = done.factor[number].astype(float)
        factor = (nodes[a, b] * (1 - (p - b)) + nodes[a, b + 1] * (p - b)) * (1 - (q - a))
        factor += (nodes[a + 1, b] * (1 - (p - b)) + nodes[a + 1, b + 1] * (p - b)) * (q - a)
        expected = told["gain"][number] * factor * float(dn[20][i, row, col]) + offset
        assert abs(float(made[20][i, row, col]) - expected) < 0.51


@pytest.mark.parametrize("kind", KINDS)
def test_a_correction_that_was_kept_is_the_same(tmp_path: Path, kind: str) -> None:
    folder = Storage(str(tmp_path))
    write_balance(balanced({"one": KINDS[kind], "other": correction(1.2, 7, 3)}), folder)
    kept = read_balance(folder)
    assert kept is not None
    found: Correction = kept.correction["one"]
    assert found.key() == KINDS[kind].key()
    dn, bounds = some_dn(), bounds_of("corner")
    for gsd, planes in found.inverted(KINDS[kind].corrected(dn, bounds), bounds).items():
        assert np.abs(planes.astype(int) - dn[gsd]).max() <= 1
    names = pq.read_table(BytesIO(folder.read("balance.parquet"))).column_names
    assert {"id", "gain", "offset", "left", "top", "side_m", "factor", "factor_step_m"} <= set(names)
