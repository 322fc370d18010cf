"""Export, STAC, report and map of cubes in one CRS: of metres and degrees, with a code and without, across 180°."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pystac.validation
import pytest
import rasterio
import shapely
import xarray as xr
from continental import continent_config, publish_continent
from mapped_cubes import client_of, drawn, tile_over
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely.geometry import shape
from two_zones import publish_zones, waves, windows_at

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import AreaSection
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.area import geometry_of
from difffusr.pipeline.readers.export import export_cogs, exports_of
from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.stac import write_records
from difffusr.pipeline.storage.objects import Storage

EUROPE, FIJI = (12.0, 48.0, (32632, 32633)), (180.0, -17.0, (32701, 32760))


class Case(NamedTuple):
    """A cube in one CRS: where, which, pixels (None: about 2.5 m), its name for people, metres of a pixel."""

    place: tuple[float, float, tuple[int, int]]
    crs: str
    resolution: float | None
    name: str
    gsd_m: float


CASES = {
    "metres": Case(EUROPE, "EPSG:3035", None, "EPSG:3035", 2.5),
    "degrees": Case(EUROPE, "EPSG:4326", None, "EPSG:4326", 2.5),
    "without a code": Case(EUROPE, "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84", None, "crs-", 2.5),
    "coarser": Case(EUROPE, "EPSG:2154", 10.0, "EPSG:2154", 10.0),
    "of Esri": Case(EUROPE, "ESRI:54009", None, "ESRI:54009", 2.63),
    "degrees across 180": Case(FIJI, "EPSG:4326", None, "EPSG:4326", 2.5),
    "metres across 180": Case(FIJI, "EPSG:3832", None, "EPSG:3832", 2.5),
}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Cube]:
    """The cube of a case, made when it is first asked for."""
    home = tmp_path_factory.mktemp("in-one-crs")

    @cache
    def zones(place: tuple[float, float, tuple[int, int]]) -> str:
        lon, lat, codes = place
        windows = windows_at(lon, lat, codes, (2, 4))
        url = f"{home}/{codes[0]}.zarr"
        publish_zones(Storage(url), windows, dict.fromkeys(windows, waves(lon, lat)))
        return url

    @cache
    def made(name: str) -> Cube:
        case = CASES[name]
        more = {} if case.resolution is None else {"resolution": case.resolution}
        url = f"{home}/{name.replace(' ', '_')}.zarr"
        publish_continent(continent_config(zones(case.place), url, case.crs, **more))
        return Cube(Storage(url))

    return made


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def cube(case: Case, cubes: Callable[[str], Cube]) -> Cube:
    return cubes(next(name for name, one in CASES.items() if one is case))


def expected(case: Case, crs: Any, x: NDArray[Any], y: NDArray[Any], size: float, band: int) -> NDArray[np.float64]:
    """The ground's mean over pixels of a side around places in a CRS, in DN."""
    lon, lat, _ = case.place
    truth, to_degrees = waves(lon, lat), Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    parts = (np.arange(4) + 0.5) / 4 - 0.5 if case.resolution else np.zeros(1)
    found = [truth(*to_degrees.transform(x + dx * size, y + dy * size), band) for dx in parts for dy in parts]
    return np.asarray(np.mean(found, axis=0))


def chosen(west: float, south: float, east: float, north: float) -> Any:
    return geometry_of(AreaSection(bbox=(west, south, east, north)))


def middle(case: Case, half: float = 0.0008) -> tuple[float, float, float, float]:
    """A box of degrees around the middle of a case; its east is less than its west if it crosses 180°."""
    lon, lat, _ = case.place
    west, east = ((at + 180) % 360 - 180 for at in (lon - half, lon + half))
    return west, lat - half, east, lat + half


