"""Zones go smoothly over into each other: weights that sum to one, a half on the border, wherever zones meet."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from difffusr.pipeline.assemble.continent.meeting import zone_weights
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.geo.lattice import Lattice

#: Where zones meet, and which: on a meridian, north and south, beside Norway, at Svalbard, at the equator, at 180°,
#: and where four of them do.
MEETINGS = [
    (12.0, 48.0, (32632, 32633)),
    (102.0, -17.3, (32747, 32748)),
    (3.0, 60.5, (32631, 32632)),
    (21.0, 78.0, (32633, 32635)),
    (17.2, 0.0, (32633, 32733)),
    (180.0, -16.9, (32760, 32701)),
    (-180.0, 65.1, (32660, 32601)),
    (30.0, 0.0, (32635, 32636, 32735, 32736)),
]

CRSS = ["EPSG:4326", "+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m", "EPSG:3857"]


def around(lattice: Lattice, lon: float, lat: float, side: int = 256) -> PixelWindow:
    x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, lat)
    return PixelWindow(round(-y / lattice.pixel) - side // 2, round(x / lattice.pixel) - side // 2, side, side)


def weights(lattice: Lattice, window: PixelWindow, zones: tuple[int, ...], half_m: float) -> np.ndarray:
    shape = window.height, window.width
    return np.stack([np.broadcast_to(zone_weights(lattice, window, epsg, half_m), shape) for epsg in zones])


@pytest.mark.parametrize("crs", CRSS)
@pytest.mark.parametrize(("lon", "lat", "zones"), MEETINGS)
def test_weights_of_zones_that_meet_sum_to_one_and_are_a_half_on_their_border(crs, lon, lat, zones):
    if "3857" in crs and abs(lon) == 180:
        pytest.skip("this CRS is cut there")
    lattice = Lattice.asked_for(crs.format(lon=lon, lat=lat), None)
    window = around(lattice, lon, lat)
    found = weights(lattice, window, zones, 120.0)
    if len(zones) == 2:
        assert np.abs(found.sum(axis=0) - 1).max() < 2e-3
        assert found[:, 127:129, 127:129] == pytest.approx(0.5, abs=0.03)
    else:
        assert (found.sum(axis=0) > 0.9).all()
    # No pixel sees a step: not in the weight, hardly in its slope.
    share = found[0] / found.sum(axis=0)
    for axis in (0, 1):
        assert np.abs(np.diff(share, axis=axis)).max() < 0.05
    assert found.min() > 0


@pytest.mark.parametrize("half_m", [30.0, 220.0, 980.0, 5000.0])
@pytest.mark.parametrize("pixel", [2.5, 10.0, 100.0])
def test_a_blend_is_as_wide_as_it_should_be(half_m, pixel):
    lattice = Lattice("EPSG:32632", pixel)  # the border of zones 32 and 33, in pixels of the one
    window = around(lattice, 12.0, 48.0, 2 * round(2 * half_m / pixel) + 64)
    west = weights(lattice, window, (32632,), half_m)[0]
    middle = window.height // 2
    inside = np.flatnonzero((west[middle] < 0.999) & (west[middle] > 0.001))
    assert len(inside) * pixel == pytest.approx(2 * half_m, rel=0.15, abs=3 * pixel)
    assert (np.diff(west[middle]) <= 1e-6).all()


@pytest.mark.parametrize(
    ("lon", "lat"), [(9.0, 48.0), (11.9, 48.0), (12.1, 48.0), (15.0, 48.0), (60.0, 48.0), (12.0, -5.0)]
)
def test_away_from_borders_one_zone_has_all_the_weight(lon, lat):
    lattice = Lattice("EPSG:4326", 2.3e-5)
    window = around(lattice, lon, lat, 64)
    counts = [zone_weights(lattice, window, epsg, 220.0) for epsg in (32632, 32633)]
    assert all(isinstance(count, float) for count in counts)
    home = [lon < 12 and lat > 0 and lon > 6, 12 < lon < 18 and lat > 0]
    assert [count > 0.5 for count in counts] == home
    assert min(counts) > 0  # it still counts where nobody else shows the ground
