"""A cube of one CRS against GDAL's own warper and zarr alone; the plan of a continent; requests a shard.

`pytest -m bench tests/bench/test_continent.py -s` prints the figures and leaves `continent.json` beside this file.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import zarr
from pyproj import Transformer
from rasterio.warp import Resampling, reproject
from scipy.ndimage import gaussian_filter
from two_zones import publish_zones, windows_at
from zarr.storage import FsspecStore, MemoryStore

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.continent import planning
from difffusr.pipeline.assemble.continent.sources import SourcePeriod, all_places
from difffusr.pipeline.assemble.continent.warping import Resolution, ZoneView, warp_memory, warped_shard
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.geo.zones import territory, to_zone
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent
GRID = Grid()
LON, LAT = 12.0, 48.0

pytestmark = pytest.mark.bench


class Zones:
    """As a cube: zones of noise as fine as buildings, around a place, in memory as they would be stored."""

    def __init__(self, zones: tuple[int, ...]) -> None:
        rng, side = np.random.default_rng(1), 3 * GRID.shard_px
        texture = gaussian_filter(rng.normal(size=(GRID.shard_px,) * 2).astype(np.float32), 1.2, mode="wrap")
        texture = np.tile(1500 + 300 * texture / texture.std(), (3, 3))
        codec = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
        self.windows: dict[int, PixelWindow] = {}
        self._held: dict[tuple[int, str], zarr.Array[Any]] = {}
        for epsg in zones:
            x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(LON, LAT)
            self.windows[epsg] = PixelWindow(round(-y / 2.5) - side // 2, round(x / 2.5) - side // 2, side, side)
            for name, bands, dtype in (
                ("reflectance", (12,), "uint16"),
                ("quality", (), "uint8"),
                ("source", (), "uint16"),
            ):
                array = zarr.create_array(
                    MemoryStore(), shape=(1, *bands, side, side), dtype=dtype, compressors=codec,
                    shards=(1, *bands, GRID.shard_px, GRID.shard_px), chunks=(1, *bands, GRID.chunk_px, GRID.chunk_px),
                )  # fmt: skip
                if bands:
                    for band in range(len(BANDS)):
                        array[0, band] = (texture + 20 * band).astype(np.uint16)
                else:
                    array[...] = 1
                self._held[epsg, name] = array

    def variables(self, _: int) -> list[str]:
        return ["quality", "reflectance", "source"]

    def array(self, epsg: int, name: str, level: int = 0) -> Any:
        return self._held[epsg, name]

    def views(self) -> list[ZoneView]:
        return [ZoneView(epsg, 0, window) for epsg, window in self.windows.items()]


def ours(zones: Zones, lattice: Lattice, target: PixelWindow) -> ShardData:
    made = warped_shard(zones, zones.views(), lattice, target, Resolution(0, False), 980.0)  # type: ignore[arg-type]
    assert made is not None
    return made


def gdals(zones: Zones, lattice: Lattice, target: PixelWindow) -> ShardData:
    """Every zone's pixels read and warped by GDAL as they are; the last zone's stay."""
    made = ShardData.empty(target.height, with_std=False)
    box = lattice.geobox(target)
    for view in zones.views():
        part = view.seen_from(lattice, target)
        if part is None:
            continue
        place = {
            "src_transform": view.transform(part), "src_crs": f"EPSG:{view.epsg}", "src_nodata": 0,
            "dst_transform": box.transform, "dst_crs": lattice.crs, "dst_nodata": 0,
        }  # fmt: skip
        rows, cols = slice(part.row, part.row_stop), slice(part.col, part.col_stop)
        for name, how in (("reflectance", Resampling.cubic), ("quality", Resampling.mode), ("source", Resampling.mode)):
            reproject(
                np.asarray(zones.array(view.epsg, name)[0, ..., rows, cols]),
                getattr(made, name),
                resampling=how,
                **place,
            )
    return made


def stored(data: ShardData) -> None:
    """Written with zarr alone, encoded as a cube's shards are."""
    codec = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
    for values in (data.reflectance, data.quality, data.source):
        chunks = (*values.shape[:-2], GRID.chunk_px, GRID.chunk_px)
        array = zarr.create_array(
            MemoryStore(), shape=values.shape, dtype=values.dtype, shards=values.shape, chunks=chunks, compressors=codec
        )
        array[...] = values


