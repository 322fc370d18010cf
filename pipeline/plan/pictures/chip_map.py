"""The map of a picture: ground, chips by date, borders, graticule, scale."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import GSD_10_M, Grid, territory
from difffusr.pipeline.plan.pictures.colours import BARE, INK, OUTLINE, PAPER, SEA, SOFT_INK, STRIPE, Dates, paled
from difffusr.pipeline.plan.pictures.frame import Frame, turned, zone_edge, zone_name
from difffusr.pipeline.plan.pictures.layout import FINE, HEAD, MARGIN
from difffusr.pipeline.plan.pictures.primitives import day_words, draw_dashes, font_of, write_with_halo
from difffusr.pipeline.plan.pictures.rasterise import rasterise_shape
from difffusr.pipeline.plan.tables import Chips, Plan, StoredPlan, iterate_zones


def draw_chip_map(
    sheet: Image.Image,
    plan: Plan | StoredPlan,
    grid: Grid,
    area: BaseGeometry | None,
    dates: Dates,
    frame: Frame,
    chip: NDArray[np.int32],
) -> None:
    """Draw the map into the sheet; `chip` as `rasterise_chips` gives it."""
    colours = paled(dates.colours[dates.of_chip], plan.chips.clear)
    pixels = paint_chips(chip, colours, plan.chips.clear, ground_pixels(area, frame))
    _stroke_sides(pixels, chip, dates.of_chip, grid.stride_px * GSD_10_M / 111_320 * frame.scale)
    picture = Image.fromarray(pixels)
    _draw_graticule(picture, frame)
    _draw_zone_borders(picture, plan.chips, grid, frame)
    draw_outline(picture, area, frame, 1.5)
    _draw_date_labels(picture, dates, chip)
    corner = ((MARGIN + 20) * FINE, HEAD * FINE)
    sheet.paste(picture, corner)
    _draw_degrees(sheet, frame, corner)
    _draw_scale_bar(sheet, frame, corner)


def ground_pixels(area: BaseGeometry | None, frame: Frame) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: the background, the area in another colour."""
    ground = np.empty((frame.height, frame.width, 3), np.uint8)
    ground[:] = SEA
    if area is not None:
        ground[rasterise_shape(area, frame)] = BARE
    return ground


def paint_chips(
    chip: NDArray[np.int32], colours: NDArray[np.uint8], clear: NDArray[np.float32], ground: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: each chip in its colour, striped where it has no clear pixel, over the ground."""
    out = ground.copy()
    there = chip >= 0
    out[there] = colours[chip[there]]
    y, x = np.ogrid[: chip.shape[0], : chip.shape[1]]
    striped = there & ((x + y) % 12 < 4)
    striped[striped] = clear[chip[striped]] == 0
    out[striped] = STRIPE
    return out


def _stroke_sides(pixels: NDArray[np.uint8], chip: NDArray[np.int32], date: NDArray[np.int32], size_px: float) -> None:
    """Draw the sides between chips, stronger between dates; fainter where chips (of `size_px` pixels) are small."""
    shown = np.where(chip >= 0, date[chip], -1)
    sides = float(np.clip((size_px - 10) / 20, 0, 1)) * 0.55
    borders = float(np.clip((size_px - 2) / 8, 0, 1)) * 0.8
    for value, colour, weight, both in ((chip, PAPER, sides, False), (shown, INK, borders, True)):
        if weight > 0:
            edge = np.zeros(chip.shape, bool)
            for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
                differs = (value[one] != value[other]) & (chip[one] >= 0) & (chip[other] >= 0)
                edge[one] |= differs
                if both:
                    edge[other] |= differs
            pixels[edge] = np.round(pixels[edge] * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def draw_outline(picture: Image.Image, area: BaseGeometry | None, frame: Frame, width: float) -> None:
    """Draw the outline of the area, `width` pixels wide in the finished picture."""
    if area is None:
        return
    draw = ImageDraw.Draw(picture)
    for ring in frame.rings(area):
        draw.line([tuple(point) for point in ring.tolist()], OUTLINE, round(width * FINE), joint="curve")


def _draw_graticule(picture: Image.Image, frame: Frame) -> None:
    overlay = Image.new("L", picture.size)
    draw = ImageDraw.Draw(overlay)
    meridians, parallels = _graticule(frame)
    for x, _ in meridians:
        draw.line([(x, 0), (x, frame.height)], 70, FINE)
    for y, _ in parallels:
        draw.line([(0, y), (frame.width, y)], 70, FINE)
    picture.paste(Image.new("RGB", picture.size, (90, 98, 110)), mask=overlay)


def _draw_degrees(sheet: Image.Image, frame: Frame, corner: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((corner[0], corner[1], corner[0] + frame.width, corner[1] + frame.height), outline=(150, 155, 163))
    meridians, parallels = _graticule(frame)
    for x, label in meridians:
        draw.text((corner[0] + x, corner[1] + frame.height + 14), label, SOFT_INK, font_of(13), "mt")
    for y, label in parallels:
        letters = Image.new("L", (160, 40))
        ImageDraw.Draw(letters).text((80, 20), label, 255, font_of(13), "mm")
        letters = letters.rotate(90, expand=True)
        place = (corner[0] - 14 - 28, round(corner[1] + y - 80))
        sheet.paste(Image.new("RGB", letters.size, SOFT_INK), place, letters)


def _graticule(frame: Frame) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Positions in pixels and labels of meridians and of parallels."""
    (west, east), (north, south) = frame.degrees(np.array([0, frame.width]), np.array([0, frame.height]))
    step_lon, step_lat = _round_step((east - west) / 5), _round_step((north - south) / 5)
    lons = np.arange(math.ceil(west / step_lon), math.floor(east / step_lon) + 1) * step_lon
    lats = np.arange(math.ceil(south / step_lat), math.floor(north / step_lat) + 1) * step_lat
    lats = lats[np.abs(lats) <= 90]
    x, y = (lons - west) / (east - west) * frame.width, (north - lats) / (north - south) * frame.height
    # Labels near a corner would overlap those of the other side.
    meridians = [(px, _degrees(lon, "EW", step_lon)) for px, lon in zip(x.tolist(), lons.tolist(), strict=True)]
    parallels = [(px, _degrees(lat, "NS", step_lat)) for px, lat in zip(y.tolist(), lats.tolist(), strict=True)]
    return (
        [line for line in meridians if 30 * FINE < line[0] < frame.width - 30 * FINE],
        [line for line in parallels if 30 * FINE < line[0] < frame.height - 30 * FINE],
    )


def _round_step(step: float) -> float:
    """The round number of degrees nearest to a step."""
    if step > 7:
        return min((10.0, 15.0, 20.0, 30.0, 45.0), key=lambda whole: abs(whole - step))
    magnitude = 10.0 ** math.floor(math.log10(step))
    return min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * magnitude / step))) * magnitude


