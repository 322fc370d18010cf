"""The cube as people open it: xarray, rioxarray and odc-geo, with no options, at every level and of every variable."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import odc.geo.xr  # noqa: F401  (it is the accessor)
import pytest
import rioxarray
import small_cubes as plain
import xarray as xr
from small_cubes import EPSG, GRID, SHARDS, WINDOW, finish, label, month, pixels

from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

README = Path(__file__).parents[3] / "notebooks" / "README.md"
VARIABLES = ("reflectance", "reflectance_std", "quality", "source")
LEVELS = (0, 1)
LEFT, _, _, TOP = WINDOW.bounds_m(EPSG)

Cubes = dict[str, Storage]


def noisy(number: int) -> ShardData:
    """A shard of which no two pixels are the same, and a quarter holds no data."""
    side = GRID.shard_px
    flat = pixels(number)
    ramp = (np.arange(side * side).reshape(side, side) + 1000 * number).astype(np.uint16)
    reflectance, std = flat.reflectance + ramp, flat.reflectance + ramp // 8
    reflectance[:, : side // 2, : side // 2], std[:, : side // 2, : side // 2] = 0, STD_FILL
    return ShardData(reflectance, flat.quality, flat.source, std)


def drafted(storage: Storage, number: int) -> CubeDraft:
    """The cube with a month, in which each pixel has a standard deviation."""
    scenes = [{"id": f"scene {number}", "tile": "48PXS"}]
    return draft_cube(storage, GRID, {EPSG: WINDOW}, month(number), scenes, {"made": {"by": "a test"}}, 4)


def published(storage: Storage, staging: Storage, number: int) -> None:
    """A month of it."""
    target = open_target(storage, staging, drafted(storage, number), label(number))
    target.begin()
    writer = target.writer()
    target.accept([writer.write(EPSG, shard, noisy(number)) for shard in SHARDS])
    planned = {(EPSG, shard) for shard in SHARDS}
    finish(target, staging, planned, planned)
    target.publish(shards_written=len(SHARDS), keep=1)


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Cubes:
    """Two months, in each kind of store."""
    home = tmp_path_factory.mktemp("opened")
    made = {kind: Storage(f"{prefix}{home}/{kind}") for kind, prefix in (("plain", ""), ("icechunk", "icechunk+"))}
    for kind, storage in made.items():
        for number in (1, 2):
            published(storage, Storage(f"{home}/{kind}.staging"), number)
    return made


def with_dask(place: Any, group: str) -> xr.Dataset:
    """The first way that everybody knows."""
    return xr.open_zarr(place, group=group)


def without_dask(place: Any, group: str) -> xr.Dataset:
    """The second."""
    return xr.open_dataset(place, engine="zarr", group=group)


def in_a_tree(place: Any, group: str) -> xr.Dataset:
    """All zones and levels at once."""
    return xr.open_datatree(place, engine="zarr")[group].to_dataset()


WAYS = (with_dask, without_dask, in_a_tree)


def place_of(storage: Storage) -> Any:
    """What xarray takes: a path, or a session's store."""
    return open_store(storage) if storage.url.startswith("icechunk+") else storage.url


@pytest.fixture(autouse=True)
def nothing_warns() -> Iterator[None]:
    """A reader who sees a warning asks whether the data are right. Those of libraries about libraries stay."""
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning, FutureWarning):
            warnings.simplefilter("error", category)
        warnings.filterwarnings("ignore", ".* does not have a Zarr V3 specification", FutureWarning)
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        warnings.filterwarnings(
            "ignore", "endian-ness of dtype", UserWarning
        )  # netCDF4 about the type that xarray gives
        yield


@pytest.fixture(
    params=[(kind, way) for kind in ("plain", "icechunk") for way in WAYS], ids=lambda p: p[0] + p[1].__name__
)
def opened(request: pytest.FixtureRequest, cubes: Cubes) -> Callable[[int], xr.Dataset]:
    """A function that opens a level."""
    kind, way = request.param
    return lambda level: cast(xr.Dataset, way(place_of(cubes[kind]), f"{EPSG}/{level}"))


@pytest.fixture(params=WAYS[:2])
def whole(request: pytest.FixtureRequest, cubes: Cubes) -> xr.Dataset:
    """The 2.5 m level."""
    return cast(xr.Dataset, request.param(cubes["plain"].url, f"{EPSG}/0"))


