"""How near reading, staging and assembly come to what their libraries do alone.

A limit is the same work done by the library that must do it, in a plain loop: rasterio reading the same windows of the
same files; Blosc packing the same arrays with the same codec, and a file written and renamed; zarr writing the same
arrays with the same chunks, shards and codecs to the same kind of store. Work and limit take turns, and
the least of each counts.

Seconds are those of a core, of all threads together: a node has as many cores for each of these tasks as it has cores,
so this is what its throughput is made of. Whatever else the machine does then changes little.

Pixels are real where the real scenes are at hand, else of the generated world: nine chips of the first are
super-resolved by the shipped model, and repeated over a shard as they lie beside each other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
import zarr
from beside import SHARED
from rasterio.windows import Window

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.assemble.halving import halve_shards
from difffusr.pipeline.chips import staging
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.chips.table import ChipTable
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.engine.memory import KEEP_FREED
from difffusr.pipeline.geo.grid import ChipIndex, Grid, PixelWindow, ShardIndex
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.scenes import ChipRules
from difffusr.pipeline.scenes.chip import read_chip
from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.synthetic.world import write_demo_world
from difffusr.pipeline.storage.objects import Storage

ARCHIVE = SHARED / "data" / "archive" / "catalog.json"

#: Chips a side of what is read, and of what is super-resolved.
READ_SIDE, MADE_SIDE = 15, 3

#: A scene classification's codes for vegetation and for high cloud of great probability.
VEGETATION, CLOUD = 4, 9

TURNS = 9


def measure(folder: Path) -> list[dict[str, Any]]:
    """Measure in an empty folder, in a process with the environment of a worker: of each kind of work `what`,
    `mb_per_s` and `limit_mb_per_s` of pixels a core second, `ratio`, how many times the limit's seconds it takes, and
    `pixels`, where they come from."""
    out = folder / "limits.json"
    environment = {**os.environ, **KEEP_FREED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, __file__, str(folder), str(out)], env=environment, check=True)
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    return rows


def _measured(folder: Path) -> list[dict[str, Any]]:
    config, pixels = job(folder)
    table = ChipTable.of(config, decide(config))
    made = super_resolved(config, table)
    rows = [
        reading("reading", folder / "one", table, scenes=1),
        reading("reading, clouds filled from a second scene", folder / "two", table, scenes=2),
        *staged(folder / "staged", list(made.values())),
        *assembled(folder / "assembled", table.grid, made),
    ]
    return [{**row, "pixels": pixels} for row in rows]


def job(folder: Path) -> tuple[RunConfig, str]:
    """A run over the real scenes, or else over a generated world."""
    if ARCHIVE.exists():
        pixels = "Sentinel-2 over Thailand, 2020-02-23"
        source: dict[str, Any] = {
            "area": {"tiles": ["48QUE", "48QUD"]},
            "period": {"start": "2020-02-01", "end": "2020-02-29"},
            "source": {"static_catalog": str(ARCHIVE)},
        }
    else:
        pixels, world = "a generated world", write_demo_world(folder / "world", size_m=(6000, 6000))
        source = {
            "area": {"bbox": [float(edge) for edge in world.bbox]},
            "period": {"start": world.period[0], "end": world.period[1]},
            "source": {"static_catalog": str(world.catalog)},
        }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**source, "store": {"url": "cube.zarr"}, "compute": {"batch": 1}}))
    return load_config(path), pixels


def super_resolved(config: RunConfig, table: ChipTable) -> dict[tuple[int, int], StagedChip]:
    """Chips that lie beside each other in the middle of the area, by their place among them."""
    at = {(int(row), int(col)): n for n, (row, col) in enumerate(zip(table.row, table.col, strict=True))}
    row, col = (int(np.median(places)) - MADE_SIDE // 2 for places in (table.row, table.col))
    model, made = SuperResolver(config), {}
    for place in np.ndindex(MADE_SIDE, MADE_SIDE):
        read = table.read(at[row + place[0], col + place[1]])
        out = model({name: np.asarray(value)[None] for name, value in read.items()})
        made[place] = StagedChip(out["dn"][0], out["quality"][0], out["source"][0])
    return made


# ---- one work against its limit -------------------------------------------------------------------------------------


def against(what: str, megabytes: float, limit: Callable[[], Any], work: Callable[[], Any]) -> dict[str, Any]:
    """Take turns, the first of which only warms up. The least of each counts: what else a machine does only adds."""
    turns = [(_core_seconds(limit), _core_seconds(work)) for _ in range(1 + TURNS)][1:]
    least, taken = (min(seconds) for seconds in zip(*turns, strict=True))
    return {
        "what": what,
        "mb_per_s": round(megabytes / taken, 1),
        "limit_mb_per_s": round(megabytes / least, 1),
        "ratio": round(taken / least, 2),
    }


def _core_seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _in_a_thread(work: Callable[[], Any]) -> Callable[[], None]:
    """Readers keep files open in their thread; in a new one they find none open."""

    def run() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return run


# ---- reading --------------------------------------------------------------------------------------------------------


def reading(what: str, folder: Path, table: ChipTable, *, scenes: int) -> dict[str, Any]:
    """Read chips in the order of a run from files blocked like a provider's. Both open every file once in a turn, and
    find none of its blocks in GDAL's cache."""
    folder.mkdir()
    grid, first = table.grid, ChipIndex(int(table.row[0]), int(table.col[0]))
    corner = grid.chip_window(first)
    like = table.every_scene[int(table.scenes[0, 0])]
    found = [
        _enlarged(like, folder / str(n), corner, clouds=n < scenes - 1, side=READ_SIDE * grid.chip_px)
        for n in range(scenes)
    ]
    windows = [
        grid.chip_window(ChipIndex(first.row + row, first.col + col)) for row, col in np.ndindex(READ_SIDE, READ_SIDE)
    ]
    reads = [_read_of(asset, window, corner) for window in windows for scene in found for asset in _files(scene)]

    def limit() -> None:
        with ExitStack() as stack:
            files = {href: stack.enter_context(rasterio.open(href)) for href in {href for href, _ in reads}}
            for href, window in reads:
                files[href].read(1, window=window)

    def work() -> None:
        for window in windows:
            read_chip(window, found, ChipRules())

    megabytes = sum(window.width * window.height * 2 for _, window in reads) / 1e6
    return against(what, megabytes, _in_a_thread(limit), _in_a_thread(work))


