"""Pictures of a report: before and after, where there is something to see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from difffusr.kernels.bands import BANDS, SCALE
from difffusr.pipeline.geo.grid import ChipIndex, PixelWindow
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.report.facts import SHOWN_BANDS, Crop
from difffusr.pipeline.readers.report.source import Source
from difffusr.pipeline.readers.report.survey import Reader, Spot, Survey
from difffusr.pipeline.scenes.chip import read_chip
from difffusr.pipeline.scenes.item import Scene

#: Side of a picture in 2.5 m pixels, and the step on which it begins: whole 60 m cells.
_CROP_PX, _CELL_PX = 480, 24

#: Pictures of one period, and the least share of clear pixels in one.
CROPS_EACH, _CLEAR = 4, 0.95

#: Where in the order of contrast pictures are looked for: not only where there is most to see.
_RANKS = (0.0, 0.15, 0.4, 0.7)


def crops_of(source: Source, survey: Survey, most: int) -> tuple[tuple[Crop, ...], list[str]]:
    """Pictures of places spread over the order of contrast, and why some show no measurement."""
    chosen: list[Crop] = []
    notes: list[str] = []
    read = source.read
    for rank in _RANKS[:most]:
        start = int(rank * len(survey.places))
        for place in [*survey.places[start:], *survey.places[:start]]:
            window, chip = _around(source, place)
            taken = any(crop.epsg == place.epsg and crop.window.overlaps(window) for crop in chosen)
            if taken or not _is_clear(read(place.epsg, "quality", window)):
                continue
            crop, why = _crop(source, read, place.epsg, window, chip)
            chosen.append(crop)
            notes += why
            break
    return tuple(chosen), notes


def _is_clear(quality: NDArray[np.uint8]) -> bool:
    return bool(np.isin(quality, (Quality.CLEAR, Quality.FILLED)).mean() >= _CLEAR and quality.all())


def _around(source: Source, place: Spot) -> tuple[PixelWindow, ChipIndex | None]:
    """A window of whole 60 m cells around a place, in what one chip alone answers for if the chips are known."""
    row, col = place.window.row + place.window.height // 2, place.window.col + place.window.width // 2
    if source.grid is None:
        side = min(_CROP_PX, place.window.height // _CELL_PX * _CELL_PX)
        return PixelWindow(_whole(row - side // 2), _whole(col - side // 2), side, side), None
    grid = source.grid
    chip = ChipIndex(*(round((middle - grid.chip_side / 2) / grid.chip_step) for middle in (row, col)))
    window, overlap = grid.chip_window(chip), grid.overlap_px * SCALE
    inset = overlap if 2 * overlap < grid.chip_side else 0
    side = min(_CROP_PX, grid.chip_side - 2 * inset)
    first = [
        int(np.clip(_whole(middle - side // 2), start + inset, start + grid.chip_side - inset - side))
        for middle, start in ((row, window.row), (col, window.col))
    ]
    return PixelWindow(first[0], first[1], side, side), chip


def _whole(pixel: int) -> int:
    return round(pixel / _CELL_PX) * _CELL_PX


def _crop(
    source: Source, read: Reader, epsg: int, window: PixelWindow, chip: ChipIndex | None
) -> tuple[Crop, list[str]]:
    scale = read.scale(epsg)
    order = [BANDS.index(band) for band in SHOWN_BANDS]
    after = (read(epsg, "reflectance", window)[order] * scale).astype(np.float32)
    number = int(np.bincount(read(epsg, "source", window).ravel()).argmax())
    scenes = _scenes_of(source, epsg, chip)
    before, notes = None, []
    if scenes:
        try:
            measured = read_chip(window, scenes, allow_cloudy=source.allow_cloudy)
            before = (measured.dn[10] * scale).astype(np.float32)
        except DifffusrError as error:
            notes.append(f"A scene cannot be read, its picture shows the average of the result: {error}")
    size = window.height // SCALE
    averaged = after.reshape(len(order), size, SCALE, size, SCALE).mean(axis=(2, 4))
    to_degrees = Transformer.from_crs(CRS.from_epsg(epsg), "EPSG:4326", always_xy=True)
    left, bottom, right, top = window.bounds_m(epsg)
    lon, lat = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    crop = Crop(epsg, window, lon, lat, number, before is not None, averaged if before is None else before, after)
    return crop, notes


def _scenes_of(source: Source, epsg: int, chip: ChipIndex | None) -> list[Scene]:
    """The scenes that a chip was made of, best first; none where they are not known."""
    if source.plan is None or chip is None:
        return []
    chips = source.plan.chips
    here = np.flatnonzero((chips.epsg == epsg) & (chips.row == chip.row) & (chips.col == chip.col))
    names = chips[int(here[0])].scenes if len(here) else ()
    return [source.scenes[name] for name in names] if all(name in source.scenes for name in names) else []