def transform_of(data: xr.DataArray | xr.Dataset) -> tuple[float, ...]:
    """The place as odc-geo and rioxarray have it, who agree."""
    by_odc, by_rio = tuple(data.odc.geobox.transform)[:6], tuple(data.rio.transform())[:6]
    assert by_odc == by_rio
    assert data.rio.crs.to_epsg() == data.odc.geobox.crs.epsg == EPSG
    return by_rio


@pytest.mark.parametrize("level", LEVELS)
def test_every_variable_knows_its_place(opened, level):
    data, size = opened(level), 2.5 * 2**level
    assert set(VARIABLES) <= set(data.data_vars)
    here = (size, 0.0, LEFT, 0.0, -size, TOP)
    assert transform_of(data) == here
    for name in VARIABLES:
        assert transform_of(data[name]) == here
        assert data[name].odc.geobox.shape == (WINDOW.height >> level, WINDOW.width >> level)
        cropped = data[name].isel(x=slice(5, 30), y=slice(7, 20))
        assert transform_of(cropped) == (size, 0.0, LEFT + 5 * size, 0.0, -size, TOP - 7 * size)


#: What people make of reflectance before they ask for its place.
MADE: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "one band": lambda data: data.reflectance.sel(band="B04").isel(time=0),
    "an index": lambda data: (
        (data.reflectance.sel(band="B08") - data.reflectance.sel(band="B04"))
        / (data.reflectance.sel(band="B08") + data.reflectance.sel(band="B04"))
    ),
    "a mean over time": lambda data: data.reflectance.mean("time"),
    "only what is clear": lambda data: data.reflectance.where(data.quality == 1),
    "a quality in words": lambda data: data.quality.isin([1, 2]),
    "a signal to noise ratio": lambda data: data.reflectance / data.reflectance_std,
    "the newest": lambda data: data.sel(time="2023-02-01").source,
    "a floating image": lambda data: data.reflectance.astype("float32").transpose("y", "x", "band", "time"),
    "the lower half, turned": lambda data: data.source.isel(y=slice(None, 64)).sortby("x"),
}


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_of_them_does_too(whole, made):
    result = MADE[made](whole)
    assert transform_of(result) == (2.5, 0.0, LEFT, 0.0, -2.5, TOP)


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_fewer_pixels_are_larger(whole, factor):
    size, rest = 2.5 * factor, WINDOW.width % factor
    means = whole.reflectance.coarsen(x=factor, y=factor, boundary="trim").mean()
    assert transform_of(means) == (size, 0.0, LEFT, 0.0, -size, TOP)
    assert transform_of(whole.quality[:, ::factor, ::factor])[:2] == (size, 0.0)
    assert means.sizes["x"] == (WINDOW.width - rest) / factor


#: Parts of the cube that people save.
CROPS: dict[str, Callable[[xr.Dataset], xr.Dataset | xr.DataArray]] = {
    "a window": lambda data: data.isel(x=slice(3, 20), y=slice(40, 60)),
    "over several shards": lambda data: data.isel(x=slice(40, 110), y=slice(30, 101)),
    "one variable": lambda data: data.reflectance.isel(x=slice(10, 50), y=slice(50)),
    "the standard deviation": lambda data: data.reflectance_std.isel(x=slice(32, 64), y=slice(32, 64)),
    "flags": lambda data: data.quality.isel(time=1),
    "one band of one month": lambda data: data.reflectance.sel(band="B8A", time="2023-01-01"),
    "some bands": lambda data: data.sel(band=["B04", "B03", "B02"]).isel(y=slice(100, None)),
    "by metres": lambda data: data.sel(x=slice(LEFT + 50, LEFT + 90), y=slice(TOP - 50, TOP - 90)),
    "an index": lambda data: MADE["an index"](data).rename("ndvi"),
    "every second pixel": lambda data: data.isel(x=slice(None, None, 2), y=slice(None, None, 2)),
    "all": lambda data: data,
}
ENGINES = [name for name in ("scipy", "h5netcdf", "netCDF4") if importlib.util.find_spec(name)]


