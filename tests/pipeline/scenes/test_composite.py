"""A chip of several looks: no cloud is left, pixels are spectra, and every grid has its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from remembered_scenes import clouded, flat, remember, window_of

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.scenes.chip import Chip, read_chip
from difffusr.pipeline.scenes.synthetic.sensor import observe
from difffusr.pipeline.scenes.synthetic.world import generate_world

SIDE = 96
WINDOW = window_of(SIDE)
KINDS = ("medoid", "geomedian")

#: Bands on the 20 m grid that make a spectrum.
SPECTRUM = (*GROUPS[10], *GROUPS[20])


def composite_of(monkeypatch, pixels, kind="geomedian", **rules) -> Chip:
    return read_chip(WINDOW, remember(monkeypatch, pixels), ChipRules(composite=kind, **rules))


@pytest.fixture(scope="module")
def truth() -> dict[str, NDArray[np.float32]]:
    """The generated world as a perfect sensor sees it, DN by band on native grids."""
    world = generate_world(size_m=(SIDE * 10, SIDE * 10))
    return {band: 10_000 * observe(world.reflectance[number], band) for number, band in enumerate(BANDS)}


def looked_at(
    truth: dict[str, NDArray[np.float32]], seed: int, noise: float = 40.0, haze: float = 30.0
) -> dict[str, NDArray[np.uint16]]:
    """The world on one day: another view and sun, thin haze, noise."""
    rng = np.random.default_rng(seed)
    view, haze = rng.normal(1, 0.05), abs(rng.normal(0, 1)) * haze
    out = {}
    for band, dn in truth.items():
        blue = haze * (1.5 if band in ("B01", "B02", "B03") else 0.5)
        noisy = dn * view * rng.normal(1, 0.01) + blue + rng.normal(0, noise, dn.shape)
        out[band] = noisy.clip(1, 20_000).astype(np.uint16)
    return {**out, "SCL": np.full((SIDE // 2,) * 2, 5, np.uint16)}


CLOUDS = (((0, 480), (0, 960)), ((300, 780), (180, 720)), ((620, 960), (0, 500)))


@pytest.mark.parametrize("told", [True, False], ids=["told by the classification", "one of them not told"])
@pytest.mark.parametrize("kind", KINDS)
def test_five_looks_with_clouds_in_three_have_no_cloud_left(monkeypatch, truth, kind, told):
    looks = [looked_at(truth, seed) for seed in range(5)]
    clear = composite_of(monkeypatch, looks, kind)
    cloudy = [clouded(look, *where) for look, where in zip(looks, CLOUDS, strict=False)]
    if not told:
        cloudy[1] = clouded(looks[1], *CLOUDS[1], scl=0)
    made = composite_of(monkeypatch, [*cloudy, *looks[3:]], kind)
    for gsd in GROUPS:
        off = np.abs(made.dn[gsd].astype(float) - clear.dn[gsd])
        assert off.max() < 2500, gsd  # clouds are 5000 and more above the ground
        assert off.mean() < 80
    assert (made.quality == Quality.CLEAR).all()
    assert made.looks is not None
    expected = np.full((SIDE, SIDE), 5)
    for (rows, cols), number in zip(CLOUDS, range(3), strict=True):
        if told or number != 1:
            expected[rows[0] // 10 : rows[1] // 10, cols[0] // 10 : cols[1] // 10] -= 1
    assert np.array_equal(made.looks, expected)
    assert made.looks.dtype == np.uint8


def angles(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees between spectra (C, n, n)."""
    cosine = (one * other).sum(axis=0) / (np.linalg.norm(one, axis=0) * np.linalg.norm(other, axis=0))
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def at_20_m(by_band) -> NDArray[np.float64]:
    bands = [np.asarray(by_band[band], float) for band in SPECTRUM]
    return np.stack([x.reshape(48, 2, 48, 2).mean(axis=(1, 3)) if x.shape[0] == SIDE else x for x in bands])


