"""The text around the map: title, facts, dates, symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import Grid
from difffusr.pipeline.ground.words import counted, share_words
from difffusr.pipeline.plan.pictures.chip_map import draw_outline, ground_pixels, paint_chips
from difffusr.pipeline.plan.pictures.colours import (
    BARE,
    CLEAR_RAMP,
    INK,
    PALETTE,
    SOFT_INK,
    TIME_RAMP,
    Dates,
    paled,
    ramp,
)
from difffusr.pipeline.plan.pictures.frame import Frame, zone_name
from difffusr.pipeline.plan.pictures.layout import FINE, HEAD, LINE, LISTED, MARGIN, SIDE, WIDTH
from difffusr.pipeline.plan.pictures.primitives import day_words, draw_dashes, draw_swatch, font_of, write_text
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips, rasterise_shape
from difffusr.pipeline.plan.pictures.shifts import BANDS_SHOWN, SHIFT_RAMP, Shifts
from difffusr.pipeline.plan.tables import Plan, StoredPlan, iterate_zones

#: Headings of the map of shifts, and the room that a ramp takes below a small map.
_SHIFT_HEADS: Final = {"shift": "Reflectance added by balance", "factor": "Factor applied by balance"}

_RAMP_ROOM: Final = 14 + 34


def draw_head(sheet: Image.Image, plan: Plan | StoredPlan, dates: Dates) -> None:
    """Draw title and facts above the map."""
    draw = ImageDraw.Draw(sheet)
    x = (MARGIN + 20) * FINE
    draw.text((x, 50 * FINE), title_of(plan), INK, font_of(30), "ls", stroke_width=1, stroke_fill=INK)
    draw.text((x, 82 * FINE), " · ".join(facts_of(plan, dates)), SOFT_INK, font_of(16), "ls")


def title_of(plan: Plan | StoredPlan) -> str:
    """The run's name and its period."""
    config = plan.manifest["config"]
    return f"{config['name']} · {config['period']['start']} to {config['period']['end']}"


def facts_of(plan: Plan | StoredPlan, dates: Dates) -> list[str]:
    """A plan's totals, a few words each."""
    zones = [epsg for epsg, _ in iterate_zones(plan.chips)]
    names = ", ".join(zone_name(epsg) for epsg in zones[:4]) + (f" and {len(zones) - 4} more" if len(zones) > 4 else "")
    facts = [
        counted(len(plan.chips), "chip"),
        counted(len(plan.shards), "shard"),
        counted(len(plan.chips.scene_ids), "scene"),
        counted(len(dates), "date"),
        names,
    ]
    return [*facts, f"{share_words(float(plan.chips.clear.mean(dtype=np.float64)))} clear"]


def side_height(dates: Dates, frame: Frame) -> int:
    """Height of the legend in pixels."""
    listed = min(len(dates), LISTED) + (3 if len(dates) > len(PALETTE) else 0)
    return 40 + LINE * (listed + 6) + 150 + round(SIDE * frame.height / frame.width)


def draw_side(
    sheet: Image.Image,
    plan: Plan | StoredPlan,
    grid: Grid,
    area: BaseGeometry | None,
    dates: Dates,
    frame: Frame,
    chip: NDArray[np.int32],
) -> None:
    """Draw the legend beside the map; `chip` as `rasterise_chips` gives it."""
    x, y = WIDTH - MARGIN - SIDE, HEAD
    y = _heading(sheet, x, y, "Date of a chip's first scene")
    y = _draw_dates(sheet, x, y, dates)
    y = _draw_symbols(sheet, x, y + 10, plan, area, frame, chip)
    y = _heading(sheet, x, y + 26, "Clear share")
    small = frame.scaled(SIDE * FINE)
    place = rasterise_chips(plan.chips, grid, small)
    colours = ramp(CLEAR_RAMP, np.clip(plan.chips.clear, 0, 1))
    y = _draw_small(sheet, x, y, (place, colours, plan.chips.clear), area, small)
    y = _draw_ramp(sheet, x, y, CLEAR_RAMP, ("0 %", "50 %", "100 %"))
    shifts = Shifts.of(plan)
    if shifts is not None and y + 26 + 32 + small.height // FINE + _RAMP_ROOM <= sheet.height // FINE - MARGIN // 2:
        y = _heading(sheet, x, y + 26, f"{_SHIFT_HEADS[shifts.kind]} in {BANDS_SHOWN[0]}")
        colours = shifts.colours(0)[plan.chips.scenes[:, 0]]
        y = _draw_small(sheet, x, y, (place, colours, np.ones(len(colours), np.float32)), area, small)
        _draw_ramp(sheet, x, y, SHIFT_RAMP, shifts.ends(0))


