"""Measures reading: seconds of a look at a scene, and the bytes that it fetches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from rasterio.io import DatasetReader

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.urls import is_remote
from difffusr.pipeline.run.cost.calibration import Reading
from difffusr.pipeline.run.cost.sample import Sample
from difffusr.pipeline.run.cost.stopwatch import Stopwatch
from difffusr.pipeline.scenes import ChipRules, Scene, maker_of, opened, read_chip
from difffusr.pipeline.storage import place_of, staging_of, store_failures

#: Bytes fetched to open a file over a network, as GDAL asks for them.
HEADER_BYTES = 16_384


def measure_reading(config: RunConfig, sample: Sample) -> Reading:
    """Read the sample's chips.

    Raises:
        DifffusrError: a scene cannot be read.
    """
    rules = ChipRules.of(config.canonical()["scenes"], staging_of(config))
    for scene in {scene.id: scene for chip in sample.chips for scene in sample.scenes_of(chip)}.values():
        maker_of(rules).prepare(scene, rules)  # a plan's part, not reading's
    looks, taken, cpu = 0, 0.0, 0.0
    for chip in sample.chips:
        window, scenes = sample.grid.chip_window(chip.index), _Counted(sample.scenes_of(chip))
        with Stopwatch() as reading:
            read_chip(window, scenes, rules)
        looks, taken, cpu = looks + scenes.looks, taken + reading.seconds, cpu + reading.cpu_seconds
    first = [(sample.scenes_of(chip)[0], sample.grid.chip_window(chip.index)) for chip in sample.chips]
    further = sum(len(chip.scenes) - 1 for chip in sample.chips)
    return Reading(
        seconds=taken / looks,
        cpu_seconds=cpu / looks,
        bytes=fmean(_bytes_fetched(scene, window, maker_of(rules).files(scene)) for scene, window in first),
        further_share=(looks - len(sample.chips)) / further if further else 1.0,
    )


class _Counted(list[Scene]):
    """Scenes that count how many of them were read, however often they are gone through."""

    looks = 0

    def __iter__(self) -> Iterator[Scene]:
        for number, scene in enumerate(super().__iter__(), 1):
            self.looks = max(self.looks, number)
            yield scene


def _bytes_fetched(scene: Scene, window: PixelWindow, more: Sequence[str]) -> float:
    """Bytes fetched to read a scene over a window: the tiles that it touches, and each file's header."""
    total = 0.0
    for band in (*BANDS, *(("SCL",) if scene.scl else ()), *more):
        asset = scene.file(band)
        with opened(scene, band, asset) as file:
            left, bottom, right, top = window.bounds_m(scene.epsg)
            col, row = ~file.transform @ (left, top)
            col_stop, row_stop = ~file.transform @ (right, bottom)
            columns = range(max(round(col), 0), min(round(col_stop), file.width))
            rows = range(max(round(row), 0), min(round(row_stop), file.height))
            if rows and columns:
                total += bytes_under(file, rows, columns, asset.href)
        total += HEADER_BYTES * is_remote(asset.href)
    return total


def bytes_under(file: DatasetReader, rows: range, columns: range, href: str) -> float:
    """Compressed bytes of the tiles under a window of a file; where the format has no tiles, its share of the file."""
    height, width = file.block_shapes[0]
    if file.driver == "GTiff":
        tiles = [
            file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)
            for y in range(rows.start // height, (rows.stop - 1) // height + 1)
            for x in range(columns.start // width, (columns.stop - 1) // width + 1)
        ]
        return float(sum(int(tile or 0) for tile in tiles))
    try:
        fs, path = place_of(href)
        size = float(fs.size(path) or 0)
    except store_failures():
        size = file.width * file.height * 2.0  # unknown: as if it were not compressed
    return size * len(rows) * len(columns) / (file.width * file.height)
