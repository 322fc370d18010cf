"""Choose the places of a report's pictures, and read them before and after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, SCALE, TARGET_GSD_M
from difffusr.pipeline.geo import ChipIndex, PixelWindow
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.report.facts import SHOWN_BANDS, Crop
from difffusr.pipeline.readers.report.reference import Reference
from difffusr.pipeline.readers.report.survey import ClearChunk, Survey
from difffusr.pipeline.readers.report.windows import PeriodPixels
from difffusr.pipeline.scenes import Scene, read_chip

#: Side of a picture and step of its position in pixels: whole 60 m cells of 2.5 m pixels.
_CROP_PX, _CELL_PX = 480, 24

#: Most pictures of a period, and the least share of clear pixels in one.
CROPS_EACH, _CLEAR = 4, 0.95

#: Where in the order of contrast pictures are chosen, so that not all show the highest contrast.
_RANKS = (0.0, 0.15, 0.4, 0.7)


def choose_crops(reference: Reference, survey: Survey, most: int) -> tuple[tuple[Crop, ...], list[str]]:
    """Pictures of places spread over the order of contrast, and why some have no measurement before."""
    chosen: list[Crop] = []
    notes: list[str] = []
    read = reference.pixels
    for rank in _RANKS[:most]:
        start = int(rank * len(survey.places))
        for place in [*survey.places[start:], *survey.places[:start]]:
            window, chip = _around(reference, place)
            taken = any(crop.epsg == place.epsg and crop.window.overlaps(window) for crop in chosen)
            if taken or not _is_clear(read(place.epsg, "quality", window)):
                continue
            crop, why = _crop(reference, read, place.epsg, window, chip)
            chosen.append(crop)
            notes += why
            break
    return tuple(chosen), notes


def _is_clear(quality: NDArray[np.uint8]) -> bool:
    return bool(np.isin(quality, (Quality.CLEAR, Quality.FILLED)).mean() >= _CLEAR and quality.all())


def _around(reference: Reference, place: ClearChunk) -> tuple[PixelWindow, ChipIndex | None]:
    """A window of whole 60 m cells around a place, inside the part that a single chip covers if the grid is known."""
    row, col = place.window.row + place.window.height // 2, place.window.col + place.window.width // 2
    if reference.grid is None:
        side = min(_CROP_PX, place.window.height // _CELL_PX * _CELL_PX)
        return PixelWindow(_whole(row - side // 2), _whole(col - side // 2), side, side), None
    grid = reference.grid
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
    reference: Reference, read: PeriodPixels, epsg: int, window: PixelWindow, chip: ChipIndex | None
) -> tuple[Crop, list[str]]:
    scale = read.scale(epsg)
    order = [BANDS.index(band) for band in SHOWN_BANDS]
    after = (read(epsg, "reflectance", window)[order] * scale).astype(np.float32)
    number = int(np.bincount(read(epsg, "source", window).ravel()).argmax())
    scenes = _scenes_of(reference, epsg, chip)
    before, notes = None, []
    if scenes:
        try:
            measured = read_chip(window, scenes, reference.rules)
            before = (measured.dn[10] * scale).astype(np.float32)
        except DifffusrError as error:
            notes.append(f"A scene cannot be read, so its picture shows the averaged result: {error}")
    size = window.height // SCALE
    averaged = after.reshape(len(order), size, SCALE, size, SCALE).mean(axis=(2, 4))
    lattice = reference.cube.lattice(epsg)
    left, bottom, right, top = lattice.bounds(window)
    lon, lat = (float(at) for at in lattice.degrees((left + right) / 2, (bottom + top) / 2))
    gsd = TARGET_GSD_M if reference.cube.of_crs(epsg) is None else lattice.ground_m(window)
    shown = averaged if before is None else before
    return Crop(epsg, window, (lon + 180) % 360 - 180, lat, number, before is not None, shown, after, gsd), notes


def _scenes_of(reference: Reference, epsg: int, chip: ChipIndex | None) -> list[Scene]:
    """The scenes of a chip, best first; empty if not all are known."""
    if reference.plan is None or chip is None:
        return []
    chips = reference.plan.chips
    here = np.flatnonzero((chips.epsg == epsg) & (chips.row == chip.row) & (chips.col == chip.col))
    names = chips[int(here[0])].scenes if len(here) else ()
    return [reference.scenes[name] for name in names] if all(name in reference.scenes for name in names) else []