def _degrees(value: float, sides: str, step: float) -> str:
    """Degrees as `47.5° N`; longitudes within ±180°."""
    value = (value + 180.0) % 360.0 - 180.0 if sides == "EW" else value
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{abs(value):.{digits}f}°"
    if float(text[:-1]) in ((0.0, 180.0) if sides == "EW" else (0.0,)):
        return text
    return f"{text} {sides[0] if value > 0 else sides[1]}"


def _draw_zone_borders(picture: Image.Image, chips: Chips, grid: Grid, frame: Frame) -> None:
    """Dashed lines between neighbouring zones, and the zones' names."""
    zones = [epsg for epsg, _ in iterate_zones(chips)]
    draw = ImageDraw.Draw(picture)
    for line in frame.zone_borders(zones):
        draw_dashes(draw, line)
    if len(zones) > 1:
        _draw_zone_names(draw, chips, grid, frame)


def _draw_zone_names(draw: ImageDraw.ImageDraw, chips: Chips, grid: Grid, frame: Frame) -> None:
    """Zone names over the middle of their chips: northern zones at the upper edge, southern ones at the lower."""
    free = {True: 0.0, False: 0.0}
    for epsg, part in sorted(iterate_zones(chips), key=lambda zone: turned(territory(zone[0]), frame.lon).bounds):
        x = frame.pixels(*zone_edge(chips, part, grid, epsg).T)[:, 0]
        middle, half = float(x.min() + x.max()) / 2, draw.textlength(zone_name(epsg), font_of(13)) / 2 + 5 * FINE
        north = epsg < 32700
        if middle - half >= free[north]:
            write_with_halo(
                draw, (middle, 12 * FINE if north else frame.height - 26 * FINE), zone_name(epsg), 13, "mt", SOFT_INK
            )
            free[north] = middle + half


def _draw_date_labels(picture: Image.Image, dates: Dates, chip: NDArray[np.int32]) -> None:
    """Write each date where it has the most room, so that nobody has to tell colours apart."""
    draw = ImageDraw.Draw(picture)
    cell = 4 * FINE
    coarse = chip[cell // 2 :: cell, cell // 2 :: cell]
    shown = np.where(coarse >= 0, dates.of_chip[coarse], -1)
    most = np.argsort(-dates.chips, kind="stable")[:24]
    for number in most.tolist():
        label = day_words(dates.days[number], year=False)
        need = draw.textlength(label, font_of(14)) / 2 / cell + 1
        place = _roomiest(shown == number, need)
        if place is not None:
            row, col = place
            write_with_halo(draw, ((col + 0.5) * cell, (row + 0.5) * cell), label, 14, "mm", INK)


def _roomiest(mask: NDArray[np.bool_], need: float) -> tuple[float, float] | None:
    """Row and column deepest inside a mask; None if no square of twice `need` fits."""
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    deepest = depth.max(initial=0)
    if deepest < max(need, 1):
        return None
    rows, cols = np.nonzero(depth == deepest)
    return float(rows[len(rows) // 2]), float(cols[len(cols) // 2])


def _draw_scale_bar(sheet: Image.Image, frame: Frame, corner: tuple[int, int]) -> None:
    """A bar of a round length below the map; exact in the map's middle."""
    a_km = frame.scale / 111.32
    length = 10.0 ** math.floor(math.log10(frame.width / 5 / a_km))
    length *= max(factor for factor in (1, 2, 5) if factor * length * a_km <= frame.width / 5)
    draw = ImageDraw.Draw(sheet)
    quarter, y, tall = length * a_km / 4, corner[1] + frame.height + 44 * FINE, 4 * FINE
    for number, colour in enumerate((INK, PAPER, INK, PAPER)):
        left = corner[0] + number * quarter
        draw.rectangle((left, y, left + quarter, y + tall), colour, INK)
    label = f"{length:g} km" if length >= 1 else f"{1000 * length:g} m"
    draw.text((corner[0] + 4 * quarter + 10 * FINE, y + tall / 2), label, SOFT_INK, font_of(13), "lm")
