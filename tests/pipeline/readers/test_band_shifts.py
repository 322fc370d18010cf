"""Scenes whose bands are shifted are named, whatever they show; aligned ones, water and cloud are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import rasterio
from beside import SHARED
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.pipeline.geo.grid import ChipIndex
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan.tables import ChipPlan
from difffusr.pipeline.readers.band_shifts import ShiftCheck
from difffusr.pipeline.scenes.chip_pixels import Chip

ITEMS = SHARED / "data" / "archive" / "items"

#: Side of a chip in pixels of 10 m.
SIDE = 192

#: How far bands are moved, metres down and right.
Moves = Mapping[str, tuple[float, float]]

#: What was once wrong with archives: 20 m bands a pixel of 10 m off, 60 m bands 30 and 40 m.
TWENTY = dict.fromkeys(GROUPS[20], (10.0, 0.0))
SIXTY = dict.fromkeys(GROUPS[60], (30.0, 40.0))


def moved(image: NDArray[np.float64], down: float, right: float) -> NDArray[np.float64]:
    """Shifted by a fraction of a pixel, by turning the phases of the spectrum."""
    rows, cols = (np.fft.fftfreq(n) for n in image.shape)
    turn = np.exp(-2j * np.pi * (down * rows[:, None] + right * cols))
    return np.fft.ifft2(np.fft.fft2(image) * turn).real


def chip_of(bands: Mapping[str, NDArray[np.float64]], moves: Moves | None = None) -> Chip:
    """A clear chip of the middle of bands in DN, some of them moved."""
    dn, corner = {}, [(size - SIDE // 6) // 2 for size in bands["B01"].shape]
    for gsd, names in GROUPS.items():
        n, planes = SIDE * 10 // gsd, []
        for name in names:
            down, right = (moves or {}).get(name, (0.0, 0.0))
            plane = moved(bands[name], down / gsd, right / gsd) if down or right else bands[name]
            row, col = (place * 60 // gsd for place in corner)
            planes.append(plane[row : row + n, col : col + n])
        dn[gsd] = np.clip(np.round(planes), 1, 65_000).astype(np.uint16)
    valid = {gsd: np.ones(x.shape[1:], bool) for gsd, x in dn.items()}
    quality, source = np.full((SIDE, SIDE), Quality.CLEAR, np.uint8), np.ones((SIDE, SIDE), np.uint16)
    return Chip(dn, valid, quality, source, np.full((SIDE // 2, SIDE // 2), 4, np.uint8))


@cache
def landscape(seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Bands in DN with one structure and some of their own, on twice the area of a chip."""
    rng = np.random.default_rng(seed)

    def texture(n: int) -> NDArray[np.float64]:
        cycles = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
        cycles[0, 0] = 1
        image = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) / cycles).real
        return image / image.std()

    common, found = texture(2 * SIDE), {}
    for band in BANDS:
        image = 2000 + rng.uniform(200, 500) * common + 80 * texture(2 * SIDE)
        f, n = GSD_M[band] // 10, 2 * SIDE * 10 // GSD_M[band]
        found[band] = image.reshape(n, f, n, f).mean(axis=(1, 3)) + rng.normal(0, 5, (n, n))
    return found


@cache
def archived(scene: str) -> dict[str, NDArray[np.float64]]:
    if not ITEMS.exists():
        pytest.skip(f"no real scenes: {ITEMS} is not there")
    found = {}
    for band in BANDS:
        with rasterio.open(ITEMS / scene / f"{band}.tif") as file:
            found[band] = file.read(1).astype(np.float64)
    return found


def plans(count: int, scene: str = "A", clear: float = 1.0) -> list[ChipPlan]:
    return [ChipPlan(32632, ChipIndex(0, i), (scene,), 1.0, clear, f"{i:064}") for i in range(count)]


def found_in(chips: list[Chip], scene: str = "A"):
    planned = plans(len(chips), scene)
    check = ShiftCheck(planned)
    for plan, chip in zip(reversed(planned), reversed(chips), strict=True):
        check.look(plan, chip)
    return check.shifted()


@pytest.mark.parametrize(
    "moves",
    [
        TWENTY, SIXTY, {**TWENTY, **SIXTY}, {"B09": (0.0, -40.0)}, {"B01": (-35.0, 0.0)}, {"B12": (-8.0, 9.0)},
        {"B05": (0.0, 20.0), "B11": (-20.0, 0.0)}, {"B8A": (-11.0, 0.0), "B09": (60.0, 60.0)},
    ],
)  # fmt: skip
def test_bands_that_are_shifted_by_half_a_pixel_are_named_with_their_shift(moves):
    (scene,) = found_in([chip_of(landscape(seed), moves) for seed in range(2)])
    assert {band.band for band in scene.bands} == set(moves)
    assert (scene.scene, scene.chips) == ("A", 2)
    for band in scene.bands:
        assert GSD_M[band.against] < GSD_M[band.band]
        by = moves.get(band.against, (0.0, 0.0))
        assert band.down_m == pytest.approx(moves[band.band][0] - by[0], abs=0.1 * GSD_M[band.band])
        assert band.right_m == pytest.approx(moves[band.band][1] - by[1], abs=0.1 * GSD_M[band.band])
        assert f"{band.band} by {np.hypot(band.down_m, band.right_m):.0f} m against {band.against}" in scene.words
    assert scene.words.count("\n") == 0
    assert scene.to_dict()["bands"][0] == scene.bands[0]._asdict()