def test_files_show_the_ground_where_it_is(case, cube, tmp_path):
    files = export_cogs(cube, exports_of(cube, None), Storage(str(tmp_path)))
    (epsg,) = cube.zones
    assert re.fullmatch(rf"{case.name.replace(':', '')}\d*_2023-06_reflectance\.tif", Path(files[0]).name)
    with rasterio.open(files[0]) as file, rasterio.open(files[1]) as labels:
        assert CRS.from_wkt(file.crs.to_wkt()).equals(CRS.from_user_input(case.crs), ignore_axis_order=True)
        assert tuple(file.bounds) == pytest.approx(cube.lattice(epsg).bounds(cube.window(epsg)), rel=1e-12)
        assert (file.descriptions, file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]) == (BANDS, "COG")
        seen = labels.read(1) == 1
        rows, cols = np.nonzero(seen)
        x, y = rasterio.transform.xy(file.transform, rows, cols)
        assert seen.mean() > 0.15
        for band in (0, 3, 11):
            true = expected(case, CRS.from_wkt(file.crs.to_wkt()), x, y, file.transform.a, band)
            off = np.abs(file.read(band + 1)[seen] - true)
            # Means of 10 m are of pixels that lie otherwise, and at the edge of the ground of some of them.
            assert np.median(off) < (4 if case.resolution is None else 16)
            assert np.percentile(off, 95) < (40 if case.resolution is None else 120)


def test_an_area_is_cut_in_the_cubes_own_pixels(case, cube, tmp_path):
    box = middle(case)
    whole, part = exports_of(cube, None, variables=["source"]), exports_of(cube, chosen(*box), variables=["source"])
    assert (whole[0].label, len(part)) == (part[0].label, 1)
    lattice, window = cube.lattice(part[0].epsg), part[0].window
    # All of the box lies in the part, and each side of the part touches it, to a pixel.
    west, south, east, north = box
    edge = np.linspace(0, 1, 200)
    lons = np.concatenate([west + (east - west) % 360 * edge, *(np.full(200, at) for at in (west, east))] * 2)
    lats = np.concatenate([np.full(200, south), *[south + (north - south) * edge] * 2])
    lats = np.concatenate([lats, np.full(200, north), lats[200:]])
    x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lons, lats)
    cols, rows = lattice.unrolled(np.asarray(x)) / lattice.pixel, (lattice.origin - np.asarray(y)) / lattice.pixel
    sides = cols.min() - window.col, window.col_stop - cols.max(), rows.min() - window.row, window.row_stop - rows.max()
    assert all(-1e-2 < side < 1 + 1e-2 for side in sides)
    assert window.height * window.width < whole[0].window.height * whole[0].window.width / 2
    (file,) = export_cogs(cube, part, Storage(str(tmp_path)))
    with rasterio.open(file) as read:
        assert tuple(read.bounds) == pytest.approx(lattice.bounds(window), rel=1e-12)
        stored = np.asarray(cube.array(part[0].epsg, "source")[0])
        first = window.row - whole[0].window.row, window.col - whole[0].window.col
        there = stored[first[0] : first[0] + window.height, first[1] : first[1] + window.width]
        np.testing.assert_array_equal(read.read(1), there)


@pytest.mark.parametrize("box", [(-70.0, -40.0, -69.0, -39.0), (11.0, 47.0, 11.5, 47.5), (-180.0, 60.0, 180.0, 80.0)])
def test_an_area_elsewhere_is_refused_in_one_line_that_says_where_the_cube_is(case, cube, box):
    with pytest.raises(Exception, match=f"does not cover this area .* in {case.name}") as refused:
        exports_of(cube, chosen(*box))
    assert "\n" not in str(refused.value)


def test_the_whole_globe_is_the_whole_cube(cube):
    (whole, *_), (part, *_) = exports_of(cube, None), exports_of(cube, chosen(-180.0, -90.0, 180.0, 90.0))
    assert part.window == whole.window