def test_a_continent_is_planned_in_seconds(capsys):
    """Zones 29 to 36 between 36° and 67° N, without opening anything."""
    lattice, views, places = Lattice("EPSG:3035"), {}, []
    for number in range(29, 37):
        epsg, side = 32600 + number, GRID.shard_px * 2.5
        left, bottom, right, top = to_zone(territory(epsg).intersection(shapely.box(-180, 36, 180, 67)), epsg).bounds
        first, last = (int(-top // side), int(left // side)), (int(-bottom // side), int(right // side))
        rows, cols = (axis.ravel().astype(np.int32) for axis in np.mgrid[first[0] : last[0], first[1] : last[1]])
        places.append((np.full(len(rows), epsg, np.int32), rows, cols))
        size = GRID.shard_px
        views[epsg] = ZoneView(
            epsg,
            0,
            PixelWindow(first[0] * size, first[1] * size, (last[0] - first[0]) * size, (last[1] - first[1]) * size),
        )
    epsg, row, col = (np.concatenate(parts) for parts in zip(*places, strict=True))
    source = SourcePeriod(
        None, "2024", views, epsg, row, col, [f"{n:020x}" for n in range(len(epsg))], GRID.shard_px, 980.0
    )
    begun = time.monotonic()
    all_places(source, lattice, GRID.shard_px)
    made, _ = planning.shards_of(source, lattice, GRID.shard_px)
    seconds, peak = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    told = {"source shards": len(epsg), "shards": len(made), "seconds": round(seconds, 1), "peak_gb": round(peak, 2)}
    keep("the plan of a continent", told, capsys)
    assert len(epsg) > 388_000
    assert seconds < 120


def test_a_shard_takes_as_long_as_gdal_s_own_warper_takes(capsys):
    lattice, told = Lattice("EPSG:3035"), {}
    zones = Zones((32632, 32633))
    for name, lon in (("one zone", LON + 0.03), ("two zones", LON)):
        one = Zones.__new__(Zones)
        one.windows = zones.windows if name == "two zones" else {32633: zones.windows[32633]}
        one._held = zones._held
        x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, LAT)
        side = GRID.shard_px
        target = PixelWindow(round(-y / 2.5) - side // 2, round(x / 2.5) - side // 2, side, side)
        seconds: dict[str, list[float]] = {"ours": [], "gdal": [], "zarr": []}
        for _ in range(2):
            begun = time.process_time()
            made = ours(one, lattice, target)
            seconds["ours"].append(time.process_time() - begun)
            begun = time.process_time()
            gdals(one, lattice, target)
            seconds["gdal"].append(time.process_time() - begun)
            begun = time.process_time()
            stored(made)
            seconds["zarr"].append(time.process_time() - begun)
        least = {kind: min(values) for kind, values in seconds.items()}
        ratio = (least["ours"] + least["zarr"]) / (least["gdal"] + least["zarr"])
        parts = [part for view in one.views() if (part := view.seen_from(lattice, target)) is not None]
        stated = warp_memory(GRID, parts, with_std=False, with_looks=False)
        told[name] = {
            **{kind: round(value, 2) for kind, value in least.items()},
            "ratio": round(ratio, 2),
            "stated_mb": stated // 10**6,
        }
        assert ratio <= 1.5
    keep("a shard of 2048 px, core seconds", told, capsys)


@pytest.mark.timeout(900)
def test_a_shard_is_read_by_so_many_requests(bucket, s3_options, tmp_path, capsys, monkeypatch):
    """One where two zones meet, from zones in S3: each object's index, and each chunk that it shows, once."""
    storage = Storage(f"s3://{bucket}/zones.zarr", s3_options)
    windows = windows_at(LON, LAT, (32632, 32633), (2, 2), GRID)
    publish_zones(storage, windows, dict.fromkeys(windows, lambda lons, *_: np.full(lons.shape, 900.0)), grid=GRID)
    told: dict[str, int] = {}
    reader = FsspecStore.get

    async def counted(self: Any, key: str, *args: Any, **how: Any) -> Any:
        name = key.split("/")[2] if key.count("/") > 2 else "metadata"
        told[name] = told.get(name, 0) + 1
        return await reader(self, key, *args, **how)

    cube = Cube(storage)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True).transform(LON, LAT)
    side = GRID.shard_px
    target = PixelWindow(round(-y / 2.5) - side // 2, round(x / 2.5) - side // 2, side, side)
    views = [ZoneView(epsg, 0, cube.window(epsg)) for epsg in windows]
    monkeypatch.setattr(FsspecStore, "get", counted)
    warped_shard(cube, views, Lattice("EPSG:3035"), target, Resolution(0, False), 220.0)
    keep("requests of a shard of 2048 px where two zones meet", told, capsys)


def keep(what: str, told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path = HERE / "continent.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, what: told}, indent=1, sort_keys=True) + "\n")
    with capsys.disabled():
        print(f"\n{what}: {told}")
