"""Steps across zone borders: none on ground as varied as towns and fields; seen where zones meet without a blend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import rasterio
from beside import SHARED
from continental import continent_config, publish_continent
from pyproj import Transformer
from scipy import ndimage
from two_zones import Truth, publish_zones, windows_at

from difffusr.pipeline.assemble.continent import planning
from difffusr.pipeline.assemble.continent.sources import SourcePeriod
from difffusr.pipeline.cube.reading import CubeReader
from difffusr.pipeline.geo.grid import Grid, grid_of
from difffusr.pipeline.readers.zone_seams import ZONE_RANGE, zone_seams
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.storage.places import storage_of

LON, LAT, ZONES = 102.0, 17.9, (32647, 32648)
GRID = Grid(24, 6, 256, 128)
SIZES = {"shard_px": 256, "chunk_px": 128}
SCENE = SHARED / "data" / "archive" / "items" / "S2B_48QUD_20200223_0_L2A"


def placed(images: np.ndarray) -> Truth:
    """Images of 2.5 m pixels, (n, h, w), laid around the border of two zones and mirrored beyond their edges: one band
    after the other shows another."""
    plane = Transformer.from_crs("EPSG:4326", f"+proj=aeqd +lat_0={LAT} +lon_0={LON} +datum=WGS84", always_xy=True)
    held: dict[str, object] = {}

    def truth(lons: np.ndarray, lats: np.ndarray, band: int) -> np.ndarray:
        if held.get("lons") is not lons:
            x, y = plane.transform(lons, lats)
            at = images.shape[1] / 2 - y / 2.5, images.shape[2] / 2 + x / 2.5
            held["seen"] = [ndimage.map_coordinates(image, at, order=1, mode="mirror") for image in images]
            held["lons"] = lons
        return held["seen"][band % len(images)] + 10.0 * band  # type: ignore[index]

    return truth


def drawn() -> np.ndarray:
    """Fields, roofs and fine texture."""
    rng, side = np.random.default_rng(8), 1024
    bands = []
    for _ in range(3):
        fields = rng.integers(500, 2500, (16, 16)).repeat(64, 0).repeat(64, 1)
        roofs = ndimage.uniform_filter((rng.random((side, side)) > 0.999).astype(float), 5) * 20_000
        bands.append(fields + roofs + 60 * ndimage.gaussian_filter(rng.normal(size=(side, side)), 0.8))
    # Turned, so that no row of fields ends along the border.
    return np.stack([ndimage.rotate(band, 20, reshape=False, order=1, mode="mirror") for band in bands])


def real() -> np.ndarray:
    """A piece of a real scene, enlarged to 2.5 m."""
    if not SCENE.exists():
        pytest.skip(f"no real scenes: {SCENE} is not there")
    bands = []
    for band in ("B02", "B08", "B11"):
        with rasterio.open(SCENE / f"{band}.tif") as file:
            share = 2560 / (file.res[0] * file.width)
            size = max(8, round(file.width * min(share, 1)))
            values = file.read(1, window=((0, size), (0, size))).astype(float)
        bands.append(ndimage.zoom(values, 1024 / size, order=3)[:1024, :1024])
    return np.clip(np.stack(bands), 1, 9000)


GROUNDS = ["drawn", pytest.param("real", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Truth:
    return placed({"drawn": drawn, "real": real}[request.param]())


def measured(folder: object, truths: dict[int, Truth], half_m: float | None = None, side: int = 4):
    """Zones of a square of so many shards, 2.5 km by default, and their borders in one CRS."""
    windows = windows_at(LON, LAT, ZONES, (side, side), GRID)
    told = {"collar_m": 1000.0, "said_collar_m": 1000.0}
    publish_zones(Storage(f"{folder}/zones.zarr"), windows, truths, grid=GRID, **told)
    config = continent_config(f"{folder}/zones.zarr", f"{folder}/laea.zarr", "EPSG:8857", **SIZES)
    with pytest.MonkeyPatch.context() as patch:
        if half_m is not None:
            found = SourcePeriod.of(config)
            cut = dataclasses.replace(found, half_m=half_m)
            patch.setattr(SourcePeriod, "of", classmethod(lambda cls, _: cut))
        plan = publish_continent(config)
        draft = planning.draft_continent(config, plan)
        return zone_seams(plan, CubeReader(storage_of(config), draft).read, grid_of(config))


@pytest.mark.parametrize("ground", GROUNDS, indirect=True)
def test_no_border_shows_where_zones_show_the_same_ground(ground, tmp_path):
    found = measured(tmp_path, dict.fromkeys(ZONES, ground))
    assert found.borders > 3
    assert found.ok
    for band in found.bands:
        assert ZONE_RANGE[0] - band.error <= band.ratio <= ZONE_RANGE[1] + band.error, band
        assert band.error < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("ground", GROUNDS, indirect=True)
def test_none_shows_where_one_zone_is_brighter(ground, tmp_path):
    """By a tenth, and 100 DN: as zones of two dates are."""
    found = measured(tmp_path, {ZONES[0]: ground, ZONES[1]: lambda *at: ground(*at) * 1.1 + 100})
    assert found.ok
    for band in found.bands:
        assert ZONE_RANGE[0] - band.error <= band.ratio <= ZONE_RANGE[1] + band.error, band


@pytest.mark.parametrize("ground", GROUNDS, indirect=True)
@pytest.mark.slow
def test_a_border_without_a_blend_is_off(ground, tmp_path):
    found = measured(tmp_path, {ZONES[0]: ground, ZONES[1]: lambda *at: ground(*at) * 1.1 + 100}, half_m=0.5, side=2)
    assert not found.ok
    assert sum(not band.ok for band in found.bands) > 6