def test_records_are_true_to_the_cube(case, cube, tmp_path):
    write_records(cube, Storage(str(tmp_path)), "derived")
    documents = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert all(pystac.validation.validate_dict(document, extensions=[]) for document in documents.values())
    (epsg,) = cube.zones
    lattice, window = cube.lattice(epsg), cube.window(epsg)
    item, told = documents[f"derived_{epsg}_2023-06"], documents[f"derived_{epsg}_2023-06"]["properties"]
    has_code = ":" in case.name
    assert told["proj:code"] == (case.name if has_code else None)
    assert ("proj:wkt2" in told) != has_code
    stated = CRS.from_user_input(told["proj:code"] or told["proj:wkt2"])
    assert stated.equals(CRS.from_user_input(case.crs), ignore_axis_order=True)
    assert re.fullmatch(rf"2023-06, {case.name}\d*", told["title"])
    assert told["gsd"] == case.gsd_m == item["assets"]["zarr"]["raster:spatial_resolution"]
    assert documents["collection"]["summaries"]["gsd"] == [case.gsd_m]
    assert "UTM zones of" in told["processing:lineage"]
    asset = item["assets"]["zarr"]
    with xr.open_zarr(tmp_path / asset["href"], **asset["xarray:open_kwargs"]) as group:
        size, _, left, _, down, top = told["proj:transform"]
        np.testing.assert_allclose(group.x, left + size * (np.arange(window.width) + 0.5), rtol=1e-12)
        np.testing.assert_allclose(group.y, top + down * (np.arange(window.height) + 0.5), rtol=1e-12)
        for axis in "xy":
            entry = told["cube:dimensions"][axis]
            assert entry["extent"] == [float(group[axis].min()), float(group[axis].max())]
            assert CRS.from_user_input(entry["reference_system"]).equals(lattice.known)
            assert entry["step"] == size
    assert told["proj:shape"] == [window.height, window.width]
    ground, lon = shape(item["geometry"]), case.place[0]
    assert ground.is_valid
    assert (ground.geom_type == "MultiPolygon", item["bbox"][0] > item["bbox"][2]) == (lon == 180, lon == 180)
    west, south, east, north = item["bbox"]
    assert all(-180 <= at <= 180 for at in (west, east))
    assert all((side - lon + 180) % 360 - 180 == pytest.approx(0, abs=0.02) for side in (west, east))
    assert south < case.place[1] < north


