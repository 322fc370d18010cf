"""Two scenes that meet inside a chip: no step in low frequencies, nothing seen twice, and each keeps its own detail."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from remembered_scenes import clouded, flat, remember, window_of

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.scenes.chip import Chip, read_chip

SIDE = 192
WINDOW = window_of(SIDE)
SOFT = ChipRules(blend="two-band")

#: Clouds over the best scene, in metres: rows, columns.
CLOUDS = {
    "the east": ((0, 1920), (960, 1920)),
    "the south": ((1200, 1920), (0, 1920)),
    "a square amid it": ((660, 1260), (660, 1260)),
    "a corner": ((0, 600), (1320, 1920)),
    "a strip": ((900, 1020), (0, 1920)),
}


def both(monkeypatch, pixels) -> tuple[Chip, Chip]:
    """The chip cut hard, and blended."""
    scenes = remember(monkeypatch, pixels)
    return read_chip(WINDOW, scenes, ChipRules()), read_chip(WINDOW, scenes, SOFT)


def textured(seed: int, size: float = 60) -> dict[str, NDArray[np.uint16]]:
    """Ground with detail in every pixel."""
    rng = np.random.default_rng(seed)
    out = flat(SIDE)
    for band in BANDS:
        out[band] = (out[band] + rng.normal(0, size, out[band].shape)).clip(1, None).astype(np.uint16)
    return out


def brighter(pixels, by: dict[str, int] | int):
    """The same ground by other light."""
    return {
        name: px if name == "SCL" else (px.astype(int) + (by if isinstance(by, int) else by[name])).astype(np.uint16)
        for name, px in pixels.items()
    }


def border_steps(chip: Chip, gsd: int, source: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(C, n) signed steps of each band between pixels on the two sides of a border, two apart: the narrow blend lies
    between."""
    here = source[:: gsd // 10, :: gsd // 10].astype(int)
    dn = chip.dn[gsd].astype(float)
    found = []
    for image, label in ((dn, here), (dn.swapaxes(1, 2), here.T)):
        change = label[:, 1:] != label[:, :-1]
        rows, cols = np.nonzero(change[:, 1:-1])
        cols = cols + 1
        sign = label[rows, cols + 1] - label[rows, cols]
        found.append((image[:, rows, cols + 2] - image[:, rows, cols - 1]) * sign)
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("offset", [-300, 40, 400])
def test_a_constant_difference_leaves_no_step_at_the_border(monkeypatch, cloud, offset):
    ground = flat(SIDE)
    hard, soft = both(monkeypatch, [clouded(ground, *CLOUDS[cloud]), brighter(ground, offset)])
    for gsd in (10, 20):
        assert np.abs(border_steps(hard, gsd, hard.source)).min() > 0.9 * abs(offset)
        assert np.abs(border_steps(soft, gsd, hard.source)).max() < 0.1 * abs(offset) + 2
    for name in ("quality", "source", "scl"):
        assert np.array_equal(getattr(hard, name), getattr(soft, name))
    assert all(np.array_equal(hard.valid[gsd], soft.valid[gsd]) for gsd in GROUPS)


@pytest.mark.parametrize("cloud", ["the east", "the south"])
def test_every_band_changes_over_about_a_kilometre_and_stays_between_the_two(monkeypatch, cloud):
    ground = flat(SIDE)
    offsets = {band: 100 * (number + 1) for number, band in enumerate(BANDS)}
    _, soft = both(monkeypatch, [clouded(ground, *CLOUDS[cloud]), brighter(ground, offsets)])
    for gsd, bands in GROUPS.items():
        for number, band in enumerate(bands):
            share = (soft.dn[gsd][number] - 1000.0) / offsets[band]
            along = share.mean(axis=0 if cloud == "the east" else 1)
            assert share.min() >= -0.01
            assert share.max() <= 1.01
            assert (np.diff(along) > -0.01).all()
            assert 500 < gsd * ((along > 0.1) & (along < 0.9)).sum() < 1500
            assert np.abs(np.diff(along)).max() < 0.1 * max(1, gsd / 20)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_each_side_keeps_its_own_detail_and_shows_none_of_the_other(monkeypatch, cloud):
    """Two dates whose detail has nothing in common: beyond the narrow blend every pixel has that of its own scene."""
    one, other = textured(1), brighter(textured(2), 200)
    hard, soft = both(monkeypatch, [clouded(one, *CLOUDS[cloud]), other])
    for gsd, bands in GROUPS.items():
        rank = hard.source[:: gsd // 10, :: gsd // 10].astype(int) - 1
        inside = np.ones(rank.shape, bool)  # not within two pixels of a border
        for down, right in product(range(-2, 3), repeat=2):
            inside &= np.roll(rank, (down, right), (0, 1)) == rank
        for number, band in enumerate(bands):
            smooth = soft.dn[gsd][number].astype(float) - np.choose(rank, [one[band], other[band]])
            for axis in (0, 1):
                near = np.take(inside, range(1, len(inside)), axis) & np.take(inside, range(len(inside) - 1), axis)
                kink = np.abs(np.diff(smooth, axis=axis))[near]
                assert kink.max() <= 4 * gsd / 10  # of a detail of 60


def test_a_double_edge_is_no_wider_than_the_narrow_blend(monkeypatch):
    """A road that lies elsewhere on the other date is seen on its own side alone."""
    one, other = flat(SIDE), flat(SIDE)
    for band in BANDS:
        step = GSD_M[band] // 10
        one[band][60 // step, :] += 2000
        other[band][120 // step, :] += 2000
    hard, soft = both(monkeypatch, [clouded(one, *CLOUDS["the east"]), other])
    border = int(np.flatnonzero(hard.source[0] == 2)[0])
    for gsd in (10, 20):
        edge, reach = border * 10 // gsd, 2
        rows = 600 // gsd, 1200 // gsd
        west, east = (soft.dn[gsd][0][row].astype(float) - np.median(soft.dn[gsd][0], axis=0) for row in rows)
        assert (west[: edge - reach] > 1900).all()
        assert np.abs(west[edge + reach :]).max() < 100
        assert (east[edge + reach :] > 1900).all()
        assert np.abs(east[: edge - reach]).max() < 100


@pytest.mark.parametrize("dn", [1, 5, 1000, 20_000, 65_000])
def test_equal_scenes_stay_as_they_are(monkeypatch, dn):
    hard, soft = both(monkeypatch, [clouded(flat(SIDE, dn), *CLOUDS["a corner"]), flat(SIDE, dn)])
    assert all(np.array_equal(hard.dn[gsd], soft.dn[gsd]) for gsd in GROUPS)


@pytest.mark.parametrize("pixels", ["one scene", "a better scene", "cloud alone", "nothing in common"])
def test_what_comes_from_one_scene_or_cannot_be_compared_is_the_same_to_the_bit(monkeypatch, pixels):
    one, other = textured(1), brighter(textured(2), 300)
    west = {n: np.where(np.arange(px.shape[1]) < px.shape[1] // 2, px, 0).astype(np.uint16) for n, px in one.items()}
    east = {n: np.where(np.arange(px.shape[1]) >= px.shape[1] // 2, px, 0).astype(np.uint16) for n, px in other.items()}
    cases = {
        "one scene": [clouded(one, *CLOUDS["the east"])],
        "a better scene": [one, other],
        "cloud alone": [clouded(px, (0, 1920), (0, 1920)) for px in (one, other)],
        "nothing in common": [west, east],
    }
    hard, soft = both(monkeypatch, cases[pixels])
    here = np.s_[:, :, :] if pixels != "nothing in common" else np.s_[:, :, : SIDE // 2 - 40]
    assert np.array_equal(hard.dn[10][here], soft.dn[10][here])
    if pixels != "nothing in common":
        assert all(np.array_equal(hard.dn[gsd], soft.dn[gsd]) for gsd in GROUPS)


def test_cloud_that_fills_a_gap_is_not_blended_with_the_ground(monkeypatch):
    """Both scenes are cloudy in the middle; each shows one half of the rest."""
    middle = (840, 1080), (840, 1080)
    one = clouded(clouded(textured(1), *CLOUDS["the east"]), *middle, dn=8000)
    other = clouded(brighter(textured(2), 300), *middle, dn=7000)
    hard, soft = both(monkeypatch, [one, other])
    for gsd in GROUPS:
        here = np.s_[:, 840 // gsd : 1080 // gsd, 840 // gsd : 1080 // gsd]
        assert np.array_equal(hard.dn[gsd][here], soft.dn[gsd][here])
        around = soft.dn[gsd][:, : 780 // gsd]
        assert around.max() < 2000


def test_three_scenes_meet_without_a_step(monkeypatch):
    ground = flat(SIDE)
    best = clouded(ground, (0, 1920), (660, 1920))
    second = clouded(brighter(ground, 200), (960, 1920), (660, 1920))
    hard, soft = both(monkeypatch, [best, second, brighter(ground, -150)])
    assert set(np.unique(hard.source)) == {1, 2, 3}
    for gsd in (10, 20):
        dn = soft.dn[gsd][0].astype(float)
        for axis in (0, 1):
            assert np.abs(np.diff(dn, axis=axis)).max() < 0.12 * 350


@given(st.integers(0, 28), st.integers(1, 16), st.integers(0, 28), st.integers(1, 16), st.integers(-900, 900))
@settings(deadline=None, max_examples=20)
def test_wherever_the_border_runs_no_pixel_is_darker_or_brighter_than_both(top, height, left, width, offset):
    ground = flat(SIDE)
    cloud = (60 * top, 60 * (top + height)), (60 * left, 60 * (left + width))
    with pytest.MonkeyPatch.context() as patch:
        _, soft = both(patch, [clouded(ground, *cloud), brighter(ground, offset)])
        _, again = both(patch, [clouded(ground, *cloud), brighter(ground, offset)])
    for gsd, dn in soft.dn.items():
        assert dn.min() >= 1000 + min(offset, 0) - 1
        assert dn.max() <= 1000 + max(offset, 0) + 1
        assert np.array_equal(dn, again.dn[gsd])


@pytest.mark.parametrize("change", [-800, 900, 3000])
@pytest.mark.parametrize("every", [3, 4, 6])
def test_what_changed_on_the_ground_in_some_fields_is_no_light(monkeypatch, change, every):
    """Fields of 180 m, some of which were harvested between the dates: the others still meet without a step."""
    harvested = np.random.default_rng(every).random((11, 11)) < 1 / every
    one, other = flat(SIDE), brighter(flat(SIDE), 150)
    for band in BANDS:
        size = other[band].shape[0]
        fields = np.kron(harvested, np.ones((180 // GSD_M[band],) * 2, bool))[:size, :size]
        other[band] = np.where(fields, other[band].astype(int) + change, other[band]).astype(np.uint16)
    hard, soft = both(monkeypatch, [clouded(one, *CLOUDS["the east"]), other])
    rest = ~np.kron(harvested, np.ones((18, 18), bool))[:SIDE, :SIDE]
    border = int(np.flatnonzero(hard.source[0] == 2)[0])
    rows = rest[:, border - 3 : border + 3].all(axis=1)
    assert rows.sum() > 20
    steps = [chip.dn[10][:, rows, border + 2].astype(float) - chip.dn[10][:, rows, border - 3] for chip in (hard, soft)]
    assert np.abs(steps[0] - 150).max() < 1
    assert np.abs(steps[1]).mean() < 45
    changed = np.kron(harvested, np.ones((18, 18), bool))[:SIDE, :SIDE] & (np.arange(SIDE) > border + 40)
    kept = soft.dn[10][0][changed].astype(float) - 1150
    assert abs(kept.mean() - change) < 0.1 * abs(change)