@pytest.mark.parametrize("hidden", [False, True], ids=["clouds masked", "thin clouds that no mask shows"])
@pytest.mark.parametrize("seed", [0, 20, 40])
def test_a_composite_s_spectra_are_nearer_to_the_truth_than_medians_band_by_band(monkeypatch, truth, seed, hidden):
    looks = [looked_at(truth, seed + number, haze=0) for number in range(5)]
    masked = [{band: look[band].astype(float) for band in BANDS} for look in looks]
    for number, (rows, cols) in enumerate(CLOUDS):
        if hidden:  # each by itself: two of five would be half of what is left
            rows, cols = (320 * number, 320 * number + 240), (0, 960)
        looks[number] = clouded(looks[number], rows, cols, dn=3000, scl=0 if hidden else 9)
        nothing = clouded(looks[number], rows, cols, dn=0)
        masked[number] = {b: np.where((nothing[b] == 0) & (not hidden), np.nan, looks[number][b]) for b in BANDS}
    chip = composite_of(monkeypatch, looks)
    made = {band: chip.dn[GSD_M[band]][GROUPS[GSD_M[band]].index(band)] for band in SPECTRUM}
    medians = {band: np.nanmedian([look[band] for look in masked], axis=0) for band in SPECTRUM}
    exact = at_20_m(truth)
    ours, theirs = angles(at_20_m(made), exact), angles(at_20_m(medians), exact)
    assert ours.mean() < 0.97 * theirs.mean()
    assert ours.mean() < 4