@pytest.mark.parametrize(
    "moves", [{}, dict.fromkeys(GROUPS[20], (3.0, 3.0)), dict.fromkeys(GROUPS[60], (-12.0, 9.0)), {"B11": (0.0, 5.0)}]
)
def test_what_the_mission_allows_is_no_shift(moves):
    assert found_in([chip_of(landscape(seed), moves) for seed in range(3)]) == []


@pytest.mark.parametrize(
    "scene",
    ["S2B_48QUE_20200223_0_L2A", "S2B_48QUD_20200223_0_L2A", "S2B_43RCP_20200604_0_L2A", "S2B_43RCP_20200813_0_L2A"],
)
def test_real_scenes_are_aligned_and_a_shift_of_theirs_is_found(scene):
    bands = archived(scene)
    assert found_in([chip_of(bands)], scene) == []
    (shifted,) = found_in([chip_of(bands, {**TWENTY, **SIXTY})], scene)
    named = {band.band for band in shifted.bands}
    assert named >= {*SIXTY}
    assert len(named & {*TWENTY}) >= 4  # half a pixel is the limit, and bands are not better than 2 m themselves
    assert shifted.words.startswith(f"{scene}: bands are shifted (B01 by ")


def of_water(chip: Chip) -> Chip:
    return replace(chip, scl=np.full_like(chip.scl, 6))


def partly(chip: Chip, quality: Quality) -> Chip:
    flags = chip.quality.copy()
    flags[:30] = quality
    return replace(chip, quality=flags)


def of_two_scenes(chip: Chip) -> Chip:
    source = chip.source.copy()
    source[:, :30] = 2
    return replace(chip, source=source)


def without_some(chip: Chip) -> Chip:
    valid = {gsd: x.copy() for gsd, x in chip.valid.items()}
    valid[20][:5] = False
    return replace(chip, valid=valid)


def flat(chip: Chip) -> Chip:
    return replace(chip, dn={gsd: np.full_like(x, 300) for gsd, x in chip.dn.items()})


def noisy(chip: Chip) -> Chip:
    rng = np.random.default_rng(0)
    return replace(chip, dn={gsd: rng.integers(290, 310, x.shape).astype(np.uint16) for gsd, x in chip.dn.items()})


@pytest.mark.parametrize(
    "change",
    [
        of_water, of_two_scenes, without_some, flat, noisy,
        lambda chip: partly(chip, Quality.CLOUDY), lambda chip: partly(chip, Quality.NO_DATA),
        lambda chip: replace(chip, looks=np.full((SIDE, SIDE), 3, np.uint8)),
    ],
)  # fmt: skip
def test_nothing_is_said_of_chips_that_do_not_show_it(change):
    assert found_in([change(chip_of(landscape(), {**TWENTY, **SIXTY}))] * 2) == []


def test_a_minority_of_chips_does_not_decide():
    aligned, off = chip_of(landscape(1)), chip_of(landscape(2), SIXTY)
    assert found_in([aligned, aligned, off]) == []
    assert len(found_in([aligned, off, off])[0].bands) == 2
    rest = [noisy(aligned)] * 3
    assert found_in([off, *rest]) == []  # one in four knows


def test_chips_that_disagree_are_not_believed():
    moves = [{"B09": shift} for shift in ((0.0, 60.0), (0.0, -60.0), (60.0, 0.0), (-60.0, 30.0), (60.0, 60.0))]
    assert found_in([chip_of(landscape(i), each) for i, each in enumerate(moves)]) == []


def test_a_few_clear_chips_of_every_scene_are_looked_at():
    others = plans(3, "B") + plans(4, "C", clear=0.5)
    many = plans(50) + [replace(plan, epsg=32633 + i) for i, plan in enumerate(others)]
    check, chip = ShiftCheck(many), chip_of(landscape(), SIXTY)
    for plan in many[:1] + many[25:]:
        check.look(plan, chip)
    looked = {scene.scene: scene.chips for scene in check.shifted()}
    assert looked["B"] == 3
    assert 2 <= looked["A"] <= 6
    assert "C" not in looked


def test_without_chips_nothing_is_shifted():
    assert ShiftCheck([]).shifted() == []
