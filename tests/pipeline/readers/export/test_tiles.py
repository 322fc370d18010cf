"""Tiles: on a grid of the CRS's own coordinates, the same in every run, one raster together."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
from exported_tiles import PLACE, described, tiles_in
from pyproj import Transformer

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import AreaSection
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.area import geometry_of
from difffusr.pipeline.readers.export.chosen import Tile, exports_of
from difffusr.pipeline.readers.export.tiling import How, export_items
from difffusr.pipeline.storage.objects import Storage

ONE = How(workers=1)


class Case(NamedTuple):
    """Which tiles: CRS (None for the zones'), side of pixels, of tiles in km, and what that is in the CRS's units."""

    crs: str | None
    resolution: float | None
    km: float
    side: float


CASES = {
    "zones": Case(None, None, 0.16, 160.0),
    "metres": Case("EPSG:3035", None, 0.2, 200.0),
    "metres, coarser": Case("EPSG:3035", 10.0, 0.4, 400.0),
    "degrees": Case("EPSG:4326", None, 0.25, 0.002245),
    "a zone's CRS": Case("EPSG:32632", None, 0.3, 300.0),
    "without a code": Case("+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84", 5.0, 0.2, 200.0),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def exported(cube: Path, folder: Path, case: Case, box: tuple[float, ...] | None = None) -> dict[str, Path]:
    """The files of reflectance and quality that an export has left, by name."""
    opened = Cube(Storage(str(cube)))
    area = None if box is None else geometry_of(AreaSection(bbox=box))
    files = exports_of(opened, area, crs=case.crs, resolution=case.resolution, tile_km=case.km)
    done = export_items(opened, files, Storage(str(folder)), "tiles", ONE)
    assert not done.failures
    return tiles_in(folder)


@pytest.fixture(scope="module")
def whole(kept_zones: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The folder with all tiles of a case, made when it is first asked for."""
    home = tmp_path_factory.mktemp("tiles")

    @cache
    def made(case: Case) -> Path:
        folder = home / str(len(list(home.iterdir())))
        exported(kept_zones, folder, case)
        return folder

    return made


def test_a_tile_has_the_same_name_and_pixels_whatever_the_area(kept_zones, whole, tmp_path, case):
    there = tiles_in(whole(case))
    lon, lat = PLACE
    part = exported(kept_zones, tmp_path / "part", case, (lon - 0.0014, lat - 0.0008, lon + 0.0002, lat + 0.0003))
    assert 0 < len(part) < len(there)
    assert set(part) <= set(there)
    for name, path in part.items():
        with rasterio.open(path) as one, rasterio.open(there[name]) as other:
            assert one.transform == other.transform
            np.testing.assert_array_equal(one.read(), other.read())


def test_tiles_lie_on_a_grid_of_the_crs_and_none_is_empty(whole, case):
    for name, path in tiles_in(whole(case)).items():
        with rasterio.open(path) as file:
            size = file.transform.a
            side = file.width * size
            assert file.width == file.height
            assert side == pytest.approx(case.side, abs=size)
            east, north = (at / side for at in (file.bounds.left, file.bounds.bottom))
            assert (east % 1, north % 1) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
            assert f"_{Tile(case.km, round(east), round(north)).name}.tif" in name
            assert file.read().any()


def test_together_they_are_one_raster_that_shows_all_that_the_cube_has(kept_zones, whole, tmp_path, case):
    moved = tmp_path / "elsewhere"
    shutil.copytree(whole(case), moved)
    tiles = tiles_in(moved)
    rasters = sorted(moved.glob("*.vrt"))
    series = {re.sub(r"_[\d.]+km_[ewns\d]+\.tif$", "", name) for name in tiles}
    assert {path.stem for path in rasters} == series
    opened = Cube(Storage(str(kept_zones)))
    for path in rasters:
        with rasterio.open(path) as raster:
            pixels, filled = raster.read(), np.zeros(raster.shape, bool)
            for name in tiles:
                if not name.startswith(path.stem):
                    continue
                with rasterio.open(moved / name) as tile:
                    place = raster.window(*tile.bounds).round_offsets().round_lengths()
                    rows, cols = place.toslices()
                    np.testing.assert_array_equal(pixels[:, rows, cols], tile.read())
                    filled[rows, cols] = True
            assert not pixels[:, ~filled].any()
            if case.crs is None:
                epsg = raster.crs.to_epsg()
                name = path.stem.rpartition("_")[2]
                assert (pixels > 0).sum() == (np.asarray(opened.array(epsg, name)) > 0).sum()
            else:
                # Both zones show as much ground as the cube has, to what is lost along its edges.
                truth = 256 * 128 * 2.5**2
                east = 111_320 * np.cos(np.radians(raster.bounds.bottom)) if raster.crs.is_geographic else 1.0
                pixel = raster.transform.a**2 * (east * 111_320 if raster.crs.is_geographic else 1)
                assert (pixels[0] > 0).sum() * pixel == pytest.approx(truth, rel=0.35)


def test_it_opens_in_true_colour_and_quality_in_its_colours(whole):
    folder = whole(CASES["metres"])
    for path in [*folder.glob("*reflectance*.tif"), folder / "EPSG3035_2023-06_reflectance.vrt"]:
        with rasterio.open(path) as file:
            shown = {kind.name: file.descriptions[at] for at, kind in enumerate(file.colorinterp)}
            assert {name: shown[name] for name in ("red", "green", "blue")} == {
                "red": "B04",
                "green": "B03",
                "blue": "B02",
            }
            assert (file.nodata, set(file.scales), file.descriptions) == (0, {1e-4}, BANDS)
    for path in [*folder.glob("*quality*.tif"), folder / "EPSG3035_2023-06_quality.vrt"]:
        with rasterio.open(path) as file:
            assert file.colorinterp[0].name == "palette"
            colours = file.colormap(1)
        assert colours[1][:3] == (0x3C, 0x9D, 0x5D)  # clear
        assert colours[3][:3] == (0xE9, 0xB9, 0x3A)  # cloudy
        assert colours[0][3] in (0, 255)
        names = described(path if path.suffix == ".vrt" else Path(f"{path}.aux.xml"))
        assert names[:4] == ["no data", "clear", "filled from another scene", "cloudy"]


def test_a_small_picture_of_all_tiles_is_of_the_same_brightness(whole):
    with rasterio.open(whole(CASES["metres"]) / "EPSG3035_2023-06_reflectance.vrt") as raster:
        whole = raster.read(4, masked=True)
        small = raster.read(4, out_shape=(raster.height // 8, raster.width // 8), masked=True)
    assert small.mean() == pytest.approx(whole.mean(), rel=0.1)


@pytest.mark.parametrize(
    ("tile", "name"),
    [
        (Tile(50, 86, 57), "50km_e86n57"),
        (Tile(0.5, 0, 0), "0.5km_e0n0"),
        (Tile(100, -3, 12), "100km_w3n12"),
        (Tile(12.5, 7, -1), "12.5km_e7s1"),
        (Tile(1000, -1, -1), "1000km_w1s1"),
    ],
)
def test_a_tile_says_where_it_lies(tile, name):
    assert tile.name == name


def test_south_of_the_equator_rows_are_counted_from_it(tmp_path):
    from small_cubes import published

    storage = Storage(str(tmp_path / "laos.zarr"))
    published(storage, Storage(str(tmp_path / "laos.staging")), 1, 5, zones=(32748,))
    (file, *_) = exports_of(Cube(storage), None, variables=["quality"], tile_km=0.16)
    assert file.tile is not None
    assert (file.tile.east, file.tile.north) == (5, 1)
    assert file.lattice.bounds(file.window) == (800.0, 10_000_160.0, 960.0, 10_000_320.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--tile-km", "0.01", "--crs", "EPSG:3035", "--resolution", "100"), "--tile-km: found 0.01"),
        (("--resolution", "10"), "--resolution: goes with --crs"),
        (("--crs", "EPSG:999999"), "crs: found 'EPSG:999999', expected a CRS"),
        (("--crs", "EPSG:3035", "--resolution", "-1"), "resolution: found -1"),
        (("--crs", "EPSG:5714"), "expected one with two axes"),
        (("--crs", "EPSG:3035", "--no-stac"), "--no-stac: "),
        (("--crs", "EPSG:3035", "--bbox", "40,10,41,11"), "does not cover this area"),
        (("--tile-km", "0.2", "--bbox", "40,10,41,11"), "does not cover this area"),
    ],
)
def test_mistakes_are_one_line(kept_zones, run, tmp_path, words, expected):
    code, _, error = run(kept_zones, "--cog", tmp_path / "out", *words)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(kept_zones, run, tmp_path):
    code, said, _ = run(kept_zones, "--cog", tmp_path, "--tile-km", "0.32", "--variable", "quality", "--workers", 1)
    assert code == 0
    for path in tiles_in(tmp_path).values():
        assert f"{path}  128 × 128 px" in said
    assert f"{tmp_path}/collection.json" in said
    assert not list(tmp_path.glob("*reflectance*"))


def test_a_mosaic_covers_the_area_that_is_asked_for(kept_zones, run, tmp_path):
    lon, lat = PLACE
    west, south, east, north = lon - 0.001, lat - 0.0005, lon + 0.0007, lat + 0.0004
    code, *_ = run(kept_zones, "--cog", tmp_path, "--crs", "EPSG:3035", "--bbox", f"{west},{south},{east},{north}")
    assert code == 0
    with rasterio.open(tmp_path / "EPSG3035_2023-06_quality.tif") as file:
        x, y = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True).transform(
            [west, east, west, east], [south, south, north, north]
        )
        left, bottom, right, top = file.bounds
        assert (left % 2.5, top % 2.5) == (0, 0)
        for side, true in ((left, min(x)), (right, max(x)), (bottom, min(y)), (top, max(y))):
            assert side == pytest.approx(true, abs=2.6)