def _heading(sheet: Image.Image, x: int, y: int, text: str) -> int:
    draw = ImageDraw.Draw(sheet)
    draw.text((x * FINE, y * FINE), text, INK, font_of(17), "lt", stroke_width=1, stroke_fill=INK)
    return y + 32


def _draw_dates(sheet: Image.Image, x: int, y: int, dates: Dates) -> int:
    """The dates (if too many, those with the most chips) with colour, count and a bar as long as their share of chips.

    Returns y below the list.
    """
    draw = ImageDraw.Draw(sheet)
    if len(dates) > len(PALETTE):
        y = _draw_time_ramp(sheet, x, y, dates)
    listed = np.sort(np.argsort(-dates.chips, kind="stable")[:LISTED])
    for number in listed.tolist():
        share = dates.chips[number] / dates.chips.sum()
        draw_swatch(draw, x, y, tuple(dates.colours[number].tolist()))
        write_text(draw, x + 32, y, day_words(dates.days[number]))
        write_text(draw, x + SIDE - 66, y, f"{dates.chips[number]:,}", "rt")
        write_text(draw, x + SIDE, y, share_words(share), "rt", SOFT_INK)
        bar = np.array([x + 32, y + 19, x + 32 + max(share * (SIDE - 32), 0.5), y + 20.5]) * FINE
        draw.rectangle(tuple(bar.tolist()), tuple(dates.colours[number].tolist()))
        y += LINE
    if len(dates) > LISTED:
        rest = np.delete(dates.chips, listed)
        write_text(draw, x + 32, y, f"{counted(len(rest), 'further date')}", fill=SOFT_INK)
        write_text(draw, x + SIDE - 66, y, f"{rest.sum():,}", "rt", SOFT_INK)
        write_text(draw, x + SIDE, y, share_words(rest.sum() / dates.chips.sum()), "rt", SOFT_INK)
        y += LINE
    return y


def _draw_time_ramp(sheet: Image.Image, x: int, y: int, dates: Dates) -> int:
    """A time axis from the first date to the last, with each date's number of chips above it."""
    draw = ImageDraw.Draw(sheet)
    tall = 30 * FINE
    strip = np.repeat(ramp(TIME_RAMP, np.linspace(0, 1, SIDE * FINE))[None], 10 * FINE, axis=0)
    sheet.paste(Image.fromarray(strip), (x * FINE, y * FINE + tall))
    place = (dates.days - dates.days[0]).astype(np.float64)
    place = x * FINE + place / place[-1] * (SIDE - 2) * FINE
    for at, chips in zip(place.tolist(), dates.chips.tolist(), strict=True):
        top = y * FINE + tall - chips / dates.chips.max() * (tall - 2)
        draw.rectangle((at, top, at + 2 * FINE - 1, y * FINE + tall), SOFT_INK)
    write_text(draw, x, y + 46, day_words(dates.days[0]), size=13)
    write_text(draw, x + SIDE, y + 46, day_words(dates.days[-1]), "rt", size=13)
    return y + 46 + LINE