def same(back: xr.Dataset, crop: xr.Dataset | xr.DataArray) -> bool:
    """Whether a file holds what was saved, and says where and when that is."""
    expected = (crop if isinstance(crop, xr.Dataset) else crop.to_dataset(name=crop.name)).load()
    xr.testing.assert_equal(back.load(), expected)
    names = [name for name in expected.data_vars if {"x", "y"} <= set(expected[name].dims)]
    assert [transform_of(back[name]) for name in names] == [transform_of(crop)] * len(names)
    return True


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CROPS)
def test_a_crop_goes_to_netcdf_and_comes_back(whole, tmp_path, name, engine):
    crop = CROPS[name](whole)
    if engine == "scipy" and "reflectance_std" in (crop.variables if isinstance(crop, xr.Dataset) else [crop.name]):
        # Classic netCDF has no unsigned numbers of 16 bits, and the fill value is the greatest of them.
        with pytest.raises(ValueError, match="uint16 to int16"):
            crop.to_netcdf(tmp_path / "refused.nc", engine=engine)
        crop = CROPS[name](whole.drop_vars("reflectance_std").assign(reflectance_std=whole.reflectance))
    crop.to_netcdf(tmp_path / "crop.nc", engine=engine.lower())
    with xr.open_dataset(tmp_path / "crop.nc", engine=engine.lower()) as back:
        assert same(back, crop)
        if name == "a window":
            assert back.reflectance.encoding["dtype"].kind in "iu"
            assert back.reflectance.encoding["scale_factor"] == 1e-4
            assert back.time.encoding["units"] == "days since 1970-01-01"


@pytest.mark.parametrize("name", CROPS)
def test_a_crop_goes_to_zarr_and_comes_back(whole, tmp_path, name):
    crop = CROPS[name](whole)
    if "time" not in crop.dims:
        crop = crop.drop_encoding()  # which has shards of as many dimensions as there were
    # xarray gives Dask the chunks within a shard, of which two must not be written at once.
    crop.load().to_zarr(tmp_path / "crop.zarr")
    with xr.open_zarr(tmp_path / "crop.zarr") as back:
        assert same(back, crop)
        if name == "a window":
            assert (back.reflectance.encoding["dtype"], back.quality.encoding["dtype"]) == (np.uint16, np.uint8)


@pytest.mark.parametrize("name", VARIABLES)
def test_rasters_and_reprojections(whole, tmp_path, name):
    crop = whole[name].isel(time=1, x=slice(8, 40), y=slice(4, 30)).load()
    crop.rio.to_raster(tmp_path / "crop.tif")
    with rioxarray.open_rasterio(tmp_path / "crop.tif", mask_and_scale=crop.dtype.kind == "f") as back:
        assert transform_of(back) == transform_of(crop)
        assert np.allclose(np.squeeze(back), crop, rtol=1e-6, equal_nan=True)
    for reprojected in (crop.rio.reproject("EPSG:3857"), crop.odc.reproject("EPSG:3857")):
        assert reprojected.rio.crs.to_epsg() == reprojected.odc.geobox.crs.epsg == 3857
        assert set(np.unique(reprojected)) & set(np.unique(crop))


@pytest.mark.parametrize("kind", ["plain", "icechunk"])
def test_the_tree_goes_to_other_files(cubes, tmp_path, kind):
    tree = xr.open_datatree(place_of(cubes[kind]), engine="zarr")
    assert {f"/{EPSG}/{level}" for level in LEVELS} <= set(tree.groups)
    tree.to_zarr(tmp_path / "copy.zarr")
    copies = [xr.open_datatree(tmp_path / "copy.zarr", engine="zarr")]
    if set(ENGINES) > {"scipy"}:
        # Groups above the levels say more than netCDF has words for.
        tree.map_over_datasets(lambda data: data.drop_attrs(deep=False)).to_netcdf(tmp_path / "copy.nc")
        copies.append(xr.open_datatree(tmp_path / "copy.nc"))
    for copy in copies:
        for level in LEVELS:
            assert same(copy[f"{EPSG}/{level}"].to_dataset(), tree[f"{EPSG}/{level}"].to_dataset())


