"""A cube of known pixels to report on, and the elements of the report's page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from small_cubes import EPSG, finish, label, month

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow, ShardIndex
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

#: Chips of 96 pixels, shards of 192 in four inner chunks: two shards by three, near 16° N 105° E.
GRID = Grid(24, 6, 192, 96)
WINDOW = PixelWindow(-720_000, 199_872, 384, 576)
SHARDS = [ShardIndex(row, col) for row in (-3750, -3749) for col in (1041, 1042, 1043)]
EVIL = "<script>alert('%POLICY%')</script>"
RNG = np.random.default_rng(3)
REFLECTANCE = RNG.gamma(4.0, 400, (len(BANDS), WINDOW.height, WINDOW.width)).astype(np.uint16) + 1
REFLECTANCE[3, :7, :5] = 0  # holds data, says quality: a zero that is one
REFLECTANCE[9, 200:210, 300:310] = 15_000  # brighter than white
QUALITY = np.full((WINDOW.height, WINDOW.width), Quality.CLEAR, np.uint8)
QUALITY[:, 400:] = Quality.CLOUDY
QUALITY[300:, 420:] = Quality.FAILED
QUALITY[:50, 500:] = Quality.NO_DATA
SOURCE = np.where(np.isin(QUALITY, (Quality.NO_DATA, Quality.FAILED)), 0, 1).astype(np.uint16)
SOURCE[:, 80:300] *= 2
HOLDS = SOURCE > 0
SCENES = [
    {"id": "S2A_48QUE_one", "datetime": "2023-01-05T03:41:21+00:00", "tile": "48QUE", "baseline": "05.09"},
    {"id": EVIL, "datetime": "2022-12-30T03:41:21+00:00", "tile": "48QUE", "baseline": "05.09"},
]
PROVENANCE = {
    "software": {"difffusr": "0.1.0"},
    "model": "6e50b793ddc6" + 52 * "0",
    "config": {"area": {"file": EVIL}, "grid": {"chip_px": 24, "overlap_px": 6, "shard_px": 192, "chunk_px": 96}},
}


def publish(folder: Path, reflectance: np.ndarray, months: tuple[int, ...] = (1,), **told: Any) -> Cube:
    """A cube of these pixels in every month."""
    storage, staging = Storage(str(folder / "cube.zarr")), Storage(str(folder / "cube.staging"))
    for number in months:
        draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(number), SCENES, told or PROVENANCE)
        target = open_target(storage, staging, draft, label(number))
        target.begin()
        writer, done = target.writer(), []
        for shard in SHARDS:
            window = GRID.shard_window(shard)
            rows = slice(window.row - WINDOW.row, window.row_stop - WINDOW.row)
            cols = slice(window.col - WINDOW.col, window.col_stop - WINDOW.col)
            data = ShardData(reflectance[:, rows, cols], QUALITY[rows, cols], SOURCE[rows, cols])
            done.append(writer.write(EPSG, shard, data))
        target.accept(done)
        planned = {(EPSG, shard) for shard in SHARDS}
        finish(target, staging, planned, planned)
        target.publish(shards_written=len(SHARDS), keep=1)
    return Cube(storage)


def staging_of(cube: Cube) -> Storage:
    return Storage(cube.storage.url.replace(".zarr", ".staging"))


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]
