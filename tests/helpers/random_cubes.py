"""Small cubes whose pixels are all different, for whoever reads a pixel and must find that one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.halving import write_overview
from difffusr.pipeline.assemble.ledger import Entry, Written, enter
from difffusr.pipeline.assemble.overviews import plan_overviews
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.geo.names import PlaceName
from difffusr.pipeline.ground.pixels import STD_FILL
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(24, 6, 64, 32)

#: One whose cubes of two by two shards have no overviews.
FLAT = Grid(24, 6, 64, 64)


def window_around(
    epsg: int, lon: float, lat: float, shards: tuple[int, int] = (2, 3), side: int = GRID.shard_px
) -> PixelWindow:
    """Whole shards of so many pixels, rows and columns of them, the middle ones of which hold a place."""
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(lon, lat)
    row, col = int(-y / 2.5 // side) - shards[0] // 2, int(x / 2.5 // side) - shards[1] // 2
    return PixelWindow(row * side, col * side, shards[0] * side, shards[1] * side)


def random_cube(
    storage: Storage,
    windows: Mapping[int, PixelWindow],
    months: Sequence[int] = (1, 2),
    grid: Grid = GRID,
    high: int = 6_000,
    scenes: Callable[[int], list[dict[str, Any]]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    ledger: bool = False,
    samples: int = 0,
    ground: NDArray[np.uint16] | None = None,
) -> None:
    """Publish months of 2023: reflectance of noise around a slope, quality and source of stripes; a hole without data
    of 20 × 20 pixels in the upper left corner of every zone.

    Args:
        storage: where to; staging lies beside it.
        windows: of whole shards, by zone.
        months: their numbers.
        high: no DN is above.
        scenes: facts of a month's two.
        provenance: of the cube.
        ledger: whether to keep one, as runs do.
        samples: number of those behind `reflectance_std`; 0 for a cube without it.
        ground: (12, side, side) DN of every shard instead of noise.
    """
    rng = np.random.default_rng(3)
    staging = Storage(storage.url.removeprefix("icechunk+") + ".staging", storage.options)
    for month in months:
        first = dt.date(2023, month, 1)
        last = (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
        made_of = scenes(month) if scenes is not None else [
            {"id": f"scene-{month}-{n}", "datetime": f"2023-{month:02d}-{n:02d}T10:30:00Z"} for n in (1, 2)
        ]  # fmt: skip
        draft = draft_cube(
            storage, grid, windows, (first, last), made_of, dict(provenance or {"made": "by a test"}), samples
        )
        target = open_target(storage, staging, draft, f"2023-{month:02d}")
        target.begin()
        writer = target.writer()
        planned = [(epsg, shard) for epsg, window in windows.items() for shard in grid.shards_touching(window)]
        corners = {next(grid.shards_touching(window)) for window in windows.values()}
        receipts = [
            writer.write(epsg, shard, _pixels(rng, grid.shard_px, shard in corners, month, high, samples > 0, ground))
            for epsg, shard in planned
        ]
        target.accept(receipts)
        if ledger:
            entries = [
                Entry(str(PlaceName(epsg, *shard)), f"{month:08x}", target.state(epsg)) for epsg, shard in planned
            ]
            made = [Written(entry, receipt, {}) for entry, receipt in zip(entries, receipts, strict=True)]
            enter(staging.child(f"runs/2023-{month:02d}"), target, made)
        overviews = plan_overviews(draft, target, staging, dict.fromkeys(planned, f"of month {month}"))
        target.settle({*planned, *overviews.made_of}, {*planned, *overviews.made_of})
        for (epsg, at), children in overviews.made_of.items():
            target.accept([write_overview(target.writer(), epsg, at, children)])
        target.publish(shards_written=len(planned), keep=1)


def _pixels(
    rng: np.random.Generator,
    side: int,
    hole: bool,
    month: int,
    high: int,
    with_std: bool,
    ground: NDArray[np.uint16] | None,
) -> ShardData:
    if ground is None:
        slope = np.linspace(0.3, 0.7, len(BANDS))[:, None, None] * high
        reflectance = (slope + rng.uniform(-0.25, 0.25, (len(BANDS), side, side)) * high).astype(np.uint16)
    else:
        reflectance = ground.copy()
    quality = np.repeat(np.arange(side, dtype=np.uint8)[:, None] // 16 % 3 + 1, side, axis=1)
    # Scenes are numbered as they come: of the second month they are the third and the fourth.
    source = np.repeat(np.arange(side, dtype=np.uint16)[None] // 32 % 2 + 1 + 2 * (month - 1), side, axis=0)
    std = rng.integers(0, 2_000, reflectance.shape).astype(np.uint16) if with_std else None
    if hole:
        for array in (reflectance, quality, source):
            array[..., :20, :20] = 0
        if std is not None:
            std[..., :20, :20] = STD_FILL
    return ShardData(reflectance, quality, source, std)