@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_of_a_medoid_is_a_measurement_in_all_bands_of_its_scene(monkeypatch, truth, seed):
    looks = [clouded(looked_at(truth, 9 * seed + k), *CLOUDS[k % 3]) for k in range(4)]
    made = composite_of(monkeypatch, looks, "medoid")
    for gsd in (10, 20):
        rank = made.source[:: gsd // 10, :: gsd // 10].astype(int) - 1
        for number, band in enumerate(GROUPS[gsd]):
            expected = np.choose(rank, [look[band] for look in looks])
            assert np.array_equal(made.dn[gsd][number], expected), band
    candidates = np.stack([np.stack([look[band] for band in GROUPS[60]]) for look in looks])
    assert (made.dn[60] == candidates).all(axis=1).any(axis=0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_look_or_the_same_look_again_is_that_look(monkeypatch, truth, kind, count):
    look = looked_at(truth, 3)
    made = composite_of(monkeypatch, [look] * count, kind)
    for gsd, bands in GROUPS.items():
        assert np.array_equal(made.dn[gsd], np.stack([look[band] for band in bands]))
        assert made.valid[gsd].all()
    assert made.looks is not None
    assert (made.looks == count).all()
    assert (made.source == 1).all()
    assert (made.scl == 5).all()


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chip_of_cloud_alone_is_of_the_first_scene_if_that_is_allowed(monkeypatch, truth, kind, allowed):
    looks = [clouded(looked_at(truth, seed), (0, 960), (0, 960), dn=7000 + seed) for seed in range(3)]
    made = composite_of(monkeypatch, looks, kind, allow_cloudy=allowed)
    assert made.looks is not None
    assert not made.looks.any()
    expected = 7000 if allowed else 0
    assert all((dn == expected).all() for dn in made.dn.values())
    assert (made.source == allowed).all()
    assert (made.quality == (Quality.CLOUDY if allowed else Quality.NO_DATA)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_that_every_look_takes_for_cloud_amid_clear_ground_is_composed_all_the_same(monkeypatch, kind):
    looks = [clouded(flat(SIDE, dn), (300, 320), (300, 320), dn=4000 + dn) for dn in (1000, 1010, 1020)]
    made = composite_of(monkeypatch, looks, kind, allow_cloudy=False)
    assert np.abs(made.dn[20][:, 15, 15] - 5010.0).max() <= 1
    assert (made.quality[30:32, 30:32] == Quality.CLOUDY).all()
    assert made.looks is not None
    assert not made.looks[30:32, 30:32].any()
    assert (made.quality == Quality.CLEAR).sum() == SIDE**2 - 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [(0, 0), (300, 480), (20, 940), (940, 20), (460, 460)])
def test_no_band_of_any_grid_takes_cloud_from_beside_it(monkeypatch, kind, at):
    """Clouds that begin amid a 60 m cell; the ground of every look is the same."""
    looks = [
        flat(SIDE),
        clouded(flat(SIDE), (at[0], 960), (at[1], 960)),
        clouded(flat(SIDE), (at[0], 960), (0, at[1] + 20)),
    ]
    made = composite_of(monkeypatch, looks, kind)
    assert all((dn == 1000).all() for dn in made.dn.values())


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_one_pass_are_one_look(monkeypatch, truth, kind):
    """The second shows the east, where the first ends; half a kilometre of ground is on both."""
    whole = [looked_at(truth, seed) for seed in range(3)]
    west, east = (
        {
            name: np.where(np.arange(px.shape[1]) / px.shape[1] < 0.75, px, 0).astype(np.uint16)
            for name, px in whole[0].items()
        },
        {
            name: np.where(np.arange(px.shape[1]) / px.shape[1] >= 0.25, px, 0).astype(np.uint16)
            for name, px in whole[0].items()
        },
    )
    scenes = remember(monkeypatch, [west, whole[1], east, whole[2]])
    scenes = [replace(scene, datatake="one" if number in (0, 2) else None) for number, scene in enumerate(scenes)]
    made = read_chip(WINDOW, scenes, ChipRules(composite=kind))
    expected = composite_of(monkeypatch, whole, kind)
    assert made.looks is not None
    inside = np.s_[..., 12:-12, 40:56]  # away from the swaths' edges
    assert (made.looks[inside] == 3).all()
    assert made.looks.max() == 3
    assert np.array_equal(made.dn[10][inside], expected.dn[10][inside])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seen", [0.25, 0.5, 0.75])
def test_beyond_every_swath_is_no_data_and_at_its_edge_no_zero_is_mixed_in(monkeypatch, kind, seen):
    edge = {
        name: np.where(np.arange(px.shape[1]) / px.shape[1] < seen, px, 0).astype(np.uint16)
        for name, px in flat(SIDE).items()
    }
    half = {
        name: np.where(np.arange(px.shape[0])[:, None] < px.shape[0] // 2, px, 0).astype(np.uint16)
        for name, px in edge.items()
    }
    made = composite_of(monkeypatch, [edge, half, edge], kind)
    for gsd, dn in made.dn.items():
        assert set(np.unique(dn)) == {0, 1000}
        assert np.array_equal((dn > 0).all(axis=0), made.valid[gsd])
        assert not made.valid[gsd][:, -SIDE * 10 // gsd // 4 :].any()
    assert made.looks is not None
    assert np.array_equal(made.looks > 0, made.source > 0)
    assert np.array_equal(made.quality > 0, made.source > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_without_scenes_there_is_a_chip_without_data_that_has_looks(kind):
    made = read_chip(WINDOW, [], ChipRules(composite=kind))
    assert made.looks is not None
    assert not made.looks.any()
    assert not made.source.any()
    assert made.looks.shape == made.quality.shape == (SIDE, SIDE)


def test_a_chip_of_single_scenes_has_no_looks(monkeypatch, truth):
    assert read_chip(WINDOW, remember(monkeypatch, [looked_at(truth, 1)]), ChipRules()).looks is None


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 8), st.integers(0, 7), st.integers(1, 8)), min_size=1, max_size=6
    ),
    st.sampled_from(KINDS),
)
@settings(deadline=None, max_examples=25)
def test_whatever_is_clouded_values_lie_between_those_of_the_clear_looks(clouds, kind):
    looks = [clouded(flat(SIDE, 1000 + 10 * k), (120 * r, 120 * r + 60 * h), (120 * c, 120 * c + 60 * w), dn=9000)
             for k, (r, h, c, w) in enumerate(clouds)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        made = composite_of(patch, looks, kind, allow_cloudy=False)
    assert made.looks is not None
    for gsd, dn in made.dn.items():
        seen = dn[:, made.valid[gsd]]
        assert ((seen >= 1000) & (seen < 1060)).all()
    count = sum((look["SCL"] == 4).astype(int) for look in looks).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(made.looks, count)


@pytest.mark.parametrize("seed", range(3))
def test_no_squares_of_20_m_show_in_a_geometric_median(monkeypatch, seed):
    """Steps between pixels of 10 m are as large across the edges of 20 m pixels as inside them."""
    rng = np.random.default_rng(seed)
    looks = []
    for _ in range(6):
        look = flat(SIDE)
        for band in BANDS:  # differences between looks that change from pixel to pixel of 20 m
            size = look[band].shape[0]
            cloudlike = np.kron(rng.normal(1500, 200, (48, 48)), np.ones((2, 2)))[:: SIDE // size, :: SIDE // size]
            smooth = sum(np.roll(cloudlike, (a, b), (0, 1)) for a in (-1, 0, 1, 2) for b in (-1, 0, 1, 2)) / 16
            look[band] = (smooth if size == SIDE else cloudlike).astype(np.uint16)
        looks.append(look)
    made = composite_of(monkeypatch, looks).dn[10][0].astype(float)
    steps = np.abs(np.diff(made, axis=1))
    own = np.abs(np.diff(np.mean([look["B02"].astype(float) for look in looks], axis=0), axis=1))
    ratio = (steps[:, 1::2].mean() / steps[:, ::2].mean()) / (own[:, 1::2].mean() / own[:, ::2].mean())
    assert 0.8 < ratio < 1.25
