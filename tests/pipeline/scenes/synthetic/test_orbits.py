"""Where sun and sensor stand over the generated world, and that a granule's metadata say so."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from difffusr.kernels.bands import BANDS
from difffusr.kernels.brdf import COEFFICIENTS, c_factor
from difffusr.pipeline.scenes.granule import read_granule
from difffusr.pipeline.scenes.synthetic.metadata import CORNERS, granule_metadata, nodes_of
from difffusr.pipeline.scenes.synthetic.orbits import (
    ACQUISITIONS,
    FROM_EAST,
    FROM_WEST,
    SURFACES,
    Orbit,
    brightness,
)
from difffusr.pipeline.scenes.synthetic.palette import LANDCOVER, LEFT_M, TILES, TOP_M

ORBITS = pytest.mark.parametrize("orbit", [FROM_WEST, FROM_EAST], ids=["from the west", "from the east"])


def world_of(side_m: int, step_m: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Places in a square world."""
    steps = (np.arange(side_m // step_m) + 0.5) * step_m
    x, y = np.meshgrid(LEFT_M + steps, TOP_M - steps)
    return x, y


@ORBITS
@pytest.mark.parametrize("side_m", [1200, 3660, 10_200])
def test_each_orbit_looks_from_its_side_about_nine_degrees_from_nadir(orbit: Orbit, side_m: int) -> None:
    x, y = world_of(side_m)
    detector = orbit.detector_at(x, y)
    for number in np.unique(detector):
        zenith, azimuth = (angle[detector == number] for angle in orbit.view("B08", int(number), x, y))
        assert ((zenith > 8) & (zenith < 11)).all()
        side = 270 if orbit is FROM_WEST else 90
        assert (np.abs(azimuth - side) < 30).all()
    assert len(np.unique(detector)) == (2 if orbit is FROM_EAST and side_m > 10_000 else 1)


@ORBITS
def test_view_zenith_grows_linearly_away_from_the_track(orbit: Orbit) -> None:
    x, y = world_of(10_200)
    number = int(orbit.detector_at(x, y)[0, 0])
    zenith = orbit.view("B08", number, x, y)[0][0]
    slope = np.diff(zenith)
    assert (np.sign(slope) == (1 if orbit is FROM_WEST else -1)).all()
    assert np.ptp(slope) < 0.01 * np.abs(slope).mean()


@ORBITS
@pytest.mark.parametrize("band", ["B02", "B08", "B12"])
def test_neighbouring_detectors_look_ahead_and_behind(orbit: Orbit, band: str) -> None:
    x, y = np.array([LEFT_M]), np.array([TOP_M])
    azimuths = [orbit.view(band, number, x, y)[1].item() for number in range(1, 13)]
    assert len({round(azimuth, 9) for azimuth in azimuths[::2]}) == 1
    assert len({round(azimuth, 9) for azimuth in azimuths[1::2]}) == 1
    assert 4 < abs(azimuths[0] - azimuths[1]) < 30


def test_ground_seen_from_the_suns_side_is_brighter_on_every_surface_and_band() -> None:
    x, y = world_of(1200)
    for surface in SURFACES:
        for band in BANDS:
            west, east = (brightness(surface, band, orbit, x, y) for orbit in (FROM_WEST, FROM_EAST))
            assert (east > 1.01).all()
            assert (west < 0.99).all()


def test_every_class_of_land_cover_has_one_surface_none_of_which_is_the_average_one() -> None:
    codes = [code for group, _, _ in SURFACES.values() for code in group]
    assert sorted(codes) == sorted(LANDCOVER)
    for _, volumetric, geometric in SURFACES.values():
        assert 0.8 <= volumetric <= 1.2
        assert 0.8 <= geometric <= 1.2
        assert (volumetric, geometric) != (1, 1)


@pytest.mark.parametrize("day", ACQUISITIONS, ids=lambda day: day.date)
@pytest.mark.parametrize("tile", list(CORNERS))
def test_metadata_give_back_the_angles_and_the_factors_used(day, tile: str, monkeypatch) -> None:
    """A surface with the global coefficients is what the metadata's factors are made for."""
    monkeypatch.setitem(SURFACES, "average", ((), 1.0, 1.0))
    granule = read_granule(granule_metadata(tile, day), tile)
    assert (granule.epsg, granule.left, granule.top, granule.step_m) == (32632, *CORNERS[tile], 5000)
    x, y = nodes_of(tile)
    zenith, azimuth = day.orbit.sun(x, y)
    np.testing.assert_allclose(granule.sun.zenith, zenith, atol=1e-4)
    np.testing.assert_allclose(granule.sun.azimuth, azimuth, atol=1e-3)
    across, down = world_of(3660)
    inside = across[0] >= CORNERS[tile][0]
    across, down = across[:, inside], down[:, inside]
    bounds = (across.min() - 30, down.min() - 30, across.max() + 30, down.max() + 30)
    for band in BANDS:
        factor = granule.field(band).on(bounds, 60)
        np.testing.assert_allclose(
            factor * brightness("average", band, day.orbit, across, down), 1, atol=1e-4, err_msg=band
        )


@pytest.mark.parametrize("tile", list(CORNERS))
def test_a_few_nodes_are_seen_by_two_detectors_and_none_beyond_the_swath(tile: str) -> None:
    for day in ACQUISITIONS[1:3]:
        views = read_granule(granule_metadata(tile, day), tile).views["B08"]
        count = sum(np.isfinite(view.zenith).astype(int) for view in views)
        assert len(views) >= 2
        assert 0 < (count == 2).sum() < 0.2 * count.size
        assert count.max() == 2
        beyond = (tile, day.orbit) in (("32TMT", FROM_EAST), ("32TNT", FROM_WEST))
        assert (count == 0).any() == beyond
        half = np.isfinite(views[0].zenith).any(0)
        assert 1 <= half.sum() < 23


@pytest.mark.parametrize("tile", [tile for tile, _, _ in TILES])
def test_metadata_have_the_form_of_the_real_ones(tile: str) -> None:
    root = ElementTree.fromstring(granule_metadata(tile, ACQUISITIONS[0]))
    assert root.tag.endswith("}Level-2A_Tile_ID")
    assert [child.tag.split("}")[1] for child in root] == ["General_Info", "Geometric_Info"]
    angles = root.find("*/Tile_Angles")
    assert angles is not None
    grids = angles.findall("Viewing_Incidence_Angles_Grids")
    assert {grid.get("bandId") for grid in grids} == {str(number) for number in range(13)}
    assert all(len(grid.findall("Zenith/Values_List/VALUES")) == 23 for grid in grids)
    sun = float(angles.findtext("Mean_Sun_Angle/ZENITH_ANGLE") or "")
    assert 28 < sun < 31
    means = angles.findall("Mean_Viewing_Incidence_Angle_List/Mean_Viewing_Incidence_Angle")
    assert [mean.get("bandId") for mean in means] == [str(number) for number in range(13)]
    assert all(0 < float(mean.findtext("ZENITH_ANGLE") or "") < 12 for mean in means)
    assert all(90 < float(mean.findtext("AZIMUTH_ANGLE") or "") < 120 for mean in means)


@ORBITS
def test_brightness_is_that_of_scaled_coefficients(orbit: Orbit) -> None:
    """Against the project's factor with other coefficients put into it."""
    x, y = np.array([[LEFT_M + 500.0]]), np.array([[TOP_M - 500.0]])
    detector = orbit.detector_at(x, y).item()
    sun, sun_azimuth = orbit.sun(x, y)
    for surface, (_, volumetric, geometric) in SURFACES.items():
        own = COEFFICIENTS["B8A"]
        scaled = own._replace(volumetric=own.volumetric * volumetric, geometric=own.geometric * geometric)
        view, azimuth = orbit.view("B8A", detector, x, y)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(COEFFICIENTS, "B8A", scaled)
            expected = 1 / c_factor("B8A", sun, view, sun_azimuth - azimuth)
        assert brightness(surface, "B8A", orbit, x, y) == pytest.approx(expected, rel=1e-12)
