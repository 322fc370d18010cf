"""Text, dashes and swatches for the parts of a picture."""

from __future__ import annotations

import datetime as dt
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from difffusr.pipeline.plan.pictures.colours import INK, PAPER, Rgb
from difffusr.pipeline.plan.pictures.layout import FINE


def write_text(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, anchor: str = "lt", fill: Rgb = INK, size: int = 15
) -> None:
    """Text at a place of the layout."""
    draw.text((x * FINE, (y + 2) * FINE), text, fill, font_of(size), anchor)


def write_with_halo(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str, colour: Rgb
) -> None:
    """Text at a pixel of the enlarged picture, readable over any colour."""
    draw.text(place, text, colour, font_of(size), anchor, stroke_width=3 * FINE, stroke_fill=PAPER)


def draw_dashes(draw: ImageDraw.ImageDraw, line: NDArray[np.float64]) -> None:
    """A dashed line through (n, 2) pixels of the enlarged picture."""
    on, period = 9 * FINE, 15 * FINE
    for start, stop in pairwise(line):
        length = float(np.hypot(*(stop - start)))
        for begin in np.arange(0.0, length, period):
            ends = np.clip(np.array([begin, begin + on]) / max(length, 1e-9), 0, 1)[:, None]
            points = start + ends * (stop - start)
            draw.line([tuple(point) for point in points.tolist()], INK, round(1.5 * FINE))


def draw_swatch(draw: ImageDraw.ImageDraw, x: int, y: int, colour: tuple[int, ...]) -> None:
    """A patch of colour at a place of the layout."""
    draw.rounded_rectangle((x * FINE, y * FINE, (x + 20) * FINE, (y + 16) * FINE), 3 * FINE, colour)


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font, `size` pixels high in the finished picture."""
    return ImageFont.load_default(size * FINE)


def day_words(day: np.datetime64, year: bool = True) -> str:
    """`1 Jun 2024`."""
    date: dt.date = day.astype(dt.date)
    return f"{date.day} {date:%b}" + (f" {date.year}" if year else "")
