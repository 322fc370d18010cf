"""Cubes on both sides of a border between UTM zones, of ground whose every point is known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.halving import write_overview
from difffusr.pipeline.assemble.ledger import Entry, Ledger, Written, enter
from difffusr.pipeline.assemble.overviews import overview_name, plan_overviews
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow, ShardIndex
from difffusr.pipeline.geo.names import PlaceName
from difffusr.pipeline.geo.zones import territory, to_zone
from difffusr.pipeline.publish.door import open_target, revisions_to_come
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(24, 6, 64, 32)

Truth = Callable[[NDArray[np.float64], NDArray[np.float64], int], NDArray[np.float64]]


def waves(lon: float, lat: float, low: float = 400.0, high: float = 2_400.0) -> Truth:
    """DN by place in degrees and band: waves of 40 to 150 m around a point, each band others."""
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84")
    to_plane = Transformer.from_crs("EPSG:4326", plane, always_xy=True)
    last: list[Any] = [None, None, None]  # mostly one band after another is asked for at the same places

    def truth(lons: NDArray[np.float64], lats: NDArray[np.float64], band: int) -> NDArray[np.float64]:
        if last[0] is not lons or last[1] is not lats:
            last[:] = lons, lats, to_plane.transform(lons, lats)
        x, y = last[2]
        turn, middle = 0.3 + band / 5, (low + high) / 2
        one = np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / (40 + 5 * band))
        other = np.sin(2 * np.pi * (y * np.cos(turn) - x * np.sin(turn)) / (150 - 5 * band))
        return np.asarray(middle + (one + other) * (high - low) / 4 * 0.95)

    return truth


def in_degrees(epsg: int, window: PixelWindow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of the pixels of a window of a zone, (h, w) each."""
    left, _, _, top = window.bounds_m(epsg)
    x = left + 2.5 * (np.arange(window.width) + 0.5)
    y = top - 2.5 * (np.arange(window.height) + 0.5)
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))


def windows_at(
    lon: float, lat: float, zones: Sequence[int], shards: tuple[int, int], grid: Grid = GRID
) -> dict[int, PixelWindow]:
    """In each zone so many rows and columns of whole shards around a point."""
    found, side = {}, grid.shard_px
    for epsg in zones:
        x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(lon, lat)
        origin = 10_000_000 if epsg // 100 == 327 else 0
        row, col = round((origin - y) / 2.5 / side - shards[0] / 2), round(x / 2.5 / side - shards[1] / 2)
        found[epsg] = PixelWindow(row * side, col * side, shards[0] * side, shards[1] * side)
    return found


def zone_pixels(epsg: int, window: PixelWindow, truth: Truth, collar_m: float | None, source: int = 1) -> ShardData:
    """What a zone holds of a window: the truth in its territory and the collar around it, else nothing.

    Args:
        collar_m: None for everywhere.
    """
    lons, lats = in_degrees(epsg, window)
    shown = np.ones(lons.shape, bool)
    if collar_m is not None:
        left, _, _, top = window.bounds_m(epsg)
        x = left + 2.5 * (np.arange(window.width) + 0.5)
        y = top - 2.5 * (np.arange(window.height) + 0.5)
        own = shapely.buffer(to_zone(territory(epsg), epsg), collar_m)
        shapely.prepare(own)
        shown = shapely.contains_xy(own, *np.meshgrid(x, y))
    spectral = np.stack([np.rint(truth(lons, lats, band)) for band in range(len(BANDS))])
    return ShardData(
        np.where(shown, spectral, 0).astype(np.uint16), shown.astype(np.uint8), (shown * source).astype(np.uint16)
    )


def publish_zones(
    storage: Storage,
    windows: Mapping[int, PixelWindow],
    truths: Mapping[int, Truth],
    *,
    collar_m: float | None = 240.0,
    month: int = 6,
    grid: Grid = GRID,
    changed: Mapping[int, Sequence[ShardIndex]] | None = None,
    word: str = "as first made",
    said_collar_m: float | None = None,
    **provenance: Any,
) -> None:
    """Publish a month of 2023 with its ledger, as a run does; again with shards of zones that have changed.

    Args:
        windows: of whole shards, by zone.
        truths: the ground, by zone: the same for all, unless a test wants a step.
        changed: shards to write again, by zone; all by default.
        word: what the shards' digests are made of.
        said_collar_m: what the cube says of its collar; nothing in cubes of earlier versions.
    """
    staging = Storage(storage.url.removeprefix("icechunk+").removesuffix(".zarr") + ".staging", storage.options)
    first = dt.date(2023, month, 1)
    last = (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
    label = f"2023-{month:02d}"
    run = staging.child(f"runs/{label}")
    scenes = [{"id": f"scene of {label}", "datetime": f"2023-{month:02d}-03T10:30:00Z"}]
    told = {"made": "by a test", "config": {"grid": {"chip_px": grid.chip_px, "overlap_px": grid.overlap_px}}}

    def drafted(revise: Mapping[int, int] | None = None) -> Any:
        return draft_cube(
            storage, grid, windows, (first, last), scenes, {**told, **provenance}, revise=revise,
            collar_m=said_collar_m,
        )  # fmt: skip

    draft = drafted()
    if changed is not None:
        draft = drafted({epsg: revisions_to_come(storage, staging, draft, epsg)[0] for epsg in changed})
    target = open_target(storage, staging, draft, label)
    target.begin()
    writer, written = target.writer(), []
    planned = [(epsg, shard) for epsg, window in windows.items() for shard in grid.shards_touching(window)]
    number = next(n for n, facts in draft.scenes.items() if facts["id"] == f"scene of {label}")
    for epsg, shard in planned:
        if changed is not None and shard not in changed.get(epsg, ()):
            continue
        data = zone_pixels(epsg, grid.shard_window(shard), truths[epsg], collar_m, number)
        entry = Entry(str(PlaceName(epsg, *shard)), f"{hash(word) & 0xFFFFFFFF:08x}", target.state(epsg))
        written.append(((epsg, shard), Written(entry, writer.write(epsg, shard, data), {})))
    enter(run, target, [one for _, one in written])
    ledger, digests = Ledger.read(run), {}
    for epsg, shard in planned:
        entry = ledger.latest(str(PlaceName(epsg, *shard)), target.lineage(epsg))
        assert entry is not None
        digests[epsg, shard] = entry.digest
    overviews = plan_overviews(draft, target, run, digests)
    target.settle({*planned, *overviews.made_of}, {*(place for place, _ in written), *overviews.todo})
    for epsg, at in sorted(overviews.todo, key=lambda place: place[1].level):
        receipt = write_overview(target.writer(), epsg, at, overviews.made_of[epsg, at])
        entry = Entry(overview_name(epsg, at), overviews.digests[epsg, at], target.state(epsg), "overviews")
        enter(run, target, [Written(entry, receipt, {})])
    target.publish(shards_written=len(written), keep=1)
