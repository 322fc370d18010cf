"""The world across a border of zones: both granules show one ground, each in its zone's own pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo.globe import tile_epsg
from difffusr.pipeline.scenes.item import scene_from_item
from difffusr.pipeline.scenes.synthetic.palette import ASSETS
from difffusr.pipeline.scenes.synthetic.two_zones import TILES, TwoZones, write_two_zones

SIZE_M = (600, 1800)


@pytest.fixture(scope="module")
def two_zones(tmp_path_factory: pytest.TempPathFactory) -> TwoZones:
    return write_two_zones(tmp_path_factory.mktemp("two-zones"), 3, SIZE_M)


def home(world: TwoZones, tile: str) -> Path:
    (found,) = (world.catalog.parent / "items").glob(f"*_{tile}_*")
    return found


@pytest.mark.parametrize(("epsg", "tile"), TILES.items())
def test_each_zone_has_a_granule_that_a_run_takes(two_zones, epsg, tile):
    path = home(two_zones, tile) / f"{home(two_zones, tile).name}.json"
    scene = scene_from_item(json.loads(path.read_text()), str(path))
    assert scene.tile == tile
    assert tile_epsg(tile) == epsg
    with rasterio.open(home(two_zones, tile) / "B02.tif") as file:
        assert file.crs.to_epsg() == epsg
        assert (file.bounds.left % 60, file.bounds.top % 60) == (0, 0)


@pytest.mark.parametrize("tile", TILES.values())
@pytest.mark.parametrize("band", ["B01", "B02", "B8A", "B12"])
def test_what_a_granule_shows_is_the_truth(two_zones, tile, band):
    with rasterio.open(home(two_zones, tile) / f"{band}.tif") as file, rasterio.open(two_zones.truth) as truth:
        seen, wanted = file.read(1).astype(float), np.zeros(file.shape, np.float32)
        reproject(
            truth.read(BANDS.index(band) + 1).astype(np.float32), wanted, src_crs=truth.crs, dst_crs=file.crs,
            src_transform=truth.transform, dst_transform=file.transform, resampling=Resampling.average,
        )  # fmt: skip
    shown = seen > 0
    assert shown.mean() > 0.4
    assert seen[shown].mean() == pytest.approx(wanted[shown].mean(), rel=0.01)
    assert np.corrcoef(seen[shown], wanted[shown])[0, 1] > 0.93


@pytest.mark.parametrize("tile", TILES.values())
def test_all_bands_and_the_classes_show_the_same_places_and_the_box_is_among_them(two_zones, tile):
    masks = []
    for name in (*BANDS, "SCL"):
        with rasterio.open(home(two_zones, tile) / f"{name}.tif") as file:
            times = GSD_M.get(name, 20) // 10
            masks.append((file.read(1) > 0).repeat(times, 0).repeat(times, 1))
            transform, crs = file.transform, file.crs
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    west, south, east, north = two_zones.bbox
    lons, lats = np.meshgrid(np.linspace(west, east, 30), np.linspace(south, north, 30))
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lons, lats)
    cols, rows = ~transform * (x, y)
    places = (rows * transform.a / 10).astype(int), (cols * transform.a / 10).astype(int)
    assert masks[0][places].all()
    assert west < 12 < east


def test_the_same_seed_gives_the_same_world_and_another_seed_another(two_zones, tmp_path):
    same, other = write_two_zones(tmp_path / "same", 3, SIZE_M), write_two_zones(tmp_path / "other", 4, SIZE_M)
    files = [path for path in two_zones.catalog.parent.rglob("*.tif")]
    for path in files:
        name = path.relative_to(two_zones.catalog.parent)
        assert (same.catalog.parent / name).read_bytes() == path.read_bytes()
    assert two_zones.truth.read_bytes() == same.truth.read_bytes() != other.truth.read_bytes()
    assert len(files) == len(TILES) * (len(ASSETS) + 1)


@pytest.mark.parametrize("size_m", [(540, 1200), (1200, 1210), (0, 0), (601, 600), (600, 599)])
def test_a_size_off_the_lattice_is_refused(tmp_path, size_m):
    with pytest.raises(ValueError, match="multiples of 60 m"):
        write_two_zones(tmp_path, 3, size_m)
