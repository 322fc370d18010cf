"""Pixels of a cube of one CRS: each where it belongs, means kept, labels whole, whatever zones meet there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import zarr
from pyproj import Transformer
from two_zones import Truth, waves, windows_at, zone_pixels

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.continent.warping import Resolution, ZoneView, warped_shard
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.ground.pixels import STD_FILL, Quality


@dataclass
class Zones:
    """As a cube, to read from: zones of one step of time, without overviews."""

    held: dict[int, tuple[PixelWindow, ShardData]]

    def variables(self, epsg: int) -> list[str]:
        data = self.held[epsg][1]
        further = {"reflectance_std": data.std, "looks": data.looks}
        return ["quality", "reflectance", "source", *(name for name, there in further.items() if there is not None)]

    def array(self, epsg: int, name: str, level: int = 0) -> Any:
        data = self.held[epsg][1]
        values = {"reflectance_std": data.std}.get(name, getattr(data, name, None))
        array = zarr.create_array(
            {}, shape=(1, *values.shape), dtype=values.dtype, fill_value=STD_FILL if "std" in name else 0
        )
        array[0] = values
        return array

    def views(self) -> list[ZoneView]:
        return [ZoneView(epsg, 0, window) for epsg, (window, _) in self.held.items()]


def zones_at(lon: float, lat: float, zones: tuple[int, ...], truth: Truth, collar_m: float | None = 240.0) -> Zones:
    windows = windows_at(lon, lat, zones, (6, 8))
    return Zones({epsg: (window, zone_pixels(epsg, window, truth, collar_m)) for epsg, window in windows.items()})


def target_at(lattice: Lattice, lon: float, lat: float, side: int) -> PixelWindow:
    x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, lat)
    x = float(lattice.unrolled(np.array(x)))
    return PixelWindow(round(-y / lattice.pixel) - side // 2, round(x / lattice.pixel) - side // 2, side, side)


def warped(zones: Zones, lattice: Lattice, target: PixelWindow, half_m: float = 220.0) -> ShardData:
    found = warped_shard(zones, zones.views(), lattice, target, Resolution.of(lattice, 0), half_m)  # type: ignore[arg-type]
    assert found is not None
    return found


def truth_at(truth: Truth, lattice: Lattice, target: PixelWindow) -> np.ndarray:
    x, y = lattice.centres(target, np.arange(target.height), np.arange(target.width))
    lon, lat = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))
    return np.stack([truth(lon, lat, band) for band in range(len(BANDS))])


def shift(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """By how many pixels an image lies below and to the right of where it should."""
    down, right = (np.gradient(wanted, axis=axis)[2:-2, 2:-2].ravel() for axis in (0, 1))
    moved = (wanted - found)[2:-2, 2:-2].ravel()
    rows, cols = np.linalg.lstsq(np.stack([down, right], axis=1), moved, rcond=None)[0]
    return float(rows), float(cols)


#: Corners of a country-sized grid, and the odd places.
PLACES = [
    (6.0, 47.3, (32631, 32632)),
    (6.0, 54.9, (32631, 32632)),
    (12.0, 47.3, (32632, 32633)),
    (12.0, 54.9, (32632, 32633)),
    (102.0, 17.9, (32647, 32648)),
    (17.2, 0.0, (32633, 32733)),
    (3.0, 60.5, (32631, 32632)),
    (180.0, -16.9, (32760, 32701)),
]

CRSS = ["EPSG:4326", "+proj=laea +lat_0={lat} +lon_0={far} +datum=WGS84 +units=m", "EPSG:3857"]


def placed() -> list[Any]:
    """Every place in every CRS; in all but one each it is slow."""
    every = [(crs, *place, (i - j) % len(CRSS) > 0) for i, place in enumerate(PLACES) for j, crs in enumerate(CRSS)]
    return [pytest.param(*case, marks=[pytest.mark.slow] if slow else []) for *case, slow in every]


@pytest.mark.parametrize(("crs", "lon", "lat", "zones"), placed())
def test_every_pixel_is_where_it_belongs(crs, lon, lat, zones):
    """To a fiftieth of a pixel, its value to a few DN, on both sides of the border and across it."""
    if "3857" in crs and abs(lon) == 180:
        pytest.skip("this CRS is cut there")
    # A projection centred far away turns and stretches the ground.
    lattice = Lattice.asked_for(crs.format(lat=lat + 5, far=lon - 15), None)
    lattice = Lattice(lattice.crs, lattice.pixel, west=0.0) if abs(lon) == 180 else lattice
    truth = waves(lon, lat)
    side = 192 if "3857" not in crs else 160
    target = target_at(lattice, lon, lat, side)
    found, wanted = warped(zones_at(lon, lat, zones, truth), lattice, target), truth_at(truth, lattice, target)
    assert (found.source == 1).all()
    assert (found.quality == 1).all()
    assert np.abs(found.reflectance - wanted).max() < 8
    for band in range(0, len(BANDS), 4):
        assert max(map(abs, shift(found.reflectance[band].astype(float), wanted[band]))) < 0.02
    assert found.reflectance.mean() == pytest.approx(wanted.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "zone"),
    [
        ("EPSG:3035", 9.0, 50.0, 32632),  # hardly turned
        ("EPSG:3035", 14.9, 47.7, 32632),
        ("EPSG:3035", -8.9, 38.0, 32629),  # by 11 degrees
        ("EPSG:3035", 29.0, 65.0, 32635),
        ("EPSG:2056", 6.0, 46.2, 32632),
        ("EPSG:3413", 10.0, 70.0, 32632),  # by 55 degrees
        ("EPSG:3031", 100.0, -68.0, 32747),
        ("EPSG:3577", 117.0, -32.0, 32750),
    ],
)
def test_detail_is_as_fine_however_the_zone_is_turned(crs, lon, lat, zone):
    """Cubic convolution of noise between pixels leaves 0.81 of its standard deviation, wherever it is."""
    zones = zones_at(lon, lat, (zone,), waves(lon, lat), None)
    noise = np.random.default_rng(5).normal(5_000, 500, zones.held[zone][1].reflectance.shape)
    zones.held[zone][1].reflectance[:] = np.rint(noise)
    lattice = Lattice(crs)
    made = warped(zones, lattice, target_at(lattice, lon, lat, 192)).reflectance
    assert made.min() > 0
    assert made.std() / 500 == pytest.approx(0.812, abs=0.02)


@pytest.mark.parametrize("pixel", [4.0, 5.0, 10.0, 33.0])
def test_coarser_pixels_are_means_of_what_they_cover(pixel):
    lattice = Lattice("EPSG:32632", pixel)
    rng = np.random.default_rng(1)
    window = PixelWindow(-2_130_000, 275_200, 480, 480)
    data = ShardData.empty(480, with_std=True)
    data.reflectance[:] = rng.integers(500, 3000, data.reflectance.shape)
    data.source[:], data.quality[:] = 1, 1
    zones = Zones({32632: (window, data)})
    side = int(480 * 2.5 / pixel) - 2
    first = -(-window.row * 2.5 // pixel), -(-window.col * 2.5 // pixel)
    target = PixelWindow(int(first[0]), int(first[1]), side, side)
    found = warped(zones, lattice, target)
    assert found.reflectance.mean() == pytest.approx(data.reflectance.mean(), rel=2e-3)
    # Brute force: each target pixel's mean, by areas.
    edges = [
        np.arange(side + 1) * pixel + first[axis] * pixel - (window.row, window.col)[axis] * 2.5 for axis in (0, 1)
    ]
    share = [
        np.clip(
            np.minimum(e[1:, None], (np.arange(480) + 1) * 2.5) - np.maximum(e[:-1, None], np.arange(480) * 2.5),
            0,
            None,
        )
        / pixel
        for e in edges
    ]
    for band in (0, 7):
        wanted = share[0] @ data.reflectance[band].astype(float) @ share[1].T
        assert np.abs(found.reflectance[band] - wanted).max() < 1.0


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_an_area_is_kept(seed):
    """Of noise as strong as buildings, whose pixels are other samples than those of the whole, to a thousandth; of even
    ground exactly. What places show is compared above, to a ten-thousandth."""
    rng = np.random.default_rng(seed)
    lattice = Lattice("EPSG:3035")
    windows = windows_at(12.0, 48.0, (32632, 32633), (10, 10))
    held = {}
    for epsg, window in windows.items():
        data = ShardData.empty(640, with_std=False)
        data.reflectance[:] = rng.integers(100, 5000, data.reflectance.shape)
        data.source[:], data.quality[:] = 1, 1
        held[epsg] = window, data
    found = warped(Zones(held), lattice, target_at(lattice, 12.0, 48.0, 512))
    whole = np.mean([data.reflectance.mean(dtype=float) for _, data in held.values()])
    assert found.reflectance.mean(dtype=float) == pytest.approx(whole, rel=1e-3)  # of other samples of the same noise
    smooth = np.full((12, 640, 640), 1234, np.uint16)
    for _, data in held.values():
        data.reflectance[:] = smooth
    found = warped(Zones(held), lattice, target_at(lattice, 12.0, 48.0, 512))
    assert (found.reflectance == 1234).all()


def test_zones_that_differ_go_smoothly_over_into_each_other():
    """A step of 600 DN between two zones is spread over the blend; nowhere is a step of more than a few DN."""
    lattice, lon, lat = Lattice("EPSG:3035"), 12.0, 48.0

    def flat(value: float) -> Truth:
        return lambda lons, *_: np.full(lons.shape, value)

    windows = windows_at(lon, lat, (32632, 32633), (6, 8))
    held = {
        epsg: (w, zone_pixels(epsg, w, flat(v), 240.0))
        for (epsg, w), v in zip(windows.items(), (1000, 1600), strict=True)
    }
    found = warped(Zones(held), lattice, target_at(lattice, lon, lat, 256))
    row = found.reflectance[3, 128].astype(int)
    assert row[0] < 1010
    assert row[-1] > 1590
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() < 8
    assert row[128] == pytest.approx(1300, abs=15)


@pytest.mark.parametrize("which", ["west", pytest.param("east", marks=pytest.mark.slow), "both"])
def test_where_a_zone_has_a_hole_the_other_shows_the_ground(which):
    lattice, lon, lat, truth = Lattice("EPSG:3035"), 12.0, 48.0, waves(12.0, 48.0)
    zones = zones_at(lon, lat, (32632, 32633), truth, None)
    target = target_at(lattice, lon, lat, 192)
    rows, cols = np.mgrid[:192, :192]
    there = (abs(rows - 96) < 20) & (abs(cols - 96) < 30)
    x, y = lattice.centres(target, rows, cols)
    for epsg, (window, data) in zones.held.items():
        if which == "both" or which == {32632: "west", 32633: "east"}[epsg]:
            e, n = Transformer.from_crs(lattice.crs, f"EPSG:{epsg}", always_xy=True).transform(x[there], y[there])
            left, _, _, top = window.bounds_m(epsg)
            at = np.floor((top - n) / 2.5).astype(int), np.floor((e - left) / 2.5).astype(int)
            for values in (data.reflectance, data.quality, data.source):
                values[..., at[0], at[1]] = 0
    found, wanted = warped(zones, lattice, target), truth_at(truth, lattice, target)
    shown = found.source > 0
    assert (found.reflectance[:, ~shown] == 0).all()
    assert (found.reflectance[:, shown] > 0).all()
    if which == "both":
        assert not shown[85:107, 75:117].any()
        assert shown[:70].all()
    else:
        assert shown.all()
    assert np.abs(found.reflectance - wanted)[:, shown].max() < 120  # at the very rim of a hole, less of the kernel
    far = shown & ~((abs(rows - 96) < 26) & (abs(cols - 96) < 36))
    assert np.abs(found.reflectance - wanted)[:, far].max() < 8


def test_labels_stay_together_and_go_with_the_zone_that_counts_most():
    lattice, lon, lat = Lattice("EPSG:3035"), 12.0, 48.0
    rng = np.random.default_rng(4)
    held = {}
    for at, (epsg, window) in enumerate(windows_at(lon, lat, (32632, 32633), (6, 8)).items()):
        data = ShardData.empty(512, with_std=True, with_looks=True)
        data = ShardData(
            *(array[..., :384, :] for array in (data.reflectance, data.quality, data.source, data.std, data.looks))
        )
        patch = rng.integers(0, 4, (24, 32)).repeat(16, 0).repeat(16, 1).astype(np.uint16)
        data.source[:] = patch + 1 + 10 * at
        data.quality[:] = patch % 3 + 1
        data.looks[:] = patch + 5 + 100 * at
        data.reflectance[:] = 900
        data.std[:] = 40
        held[epsg] = window, data
    found = warped(Zones(held), lattice, target_at(lattice, lon, lat, 192))
    patch, zone = (found.source - 1) % 10, (found.source - 1) // 10
    assert set(np.unique(patch)) <= {0, 1, 2, 3}
    assert (found.quality == patch % 3 + 1).all()
    assert (found.looks == patch + 5 + 100 * zone).all()
    assert (zone[:, :80] == 0).all()
    assert (zone[:, 112:] == 1).all()
    assert (found.reflectance == 900).all()
    assert (found.std == 40).all()


def test_failed_chips_stay_flagged_where_no_zone_shows_the_ground():
    lattice, lon, lat = Lattice("EPSG:3035"), 9.0, 48.0
    zones = zones_at(lon, lat, (32632,), waves(lon, lat), None)
    data = zones.held[32632][1]
    for values in (data.reflectance, data.source):
        values[..., 100:200, 200:300] = 0
    data.quality[100:200, 200:300] = Quality.FAILED
    found = warped(zones, lattice, target_at(lattice, lon, lat, 192))
    gone = found.source == 0
    assert gone.sum() > 5_000
    assert (found.quality[gone] == Quality.FAILED).all()
    assert (found.reflectance[:, gone] == 0).all()
    assert (found.quality[~gone] == 1).all()


def test_nothing_is_made_where_zones_show_nothing():
    lattice, lon, lat = Lattice("EPSG:3035"), 12.0, 48.0
    zones = zones_at(lon, lat, (32632, 32633), waves(lon, lat))
    far = target_at(lattice, 14.0, 50.0, 64)
    assert warped_shard(zones, zones.views(), lattice, far, Resolution(0, False), 220.0) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("crs", "pixel", "overviews", "level", "coarse"),
    [
        ("EPSG:3035", 2.5, 8, 0, False),
        ("EPSG:3035", 3.0, 8, 0, False),
        ("EPSG:3035", 5.0, 8, 0, True),
        ("EPSG:3035", 10.0, 8, 1, True),
        ("EPSG:3035", 100.0, 8, 4, True),
        ("EPSG:3035", 100.0, 2, 2, True),
        ("EPSG:4326", 2.25e-5, 8, 0, False),
        ("EPSG:4326", 0.001, 8, 4, True),
        ("EPSG:2263", 8.2, 8, 0, False),
    ],
)
def test_zones_are_read_at_the_level_that_is_clearly_finer(crs, pixel, overviews, level, coarse):
    assert Resolution.of(Lattice(crs, pixel), overviews) == Resolution(level, coarse)
