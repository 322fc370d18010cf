"""A plan as a PNG: each chip's date, and how clear it is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.pictures.chip_map import draw_chip_map
from difffusr.pipeline.plan.pictures.colours import PAPER, Dates
from difffusr.pipeline.plan.pictures.frame import Frame
from difffusr.pipeline.plan.pictures.layout import FINE, FOOT, HEAD, MAP_HEIGHTS, MAP_WIDTH, WIDTH
from difffusr.pipeline.plan.pictures.legend import draw_head, draw_side, side_height
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips
from difffusr.pipeline.plan.tables import Plan, StoredPlan


def draw_map(plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, path: Path) -> None:
    """Draw a plan as a PNG 1680 pixels wide: chips by the date of their first scene, paler where less is clear.

    Equirectangular, with equal scales in the middle; areas across 180° are drawn in one piece. Time and memory depend
    on the picture's size, not on the number of chips.

    Args:
        plan: with at least one chip.
        grid: the plan's.
        area: of the run, EPSG:4326, cut at 180° or not; None draws no outline.
        path: of the PNG, replaced if it exists.

    Raises:
        StoreError: the file cannot be written.
    """
    dates = Dates.of(plan)
    frame = Frame.around(plan.chips, grid, area, MAP_WIDTH * FINE, tuple(FINE * side for side in MAP_HEIGHTS))
    height = HEAD + max(frame.height // FINE, side_height(dates, frame)) + FOOT
    sheet = Image.new("RGB", (WIDTH * FINE, height * FINE), PAPER)
    chip = rasterise_chips(plan.chips, grid, frame)
    draw_head(sheet, plan, dates)
    draw_chip_map(sheet, plan, grid, area, dates, frame, chip)
    draw_side(sheet, plan, grid, area, dates, frame, chip)
    try:
        sheet.reduce(FINE).save(path, "PNG", optimize=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None
