"""Cubes small enough for a test, whose pixels all say which state they are of."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.halving import write_overview
from difffusr.pipeline.assemble.overviews import plan_overviews
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow, ShardIndex
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.publish.target import Target
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(24, 6, 64, 32)
EPSG = 32648
GROUP = f"{EPSG}/0"
SHARDS = [ShardIndex(-2, 5), ShardIndex(-2, 6), ShardIndex(-1, 5), ShardIndex(-1, 6)]
WINDOW = PixelWindow(-128, 320, 128, 128)


def month(number: int) -> tuple[dt.date, dt.date]:
    """A period."""
    first = dt.date(2023, number, 1)
    return first, (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)


def label(number: int) -> str:
    """What a run calls it."""
    return f"2023-{number:02d}"


def drafted(storage: Storage, number: int, *, revise: int | None = None, zones: Sequence[int] = (EPSG,)) -> CubeDraft:
    """The cube with a month, or with that month revised."""
    extents = {zone: WINDOW for zone in zones}
    revised = None if revise is None else dict.fromkeys(zones, revise)
    scenes = [{"id": f"scene of {label(number)}"}]
    return draft_cube(storage, GRID, extents, month(number), scenes, {"made": "by a test"}, revise=revised)


def pixels(value: int) -> ShardData:
    """A shard that holds one number everywhere."""
    side = GRID.shard_px
    flat = np.full((side, side), value)
    spectral = np.full((len(BANDS), side, side), value, np.uint16)
    return ShardData(spectral, flat.astype(np.uint8), flat.astype(np.uint16))


def write(target: Target, value: int, shards: Sequence[ShardIndex] = SHARDS, zones: Sequence[int] = (EPSG,)) -> None:
    """Write shards as a run does."""
    target.begin()
    writer = target.writer()
    target.accept([writer.write(zone, shard, pixels(value)) for zone in zones for shard in shards])


def published(
    storage: Storage,
    staging: Storage,
    number: int,
    value: int,
    *,
    revise: int | None = None,
    keep: int = 1,
    **more: Any,
) -> Publication:
    """A month of the cube, written and published: new, or revised."""
    zones = more.get("zones", (EPSG,))
    shards = more.get("shards", SHARDS)
    target = open_target(storage, staging, drafted(storage, number, revise=revise, zones=zones), label(number))
    write(target, value, shards, zones)
    planned = {(zone, shard) for zone in zones for shard in SHARDS}
    finish(target, staging, planned, {(zone, shard) for zone in zones for shard in shards})
    return target.publish(shards_written=len(shards) * len(zones), keep=keep)


def finish(
    target: Target, staging: Storage, planned: Set[tuple[int, ShardIndex]], rewritten: Set[tuple[int, ShardIndex]]
) -> None:
    """Bring over what stays, and make all overviews anew, here and now."""
    overviews = plan_overviews(target.draft, target, staging, dict.fromkeys(planned, "as by this test"))
    target.settle(planned | overviews.made_of.keys(), rewritten | overviews.made_of.keys())
    for (zone, at), children in overviews.made_of.items():
        target.accept([write_overview(target.writer(), zone, at, children)])


def seen(cube: xr.Dataset) -> dict[str, set[int]]:
    """By month, the numbers that a reader finds in all variables; the quality, of eight bits, too."""
    cube = cube.compute()
    return {
        str(month.values)[:7]: set(
            np.unique(
                np.concatenate([np.asarray(cube[name].sel(time=month)).ravel() for name in ("reflectance", "source")])
            ).tolist()
        )
        | set(np.unique(np.asarray(cube["quality"].sel(time=month))).tolist())
        for month in cube.time
    }


@contextmanager
def readers(open_cube: Callable[[], xr.Dataset]) -> Iterator[list[dict[str, set[int]]]]:
    """Somebody opens the cube again and again and reads all of it: what each time was seen, in a list that fills."""
    found: list[dict[str, set[int]]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def loop() -> None:
        while not done.wait(0.02):
            try:
                found.append(seen(open_cube()))
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]


def raw(open_cube: Callable[..., xr.Dataset], *place: Any, **how: Any) -> xr.Dataset:
    """A cube as it is stored: no scaling, no masking."""
    return open_cube(*place, group=GROUP, mask_and_scale=False, chunks=None, **how)