def test_times_are_days_and_their_bounds_meet(opened):
    data = opened(0)
    assert data.time.values.astype("datetime64[D]").astype(str).tolist() == ["2023-01-01", "2023-02-01"]
    assert (data.time_bnds[:-1, 1].values == data.time.values[1:]).all()
    assert data.sel(time="2023-02").sizes["time"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        data.isel(time=[1]).load().time_bnds.to_dataset().map(lambda bounds: bounds.dt.strftime("%Y"))


def flat(value: Any) -> bool:
    """Whether netCDF has such an attribute: text, a number, or a list of numbers."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def test_every_attribute_of_levels_and_arrays_is_flat(cubes):
    documents = {path: json.loads(data) for path, data in drafted(cubes["plain"], 3).objects.items() if "json" in path}
    below_zones = {path: document for path, document in documents.items() if path.count("/") > 1}
    nested = [
        (path, name)
        for path, doc in below_zones.items()
        for name, value in doc["attributes"].items()
        if not flat(value)
    ]
    assert (len(below_zones), nested) == (len(LEVELS) * (1 + len(VARIABLES) + 7) + 1, [])  # and a page of scenes


@pytest.mark.parametrize("value", [{"a": 1}, [[1, 2]], ["y", "x"], [], None, True, [{"uuid": "a"}]])
def test_what_netcdf_has_no_words_for_is_not_flat(value):
    assert not flat(value)


def test_what_the_notebooks_readme_says_works(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path / "cube.zarr"))
    plain.published(storage, Storage(str(tmp_path / "staging")), 1, 11)
    without = README.read_text().partition("## Without difffusr")[2]
    snippets = re.findall(r"```python\n(.*?)```", without, re.DOTALL)[:4]
    code = "".join(snippets).replace("demo-output/cube.zarr", storage.url).replace("32632/0", f"{EPSG}/0")
    assert storage.url in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["single"].reflectance.dtype == np.float32  # type: ignore[attr-defined]
    assert names["scenes"] == Cube(storage).scenes != {}
    with xr.open_dataset("part.nc") as by_netcdf, xr.open_zarr("part.zarr") as by_zarr:
        xr.testing.assert_equal(by_netcdf.load(), by_zarr.load())
        assert transform_of(by_netcdf.reflectance) == transform_of(by_zarr.source) == (2.5, 0.0, LEFT, 0.0, -2.5, TOP)
    with rioxarray.open_rasterio("quality.tif") as raster:
        assert transform_of(raster) == (2.5, 0.0, LEFT, 0.0, -2.5, TOP)


# A cube of an earlier version -----------------------------------------------------------------------------------------


def age(cube: Path) -> None:
    """Give a cube's documents the attributes that the first version wrote."""

    def aged(path: str, document: dict[str, Any]) -> None:
        attributes = document["attributes"]
        if "difffusr:periods" in attributes:
            attributes["difffusr:periods"] = json.loads(attributes["difffusr:periods"])
        if "grid_mapping" in attributes:
            attributes["coordinates"] = attributes["coordinates"].replace("spatial_ref", "").strip()
            if not attributes["coordinates"]:
                del attributes["coordinates"]
            attributes["zarr_conventions"] = [{"uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f", "name": "proj:"}]
            attributes["proj:code"] = f"EPSG:{EPSG}"
        if path.endswith("spatial_ref"):
            attributes["GeoTransform"] = f"{LEFT} 2.5 0 {TOP} 0 -2.5"
        within = (document.get("consolidated_metadata") or {}).get("metadata", {})
        for name, inner in within.items():
            aged(f"{path}/{name}", inner)

    for file in cube.glob("**/zarr.json"):
        document = json.loads(file.read_text())
        aged(str(file.parent), document)
        file.write_text(json.dumps(document))


@pytest.fixture
def earlier(on_disk: tuple[Storage, Storage]) -> tuple[Storage, Storage]:
    """January, by the first version."""
    storage, staging = on_disk
    published(storage, staging, 1)
    age(Path(storage.url))
    with xr.open_zarr(storage.url, group=f"{EPSG}/0") as data:
        assert data.reflectance.rio.crs is None
        with pytest.raises((TypeError, ValueError)):
            data.isel(x=slice(4), y=slice(4)).to_netcdf(Path(storage.url).parent / "crop.nc")
    return storage, staging


@pytest.mark.parametrize("number", [1, 2])
def test_an_earlier_cube_is_continued_and_then_opens_like_a_new_one(earlier, tmp_path, number):
    storage, staging = earlier
    with xr.open_zarr(storage.url, group=f"{EPSG}/0") as before:
        january = before.reflectance[0].load()
    assert Cube(storage).periods(EPSG) == {"2023-01": (0, month(1))}
    zone = drafted(storage, number).zones[EPSG]
    assert (len(zone.periods), zone.is_written) == ((1, False), (2, True))[number - 1]
    published(storage, staging, number)
    assert Cube(storage).periods(EPSG) == {label(n): (n - 1, month(n)) for n in range(1, number + 1)}
    for level in LEVELS:
        with xr.open_zarr(storage.url, group=f"{EPSG}/{level}") as data:
            assert transform_of(data.quality)[0] == 2.5 * 2**level
            assert data.sizes["time"] == number
            data[["reflectance", "quality"]].isel(x=slice(4), y=slice(4)).to_netcdf(tmp_path / f"{level}.nc")
            if not level:
                assert np.array_equal(data.reflectance[0], january, equal_nan=True)