def _files(scene: Scene) -> list[Asset]:
    assert scene.scl is not None
    return [*(scene.assets[band] for band in BANDS), scene.scl]


def _read_of(asset: Asset, window: PixelWindow, corner: PixelWindow) -> tuple[str, Window]:
    factor = round(asset.gsd_m / 2.5)
    row, col = (window.row - corner.row) // factor, (window.col - corner.col) // factor
    return asset.href, Window(col, row, window.width // factor, window.height // factor)


def _enlarged(scene: Scene, folder: Path, corner: PixelWindow, side: int, *, clouds: bool) -> Scene:
    """A scene whose files are its own, mirrored until they are `side` 10 m pixels large, in blocks of 1024 pixels as
    Earth Search has them; perhaps with clouds over a sixth of the ground."""
    folder.mkdir()
    left, _, _, top = corner.bounds_m(scene.epsg)

    def enlarged(name: str, asset: Asset) -> Asset:
        gsd, path = round(asset.gsd_m), folder / f"{name}.tif"
        size = side * 10 // gsd
        with rasterio.open(asset.href) as file:
            own = file.read(1)
        pixels = np.pad(own, [(0, max(size - n, 0)) for n in own.shape], mode="symmetric")[:size, :size]
        if name == "SCL":
            cloudy = (np.indices((size, size)) % 150 < 60).all(axis=0) & clouds
            pixels = np.where(cloudy, CLOUD, VEGETATION).astype(np.uint8)
        with rasterio.open(
            path, "w", driver="GTiff", dtype=pixels.dtype, count=1, height=size, width=size, crs=f"EPSG:{scene.epsg}",
            transform=rasterio.Affine(gsd, 0, left, 0, -gsd, top), tiled=True, blockxsize=1024, blockysize=1024,
            compress="deflate", predictor=2, nodata=0,
        ) as file:  # fmt: skip
            file.write(np.maximum(pixels, 1), 1)
        return replace(asset, href=str(path))

    assets = {band: enlarged(band, scene.assets[band]) for band in BANDS}
    return replace(scene, assets=assets, scl=enlarged("SCL", scene.scl or scene.assets["B05"]))


# ---- staging --------------------------------------------------------------------------------------------------------


def staged(folder: Path, chips: Sequence[StagedChip]) -> list[dict[str, Any]]:
    """Write chips as objects of a local store, and read them back."""
    store, alone = Storage(str(folder / "store")), folder / "alone"
    alone.mkdir(parents=True)
    arrays = [(chip.dn, chip.quality, chip.source) for chip in chips]
    sizes: dict[int, list[int]] = {}

    def pack() -> None:
        for n, chip in enumerate(arrays):
            streams = [staging.CODEC.encode(array) for array in chip]
            sizes[n] = [len(stream) for stream in streams]
            with open(alone / "partial", "wb") as file:
                file.writelines(streams)
            os.replace(alone / "partial", alone / f"{n}")

    def unpack() -> None:
        for n in range(len(arrays)):
            with open(alone / f"{n}", "rb") as file:
                for size in sizes[n]:
                    staging.CODEC.decode(file.read(size))

    def write() -> None:
        for n, chip in enumerate(chips):
            write_chip(store, f"{n}.chip", chip)

    def read() -> None:
        for n in range(len(chips)):
            staging.read_chip(store, f"{n}.chip")

    megabytes = sum(array.nbytes for chip in arrays for array in chip) / 1e6
    return [against("staging", megabytes, pack, write), against("reading what is staged", megabytes, unpack, read)]


# ---- assembly -------------------------------------------------------------------------------------------------------


def assembled(folder: Path, grid: Grid, made: Mapping[tuple[int, int], StagedChip]) -> list[dict[str, Any]]:
    """Make a shard of the staged chips that touch it, and write it: as zarr alone does, and as a run does, which reads
    it back and takes its checksum."""
    epsg, shard, store = 32648, ShardIndex(-388, 70), Storage(str(folder / "staging"))
    window = grid.shard_window(shard)
    chips = []
    for index in grid.chips_touching(window):
        name = f"{index.row}_{index.col}.chip"
        write_chip(store, name, made[index.row % MADE_SIDE, index.col % MADE_SIDE])
        chips.append(ChipSource(index, name, (1,)))
    month = date(2020, 2, 1), date(2020, 2, 29)
    cube = folder / "cube.zarr"
    draft = draft_cube(Storage(str(cube)), grid, {epsg: window}, month, [{"id": "one"}], {})
    data = blend_shard(grid, shard, chips, store)

    def alone(shard_data: ShardData) -> None:
        for name in ("reflectance", "quality", "source"):
            array = draft.array(open_store(draft.storage, read_only=False), f"{draft.zones[epsg].path}/{name}")
            array[...] = getattr(shard_data, name)[None]

    def fresh(work: Callable[[], None]) -> Callable[[], None]:
        """Into an empty store: what zarr finds in the place of a shard it reads first."""

        def begin() -> None:
            shutil.rmtree(cube, ignore_errors=True)
            work()

        return begin

    limit = fresh(lambda: alone(data))
    megabytes = (data.reflectance.nbytes + data.quality.nbytes + data.source.nbytes) / 1e6
    return [
        against("assembly", megabytes, limit, fresh(lambda: alone(blend_shard(grid, shard, chips, store)))),
        against(
            "assembly, with reading back and checksum",
            megabytes,
            limit,
            fresh(lambda: draft.write_shard(epsg, shard, blend_shard(grid, shard, chips, store)) and None),
        ),
        overview(draft, epsg, shard, data),
    ]


def overview(draft: CubeDraft, epsg: int, shard: ShardIndex, data: ShardData) -> dict[str, Any]:
    """Make a shard of an overview of the one below it, and write it: as zarr alone does, which reads the one and writes
    the other, and as a run does."""
    zone, store = draft.zones[epsg], open_store(draft.storage, read_only=False)
    draft.write_shard(epsg, shard, data)
    below = zone.position(shard, draft.grid)
    made = halve_shards(draft, store, epsg, [below])
    height, width = zone.level_shape(1)

    def arrays(level: int) -> list[zarr.Array]:
        return [draft.array(store, f"{zone.level_path(level)}/{name}") for name in ("reflectance", "quality", "source")]

    def written(half: ShardData) -> None:
        shutil.rmtree(Path(draft.storage.url) / zone.level_path(1), ignore_errors=True)
        for array, values in zip(arrays(1), (half.reflectance, half.quality, half.source), strict=True):
            array[...] = values[None, ..., :height, :width]

    def alone() -> None:
        for array in arrays(0):
            array[...]
        written(made)

    megabytes = (data.reflectance.nbytes + data.quality.nbytes + data.source.nbytes) / 1e6
    return against("overview", megabytes, alone, lambda: written(halve_shards(draft, store, epsg, [below])))


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_measured(Path(sys.argv[1]))))
