"""What points, patches and mosaics take, beside zarr and GDAL alone on the same pixels, from local files.

`make bench` runs it; it leaves `readers.json` beside this file. Each turn measures both sides, one after the other.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from full_size_cubes import full_size_cube, windows_around
from machine import machine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from difffusr.pipeline.readers import CubePatches, OpenCube, open_cube
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent

TURNS, POINTS = 5, 10_000

#: On both sides of the border between the cube's zones.
BOX = 11.95, 47.966, 12.05, 48.034


def median_s(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turns(**sides: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each side, the median of turns after a first one."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS + 1):
        for name, work in sides.items():
            found[name].append(median_s(work))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> OpenCube:
    """Two zones of nine shards each, 380 km², 2304 chunks in all."""
    folder = tmp_path_factory.mktemp("cube")
    full_size_cube(Storage(f"{folder}/cube.zarr"), windows_around(12.0, 48.0, (32632, 32633), 3))
    return open_cube(f"{folder}/cube.zarr")


def scattered(cube: OpenCube) -> NDArray[np.float64]:
    rng, found = np.random.default_rng(0), []
    for zone in cube.zones:
        left, bottom, right, top = cube.cube.window(zone).bounds_m(zone)
        x, y = rng.uniform(left, right, 3 * POINTS), rng.uniform(bottom, top, 3 * POINTS)
        lon, lat = Transformer.from_crs(f"EPSG:{zone}", "EPSG:4326", always_xy=True).transform(x, y)
        own = (lon < 12) == (zone == 32632)
        found.append(np.stack([lon[own], lat[own]], axis=1)[: POINTS // 2])
    return np.concatenate(found)


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_readers_are_as_fast_as_what_they_stand_on(cube, capsys):
    rows = [points(cube), *patches(cube), mosaics(cube), floats(cube)]
    (HERE / "readers.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    with capsys.disabled():
        print()
        for row in rows:
            print(json.dumps(row))
    by_name = {row["what"]: row for row in rows}
    assert by_name["10 000 points, two zones"]["s"] < 5
    assert by_name["patches, their quality with them"]["of_zarr"] >= 0.9
    assert by_name["a mosaic across the border"]["of_gdal"] >= 0.2


def points(cube: OpenCube) -> dict[str, Any]:
    wanted = scattered(cube)
    assert len(wanted) == POINTS
    seen = cube.sample(wanted)
    assert set(np.unique(seen.zone)) == set(cube.zones)
    times = in_turns(ours=lambda: open_cube(cube.url).sample(wanted))
    return {"what": "10 000 points, two zones", "s": round(times["ours"], 2), "chunks": 1152}


def patches(cube: OpenCube) -> list[dict[str, Any]]:
    """Patches of one process, as a loop over zarr's arrays reads them; and with the quality of each."""
    data = CubePatches(cube, 256, count=None)
    places = list(data.reader.in_order(0, 0, 0, 1))
    arrays = {(zone, name): cube.cube.array(zone, name) for zone in cube.zones for name in ("reflectance", "quality")}

    def raw(names: tuple[str, ...]) -> None:
        for patch in places:
            for name in names:
                part = slice(patch.row, patch.row + 256), slice(patch.col, patch.col + 256)
                _ = arrays[patch.shard.zone, name][(0, ..., *part)]

    def ours() -> None:
        assert sum(1 for _ in data) == len(places)

    times = in_turns(ours=ours, pixels=lambda: raw(("reflectance",)), both=lambda: raw(("reflectance", "quality")))
    rate = {key: len(places) / seconds for key, seconds in times.items()}
    sides = {"patches": "pixels", "patches, their quality with them": "both"}
    return [
        {
            "what": what,
            "per_s": round(rate["ours"]),
            "zarr_per_s": round(rate[key]),
            "of_zarr": of(rate["ours"], rate[key]),
        }
        for what, key in sides.items()
    ]  # fmt: skip


def of(one: float, other: float) -> float:
    """Their ratio."""
    return round(one / other, 2)


def mosaics(cube: OpenCube) -> dict[str, Any]:
    """Three bands of 2048 × 2048 pixels of LAEA Europe across the border, with reading; beside GDAL's warper alone,
    which has both zones' pixels in memory and does not blend."""
    image = cube.mosaic(bbox=BOX, crs="EPSG:3035", bands=["B04", "B03", "B02"])
    image = image[:, :2048, :2048]
    held = {zone: np.asarray(cube.cube.array(zone, "reflectance")[0, 1:4]) for zone in cube.zones}
    x, y = float(image.x[0]) - 1.25, float(image.y[0]) + 1.25

    def warp() -> None:
        for zone, values in held.items():
            left, _, _, top = cube.cube.window(zone).bounds_m(zone)
            reproject(
                values, np.zeros((3, 2048, 2048), np.float32), src_transform=Affine(2.5, 0, left, 0, -2.5, top),
                src_crs=f"EPSG:{zone}", src_nodata=0, dst_transform=Affine(2.5, 0, x, 0, -2.5, y), dst_crs="EPSG:3035",
                dst_nodata=np.nan, resampling=Resampling.cubic, num_threads=2,
            )  # fmt: skip

    times = in_turns(ours=lambda: image.copy().load(), gdal=warp)
    return {
        "what": "a mosaic across the border", "mpx_per_s": round(2048**2 / 1e6 / times["ours"], 2),
        "gdal_mpx_per_s": round(2048**2 / 1e6 / times["gdal"], 2), "of_gdal": round(times["gdal"] / times["ours"], 2),
    }  # fmt: skip


def floats(cube: OpenCube) -> dict[str, Any]:
    """A shard of all bands as float32, beside xarray's own float64."""
    zone = cube.zones[0]
    plain = xr.open_zarr(cube.url, group=f"{zone}/0", chunks=None).reflectance[:, :, :2048, :2048]
    ours = cube.dataset(zone).reflectance[:, :, :2048, :2048]
    assert (plain.dtype, ours.dtype) == (np.float64, np.float32)
    times = in_turns(ours=lambda: ours.copy().load(), xarray=lambda: plain.copy().load())
    return {"what": "a shard as float32", "of_xarray": round(times["xarray"] / times["ours"], 2)}
