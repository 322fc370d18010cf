"""A cube of the usual shards and chunks, 2048 and 256 pixels, whose pixels compress as real ones do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
from pyproj import Transformer
from scipy.ndimage import gaussian_filter

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

#: The usual sizes; without overviews, which nobody asks for here.
GRID = Grid(192, 24, 2048, 256)

PERIOD = dt.date(2024, 6, 1), dt.date(2024, 6, 30)


def windows_around(lon: float, lat: float, zones: tuple[int, ...], shards: int) -> dict[int, PixelWindow]:
    """In each zone a square of shards around a place."""
    found, side = {}, GRID.shard_px
    for zone in zones:
        x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{zone}", always_xy=True).transform(lon, lat)
        row, col = round(-y / 2.5 / side - shards / 2), round(x / 2.5 / side - shards / 2)
        found[zone] = PixelWindow(row * side, col * side, shards * side, shards * side)
    return found


def full_size_cube(storage: Storage, windows: Mapping[int, PixelWindow]) -> int:
    """Publish a month; returns its number of shards."""
    pixels = textured(np.random.default_rng(5))
    draft = draft_cube(storage, GRID, windows, PERIOD, [{"id": "scene"}], {"made": "by a bench"})
    target = open_target(storage, Storage(f"{storage.url}.staging"), draft, "2024-06")
    target.begin()
    writer = target.writer()
    planned = [(epsg, shard) for epsg, window in windows.items() for shard in GRID.shards_touching(window)]
    target.accept([writer.write(epsg, shard, pixels) for epsg, shard in planned])
    target.settle(set(planned), set(planned))
    target.publish(shards_written=len(planned), keep=1)
    return len(planned)


def textured(rng: np.random.Generator) -> ShardData:
    """A shard of smooth ground with some noise, as super-resolved pixels are."""
    side = GRID.shard_px
    coarse = gaussian_filter(rng.standard_normal((side, side), np.float32), 12) * 6_000
    fine = gaussian_filter(rng.standard_normal((side, side), np.float32), 1.2) * 350
    ground = 1_200 + coarse + fine
    spectral = np.stack([ground + 90 * band + rng.normal(0, 12, (side, side)) for band in range(len(BANDS))])
    flat = np.ones((side, side))
    return ShardData(np.clip(spectral, 1, 9_000).astype(np.uint16), flat.astype(np.uint8), flat.astype(np.uint16))