@pytest.mark.parametrize(("column", "row"), [(0.5, 0.5), (0.45, 0.4), (0.6, 0.55)])
def test_a_spectrum_is_that_of_the_pixel_there(case, cube, column, row):
    (epsg,) = cube.zones
    with client_of(cube.storage) as client, xr.open_zarr(f"{cube.storage.url}/{epsg}/0", mask_and_scale=False) as group:
        at = group.isel(x=int(group.sizes["x"] * column), y=int(group.sizes["y"] * row), time=0)
        lon, lat = (float(v) for v in cube.lattice(epsg).degrees(float(at.x), float(at.y)))
        told = client.get("/spectrum", params={"lon": (lon + 180) % 360 - 180, "lat": lat}).json()
        side = max(round(10 / case.gsd_m), 1)
        first = {axis: int(group.sizes[axis] * share) // side * side for axis, share in (("x", column), ("y", row))}
        block = group.isel(time=0, **{axis: slice(start, start + side) for axis, start in first.items()})
        stored = block.reflectance.astype(float).where(block.reflectance > 0).mean(["x", "y"]) / 1e4
        period = told["periods"][0]
        np.testing.assert_allclose(period["reflectance"], at.reflectance / 1e4, atol=1e-6)
        np.testing.assert_allclose(period["averaged"], stored, atol=1e-6)
    assert (told["easting"], told["northing"]) == (pytest.approx(float(at.x)), pytest.approx(float(at.y)))
    assert re.fullmatch(rf"{case.name}\d*", told["crs"])
    pixel, ten = (unrolled_near(shapely.Polygon(told[name]), lon) for name in ("outline", "outline_10m"))
    assert pixel.contains(shapely.Point(lon, lat))
    assert pixel.within(ten.buffer(1e-7))


def unrolled_near(polygon: shapely.Polygon, lon: float) -> shapely.Polygon:
    return shapely.transform(polygon, lambda x, y: ((x - lon + 180) % 360 - 180 + lon, y), interleaved=False)


@pytest.mark.parametrize("east_m", [-60.0, 60.0])
def test_a_tile_shows_the_ground_where_it_is(case, cube, east_m):
    """At twenty times the pixels' own scale, on both sides of the border of zones, which may be 180°."""
    lon, lat, _ = case.place
    lon = (lon + east_m / 111_320 / np.cos(np.radians(lat)) + 180) % 360 - 180
    zoom, col, row = tile_over(lon, lat, 18 if case.resolution is None else 16)
    with client_of(cube.storage) as client:
        told = client.get("/cube.json").json()
        asked: Any = {"period": "2023-06", "low": 0, "high": 0.255}
        found = drawn(client, "B04", (zoom, col, row), **asked)
        mean = drawn(client, "B04", (zoom, col, row), averaged=True, **asked)
    seen = found[..., 3] > 0
    size = 2 * np.pi * 6_378_137 / 2**zoom / found.shape[0]
    rows, cols = np.nonzero(seen)
    x = (col * found.shape[0] + cols + 0.5) * size - np.pi * 6_378_137
    y = np.pi * 6_378_137 - (row * found.shape[0] + rows + 0.5) * size
    true = expected(case, "EPSG:3857", x, y, 1.5 * case.gsd_m, BANDS.index("B04")) / 10
    assert seen.mean() > 0.2
    assert np.corrcoef(found[..., 0][seen], true)[0, 1] > 0.96
    averaged = np.corrcoef(mean[..., 0][seen], true)[0, 1]
    assert averaged > 0.6
    assert case.resolution is not None or averaged < np.corrcoef(found[..., 0][seen], true)[0, 1] - 0.005
    (zone,) = told["zones"]
    assert re.fullmatch(rf"{case.name}\d*", zone["name"])
    assert zone["gsd_m"][0] == case.gsd_m
    assert told["sides"][0] == f"{case.gsd_m:g} m"
    west, south, east, north = zone["extent"]
    assert west < east <= west + 0.05
    assert south < lat < north
    assert (west + east) / 2 == pytest.approx(case.place[0], abs=0.01)


def test_a_view_of_the_whole_cube_has_a_range(case, cube):
    with client_of(cube.storage) as client:
        told = client.get("/cube.json").json()
        west, south, east, north = told["zones"][0]["extent"]
        asked = {"west": west, "south": south, "east": min(east, 180.0), "north": north}
        found = client.get("/range/B04/2023-06", params=asked).json()
    assert 0.03 < found["low"] < found["high"] < 0.26


def test_a_page_says_what_and_where_the_cube_is(case, cube):
    report = collect_report(cube, Storage(cube.storage.url.replace(".zarr", ".staging")), None)
    page = to_page(report)
    (epsg,) = cube.zones
    lattice, window = cube.lattice(epsg), cube.window(epsg)
    # Independently: the outline on an equal-area map, which cannot be drawn across 180°.
    left, bottom, right, top = lattice.bounds(window)
    outline = shapely.segmentize(shapely.box(left, bottom, right, top), (right - left) / 300).exterior
    lon, lat = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True).transform(*outline.xy)
    lon = (np.asarray(lon) - case.place[0] + 180) % 360 - 180
    flat = Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True).transform(lon, lat)
    assert report.zones[0].area_km2 == pytest.approx(shapely.Polygon(np.stack(flat, axis=1)).area / 1e6, rel=1e-4)
    assert f"<li>CRS {case.name}" in page
    assert "Missing from this report" in page
    assert "not of scenes" in page
    assert "UTM" not in page.replace("UTM zones of", "").replace("made of the UTM zones", "")
    assert page.count("<h3>Seams and residual</h3>") == 1
    (period,) = report.periods
    assert [note for note in period.notes if "plan" in note] == []
    assert period.survey.seen_m == case.gsd_m
    if case.resolution is None:
        assert f"{case.gsd_m:g} m averaged to {4 * case.gsd_m:g} m" in page
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", page.split('class="cells')[1].split("</g>")[0]):
        assert -1 <= float(x) <= 901
        assert -1 <= float(y) <= 701
    for crop in period.crops:
        assert (crop.lon, crop.lat) == (pytest.approx(crop.lon), pytest.approx(case.place[1], abs=0.01))
        assert (crop.lon - case.place[0] + 180) % 360 - 180 == pytest.approx(0, abs=0.02)
        assert -180 <= crop.lon <= 180