def _draw_symbols(
    sheet: Image.Image,
    x: int,
    y: int,
    plan: Plan | StoredPlan,
    area: BaseGeometry | None,
    frame: Frame,
    chip: NDArray[np.int32],
) -> int:
    """What other symbols mean, with their counts; only those that occur. Returns y below the list."""
    draw = ImageDraw.Draw(sheet)
    borders, cloudy = plan.manifest.get("borders"), int((plan.chips.clear == 0).sum())
    sheet.paste(Image.fromarray(_fading_swatch()), (x * FINE, y * FINE))
    y = _symbol(draw, x, y, "paler where less is clear", "")
    if borders is not None:
        draw.line((x * FINE, (y + 8) * FINE, (x + 20) * FINE, (y + 8) * FINE), INK, 2 * FINE)
        y = _symbol(draw, x, y, "sides between two dates", f"{borders:,}")
    if cloudy:
        sheet.paste(_striped_swatch(), (x * FINE, y * FINE))
        y = _symbol(draw, x, y, "chips with no clear pixel", f"{cloudy:,}")
    bare = _share_without_chip(area, frame, chip)
    if bare > 0.001:
        draw_swatch(draw, x, y, BARE)
        y = _symbol(draw, x, y, "of the area has no chip", share_words(bare))
    if len(np.unique(plan.chips.epsg)) > 1:
        draw_dashes(draw, np.array([[x, y + 8], [x + 24, y + 8]]) * float(FINE))
        y = _symbol(draw, x, y, "border of two zones", "")
    return y


def _symbol(draw: ImageDraw.ImageDraw, x: int, y: int, meaning: str, count: str) -> int:
    write_text(draw, x + 32, y, meaning)
    write_text(draw, x + SIDE, y, count, "rt")
    return y + LINE


def _fading_swatch() -> NDArray[np.uint8]:
    clear = np.linspace(0.0, 1.0, 20 * FINE)
    return np.repeat(paled(np.full((1, 3), 96, np.uint8), clear)[None], 16 * FINE, axis=0)


def _striped_swatch() -> Image.Image:
    here = np.zeros((16 * FINE, 20 * FINE), np.int32)
    ground = np.zeros((*here.shape, 3), np.uint8)
    return Image.fromarray(paint_chips(here, np.full((1, 3), 232, np.uint8), np.zeros(1, np.float32), ground))


def _share_without_chip(area: BaseGeometry | None, frame: Frame, chip: NDArray[np.int32]) -> float:
    if area is None:
        return 0.0
    inside = rasterise_shape(area, frame)
    return float((inside & (chip < 0)).sum() / max(inside.sum(), 1))


def _draw_small(
    sheet: Image.Image,
    x: int,
    y: int,
    chips: tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.float32]],
    area: BaseGeometry | None,
    frame: Frame,
) -> int:
    """A small map: the chip at each pixel, the chips' colours and clear shares. Returns y below it."""
    picture = Image.fromarray(paint_chips(*chips, ground_pixels(area, frame)))
    draw_outline(picture, area, frame, 1)
    sheet.paste(picture, (x * FINE, y * FINE))
    return y + picture.height // FINE + 14


def _draw_ramp(sheet: Image.Image, x: int, y: int, stops: Sequence[str], ends: tuple[str, str, str]) -> int:
    """Colours and what their beginning, middle and end mean. Returns y below them."""
    strip = np.repeat(ramp(stops, np.linspace(0, 1, SIDE * FINE))[None], 10 * FINE, axis=0)
    sheet.paste(Image.fromarray(strip), (x * FINE, y * FINE))
    draw = ImageDraw.Draw(sheet)
    for share, anchor, text in zip((0.0, 0.5, 1.0), ("lt", "mt", "rt"), ends, strict=True):
        write_text(draw, x + share * SIDE, y + 15, text, anchor, SOFT_INK, 13)
    return y + _RAMP_ROOM - 14
