"""A plan as a picture: the date that each chip shows, and how clear it is there."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from pipeline.errors import StoreError
from pipeline.grid import GSD_10_M, Grid, origin_m, territory
from pipeline.plan import Chips, Plan, StoredPlan, iterate_zones

Rgb = tuple[int, int, int]

#: Drawn so many times larger and then averaged: every line and letter comes out smooth.
_FINE: Final = 2

_WIDTH, _MARGIN, _SIDE, _HEAD, _FOOT = 1680, 44, 372, 112, 70
_MAP_WIDTH: Final = _WIDTH - 3 * _MARGIN - _SIDE - 20
_MAP_HEIGHTS: Final = (720, 1320)

#: Dates up to twelve: chosen so that any two stay 0.13 apart in OKLab, seen by normal, protan, deutan and tritan eyes.
PALETTE: Final = (
    "#2b40be", "#f4c331", "#61e5be", "#7c4269", "#e78108", "#a4b4ff",
    "#214904", "#bf8f99", "#717fff", "#9e66a9", "#606d08", "#64006f",
)  # fmt: skip

#: More dates than that run along this ramp (viridis), by time.
TIME_RAMP: Final = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")

#: The clear share from 0 to 1.
CLEAR_RAMP: Final = ("#f3e3c3", "#bfdcae", "#5fb6a9", "#2f7fab", "#204a86")

_PAPER: Final[Rgb] = (255, 255, 255)
_INK: Final[Rgb] = (31, 35, 40)
_SOFT_INK: Final[Rgb] = (96, 103, 112)
_SEA: Final[Rgb] = (243, 245, 247)
_BARE: Final[Rgb] = (222, 225, 229)
_OUTLINE: Final[Rgb] = (40, 44, 52)
_STRIPE: Final[Rgb] = (104, 108, 116)

#: Pixels between nodes at which the projection is computed; between them it is as good as straight.
_NODE_PX: Final = 16


def draw_map(plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, path: Path) -> None:
    """Draw a plan as a PNG of 1680 pixels width: chips by the date of their first scene, paler where less clear.

    Longitude and latitude with equal scales in the middle (equirectangular); what crosses 180° is drawn in one piece.
    Time and memory grow with the picture rather than with the chips.

    Args:
        plan: with at least one chip.
        grid: the plan's.
        area: what the run was asked for, EPSG:4326, cut at 180° or not; None draws no outline.
        path: of the PNG, replaced if it exists.

    Raises:
        StoreError: the file cannot be written.
    """
    dates = Dates.of(plan)
    frame = Frame.around(plan.chips, grid, area, _MAP_WIDTH * _FINE, tuple(_FINE * side for side in _MAP_HEIGHTS))
    height = _HEAD + max(frame.height // _FINE, _side_height(plan, dates, frame)) + _FOOT
    sheet = Image.new("RGB", (_WIDTH * _FINE, height * _FINE), _PAPER)
    chip = sample_chips(plan.chips, grid, frame)
    _draw_head(sheet, plan, dates)
    _draw_main(sheet, plan, grid, area, dates, frame, chip)
    _draw_side(sheet, plan, grid, area, dates, frame, chip)
    try:
        sheet.reduce(_FINE).save(path, "PNG", optimize=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from None


# ---------------------------------------------------------------------------------------------------------------------
# Dates and colours
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Dates:
    """The dates that a plan's chips show: those of their first scenes.

    Attributes:
        days: (d,) datetime64[D], ascending.
        of_chip: (n,) int32 positions in `days`.
        chips: (d,) number of chips.
        colours: (d, 3) uint8, one a date.
    """

    days: NDArray[np.datetime64]
    of_chip: NDArray[np.int32]
    chips: NDArray[np.int64]
    colours: NDArray[np.uint8]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> Dates:
        """The dates of a plan, each with its colour."""
        first = np.asarray(plan.chips.scenes[:, 0])
        used = np.zeros(len(plan.chips.scene_ids), bool)
        used[first] = True
        every = scene_days(plan)
        days = np.unique(every[used])
        number = np.searchsorted(days, every).astype(np.int32)
        of_chip = number[first]
        return cls(days, of_chip, np.bincount(of_chip, minlength=len(days)), date_colours(days))

    def __len__(self) -> int:
        return len(self.days)


def scene_days(plan: Plan | StoredPlan) -> NDArray[np.datetime64]:
    """(s,) datetime64[D], UTC: the day of every scene of a plan, in the order of its scenes."""
    if isinstance(plan, StoredPlan):
        return np.array([str(text)[:10] for text in plan.scenes["datetime"]], "datetime64[D]")
    return np.array([scene.datetime.date() for scene in plan.scenes], "datetime64[D]")


def date_colours(days: NDArray[np.datetime64]) -> NDArray[np.uint8]:
    """(d, 3) uint8: the palette's colours for up to twelve dates, a ramp by time for more."""
    if len(days) <= len(PALETTE):
        return np.array([rgb(colour) for colour in PALETTE[: len(days)]], np.uint8).reshape(-1, 3)
    since = (days - days[0]).astype(np.float64)
    return ramp(TIME_RAMP, since / since[-1])


def rgb(colour: str) -> Rgb:
    """A colour written #rrggbb."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ramp(stops: Sequence[str], place: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(…, 3) uint8: colours at places from 0 to 1 along evenly spaced stops."""
    values = np.array([rgb(stop) for stop in stops], np.float64)
    at = np.linspace(0.0, 1.0, len(stops))
    channels = [np.interp(place, at, values[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def strength(clear: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much of a date's colour a chip of some clear share gets, 0.14 … 1; steeper where most chips are."""
    return np.asarray(0.14 + 0.86 * np.clip(clear, 0.0, 1.0) ** 1.5)


def _paled(colours: NDArray[np.uint8], clear: NDArray[np.floating]) -> NDArray[np.uint8]:
    share = strength(clear)[..., None]
    return np.round(colours * share + np.array(_PAPER) * (1 - share)).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Where
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """What the map shows, and how large.

    Attributes:
        lon, lat: the middle in degrees.
        scale: pixels a degree of latitude; times cos(lat) of longitude.
        width, height: in pixels.
    """

    lon: float
    lat: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, chips: Chips, grid: Grid, area: BaseGeometry | None, width: int, heights: Sequence[int]) -> Frame:
        """The frame of some width that holds all chips and the area, its height between two limits, in pixels."""
        places = [zone_edge(chips, part, grid, epsg) for epsg, part in iterate_zones(chips)]
        if area is not None and not area.is_empty:
            places.append(shapely.get_coordinates(shapely.segmentize(area, 1.0)))
        every = np.concatenate(places)
        lon, lat = _middle(every[:, 0]), float(every[:, 1].min() + every[:, 1].max()) / 2
        squeeze = math.cos(math.radians(lat))
        east = np.ptp(unrolled(every[:, 0], lon)) * squeeze * 1.1
        north = np.ptp(every[:, 1]) * 1.1
        height = int(np.clip(width * north / max(east, 1e-6), heights[0], heights[-1]))
        return cls(lon, lat, min(width / max(east, 1e-6), height / max(north, 1e-6)), width, height)

    @property
    def squeeze(self) -> float:
        """Degrees of longitude in a degree of latitude's length, in the middle."""
        return math.cos(math.radians(self.lat))

    def scaled(self, width: int) -> Frame:
        """The same ground at another width."""
        share = width / self.width
        return Frame(self.lon, self.lat, self.scale * share, width, round(self.height * share))

    def pixels(self, lon: NDArray[np.floating], lat: NDArray[np.floating]) -> NDArray[np.float64]:
        """(…, 2) x and y in pixels from the top left corner; longitudes may be given in any turn."""
        return self.flat(unrolled(lon, self.lon), np.asarray(lat))

    def degrees(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.float64], ...]:
        """Longitude and latitude of positions in pixels; the longitude may lie beyond ±180°."""
        lon = self.lon + (np.asarray(x) - self.width / 2) / (self.scale * self.squeeze)
        return lon, self.lat - (np.asarray(y) - self.height / 2) / self.scale

    def rings(self, shape: BaseGeometry) -> Iterator[NDArray[np.float64]]:
        """(k, 2) in pixels: the lines and outlines that a shape in EPSG:4326 is made of, in one turn."""
        parts = [_turned(part, self.lon) for part in shapely.get_parts(shape)]
        whole = shapely.union_all(parts)
        for part in shapely.get_parts(whole):
            lines = [part] if part.geom_type == "LineString" else shapely.get_rings(part)
            for line in lines:
                lon, lat = shapely.get_coordinates(line).T
                yield self.flat(lon, lat)

    def zone_borders(self, zones: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """(k, 2) in pixels: the lines along which two of the zones meet."""
        turned = [_turned(territory(epsg), self.lon) for epsg in zones]
        for one, other in combinations(turned, 2):
            border = shapely.intersection(one, other)
            for line in shapely.get_parts(shapely.line_merge(border)):
                if line.geom_type == "LineString":
                    lon, lat = shapely.get_coordinates(line).T
                    yield self.flat(lon, lat)

    def flat(self, lon: NDArray[np.floating], lat: NDArray[np.floating]) -> NDArray[np.float64]:
        """(…, 2) x and y in pixels; longitudes are taken as they are."""
        x = self.width / 2 + (lon - self.lon) * self.scale * self.squeeze
        return np.stack([x, self.height / 2 - (lat - self.lat) * self.scale], axis=-1)


def unrolled(lon: NDArray[np.floating], middle: float) -> NDArray[np.float64]:
    """Longitudes in the turn that lies around a middle: less than 180° from it."""
    return np.asarray((np.asarray(lon, np.float64) - middle + 180.0) % 360.0 - 180.0 + middle)


def _turned(shape: BaseGeometry, middle: float) -> BaseGeometry:
    west, _, east, _ = shape.bounds
    turn = 360.0 * round((middle - (west + east) / 2) / 360.0)
    return shapely.transform(shape, lambda x, y: (x + turn, y), interleaved=False)


def _middle(lon: NDArray[np.float64]) -> float:
    """The longitude opposite the widest gap."""
    around = np.unique(lon % 360.0)
    gaps = np.diff(around, append=around[0] + 360.0)
    widest = int(np.argmax(gaps))
    middle = around[widest] + gaps[widest] / 2 + 180.0
    return float((middle + 180.0) % 360.0 - 180.0)


def zone_edge(chips: Chips, part: slice, grid: Grid, epsg: int) -> NDArray[np.float64]:
    """(k, 2) longitude and latitude of the corners of the first and last chip of every row of a zone."""
    rows, cols = chips.row[part].astype(np.int64), chips.col[part].astype(np.int64)
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1))
    ends = np.append(starts[1:], len(rows)) - 1
    which = np.unique(np.concatenate([starts, ends]))
    left, bottom, right, top = grid.chip_cores_m(epsg, rows[which], cols[which]).T
    x, y = np.concatenate([left, right, right, left]), np.concatenate([top, top, bottom, bottom])
    return np.stack(_to_geographic(epsg).transform(x, y), axis=-1)


@lru_cache(maxsize=256)
def _to_geographic(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)


# ---------------------------------------------------------------------------------------------------------------------
# Chips to pixels
# ---------------------------------------------------------------------------------------------------------------------


def sample_chips(chips: Chips, grid: Grid, frame: Frame) -> NDArray[np.int32]:
    """(h, w) position in `chips` of the chip whose core lies under each pixel's middle, −1 where none.

    Where two zones overlap, the one whose territory it is answers.
    """
    out = np.full((frame.height, frame.width), -1, np.int32)
    for epsg, part in iterate_zones(chips):
        home = _mask(territory(epsg), frame)
        for window, place in _zone_pixels(chips, part, grid, epsg, frame):
            here = out[window]
            better = (place >= 0) & ((here < 0) | home[window])
            here[better] = place[better]
    return out


def _zone_pixels(
    chips: Chips, part: slice, grid: Grid, epsg: int, frame: Frame
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int32]]]:
    """Strips of the picture that hold a zone's chips, and the chip under each of their pixels."""
    rows, cols = chips.row[part], chips.col[part]
    top, left = int(rows.min()), int(cols.min())
    table = np.full((int(rows.max()) - top + 3, int(cols.max()) - left + 3), -1, np.int32)  # a rim of none
    table[rows - top + 1, cols - left + 1] = np.arange(part.start, part.stop)
    edge = frame.pixels(*zone_edge(chips, part, grid, epsg).T)
    low = np.maximum(np.floor(edge.min(axis=0)).astype(int) - _NODE_PX, 0)
    high = np.minimum(np.ceil(edge.max(axis=0)).astype(int) + _NODE_PX, (frame.width, frame.height))
    if (high <= low).any():
        return
    step, inset = grid.stride_px * GSD_10_M, grid.overlap_px * GSD_10_M / 2
    for y, east, north in _metres(frame, epsg, low, high):
        row = np.floor((origin_m(epsg) - north - inset) / step).astype(np.int32) - top + 1
        col = np.floor((east - inset) / step).astype(np.int32) - left + 1
        np.clip(row, 0, table.shape[0] - 1, out=row)
        np.clip(col, 0, table.shape[1] - 1, out=col)
        yield (slice(y, y + len(row)), slice(int(low[0]), int(high[0]))), table[row, col]


def _metres(
    frame: Frame, epsg: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Strips of a window of the picture: first row, and easting and northing of every pixel's middle."""
    node_x = np.arange(low[0], high[0] + _NODE_PX, _NODE_PX, dtype=np.float64)
    node_y = np.arange(low[1], high[1] + _NODE_PX, _NODE_PX, dtype=np.float64)
    lon, lat = frame.degrees(*np.meshgrid(node_x, node_y))
    to_zone = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
    nodes = to_zone.transform((lon + 180.0) % 360.0 - 180.0, np.clip(lat, -90.0, 90.0))
    x = np.arange(low[0], high[0]) + 0.5
    for number, y in enumerate(range(int(low[1]), int(high[1]), _NODE_PX)):
        down = ((np.arange(min(_NODE_PX, int(high[1]) - y)) + 0.5) / _NODE_PX)[:, None]
        above, below = ([np.interp(x, node_x, axis[number + i]) for axis in nodes] for i in (0, 1))
        east, north = (one + down * (other - one) for one, other in zip(above, below, strict=True))
        yield y, east, north


def _mask(shape: BaseGeometry, frame: Frame) -> NDArray[np.bool_]:
    """(h, w) whether a pixel lies in a shape given in EPSG:4326."""
    picture = Image.new("1", (frame.width, frame.height))
    draw = ImageDraw.Draw(picture)
    whole = shapely.union_all([_turned(part, frame.lon) for part in shapely.get_parts(shape)])
    for part in shapely.get_parts(whole):
        if part.geom_type == "Polygon":
            for number, ring in enumerate(shapely.get_rings(part)):
                lon, lat = shapely.get_coordinates(ring).T
                draw.polygon([tuple(point) for point in frame.flat(lon, lat).tolist()], fill=int(number == 0))
    return np.asarray(picture)


# ---------------------------------------------------------------------------------------------------------------------
# The map
# ---------------------------------------------------------------------------------------------------------------------


def _draw_main(
    sheet: Image.Image,
    plan: Plan | StoredPlan,
    grid: Grid,
    area: BaseGeometry | None,
    dates: Dates,
    frame: Frame,
    chip: NDArray[np.int32],
) -> None:
    colours = _paled(dates.colours[dates.of_chip], plan.chips.clear)
    pixels = _paint(chip, colours, plan.chips.clear, _ground(area, frame))
    _stroke_sides(pixels, chip, dates.of_chip, grid.stride_px * GSD_10_M / 111_320 * frame.scale)
    picture = Image.fromarray(pixels)
    _draw_graticule(picture, frame)
    _draw_zone_borders(picture, plan.chips, grid, frame)
    _draw_outline(picture, area, frame, 1.5)
    _draw_date_labels(picture, dates, chip)
    corner = ((_MARGIN + 20) * _FINE, _HEAD * _FINE)
    sheet.paste(picture, corner)
    _draw_degrees(sheet, frame, corner)
    _draw_scale_bar(sheet, frame, corner)


def _ground(area: BaseGeometry | None, frame: Frame) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: what is seen where no chip is: the area, and all else."""
    ground = np.empty((frame.height, frame.width, 3), np.uint8)
    ground[:] = _SEA
    if area is not None:
        ground[_mask(area, frame)] = _BARE
    return ground


def _paint(
    chip: NDArray[np.int32], colours: NDArray[np.uint8], clear: NDArray[np.float32], ground: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: each chip in its colour, striped where it has no clear pixel, over the ground."""
    out = ground.copy()
    there = chip >= 0
    out[there] = colours[chip[there]]
    y, x = np.ogrid[: chip.shape[0], : chip.shape[1]]
    striped = there & ((x + y) % 12 < 4)
    striped[striped] = clear[chip[striped]] == 0
    out[striped] = _STRIPE
    return out


def _stroke_sides(pixels: NDArray[np.uint8], chip: NDArray[np.int32], date: NDArray[np.int32], size_px: float) -> None:
    """Draw sides between chips, and stronger between dates; the fainter the smaller a chip of `size_px` pixels is."""
    shown = np.where(chip >= 0, date[chip], -1)
    sides = float(np.clip((size_px - 10) / 20, 0, 1)) * 0.55
    borders = float(np.clip((size_px - 2) / 8, 0, 1)) * 0.8
    for value, colour, weight, both in ((chip, _PAPER, sides, False), (shown, _INK, borders, True)):
        if weight > 0:
            edge = np.zeros(chip.shape, bool)
            for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
                differs = (value[one] != value[other]) & (chip[one] >= 0) & (chip[other] >= 0)
                edge[one] |= differs
                if both:
                    edge[other] |= differs
            pixels[edge] = np.round(pixels[edge] * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def _draw_outline(picture: Image.Image, area: BaseGeometry | None, frame: Frame, width: float) -> None:
    if area is None:
        return
    draw = ImageDraw.Draw(picture)
    for ring in frame.rings(area):
        draw.line([tuple(point) for point in ring.tolist()], _OUTLINE, round(width * _FINE), joint="curve")


def _draw_graticule(picture: Image.Image, frame: Frame) -> None:
    overlay = Image.new("L", picture.size)
    draw = ImageDraw.Draw(overlay)
    meridians, parallels = _graticule(frame)
    for x, _ in meridians:
        draw.line([(x, 0), (x, frame.height)], 70, _FINE)
    for y, _ in parallels:
        draw.line([(0, y), (frame.width, y)], 70, _FINE)
    picture.paste(Image.new("RGB", picture.size, (90, 98, 110)), mask=overlay)


def _draw_degrees(sheet: Image.Image, frame: Frame, corner: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((corner[0], corner[1], corner[0] + frame.width, corner[1] + frame.height), outline=(150, 155, 163))
    meridians, parallels = _graticule(frame)
    for x, label in meridians:
        draw.text((corner[0] + x, corner[1] + frame.height + 14), label, _SOFT_INK, _font(13), "mt")
    for y, label in parallels:
        letters = Image.new("L", (160, 40))
        ImageDraw.Draw(letters).text((80, 20), label, 255, _font(13), "mm")
        letters = letters.rotate(90, expand=True)
        place = (corner[0] - 14 - 28, round(corner[1] + y - 80))
        sheet.paste(Image.new("RGB", letters.size, _SOFT_INK), place, letters)


def _graticule(frame: Frame) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Positions in pixels and labels of meridians and of parallels."""
    (west, east), (north, south) = frame.degrees(np.array([0, frame.width]), np.array([0, frame.height]))
    step_lon, step_lat = _round_step((east - west) / 5), _round_step((north - south) / 5)
    lons = np.arange(math.ceil(west / step_lon), math.floor(east / step_lon) + 1) * step_lon
    lats = np.arange(math.ceil(south / step_lat), math.floor(north / step_lat) + 1) * step_lat
    lats = lats[np.abs(lats) <= 90]
    x, y = (lons - west) / (east - west) * frame.width, (north - lats) / (north - south) * frame.height
    # Labels near a corner would run into the other side's.
    meridians = [(px, _degrees(lon, "EW", step_lon)) for px, lon in zip(x.tolist(), lons.tolist(), strict=True)]
    parallels = [(px, _degrees(lat, "NS", step_lat)) for px, lat in zip(y.tolist(), lats.tolist(), strict=True)]
    return (
        [line for line in meridians if 30 * _FINE < line[0] < frame.width - 30 * _FINE],
        [line for line in parallels if 30 * _FINE < line[0] < frame.height - 30 * _FINE],
    )


def _round_step(step: float) -> float:
    """The round number of degrees nearest to a step."""
    if step > 7:
        return min((10.0, 15.0, 20.0, 30.0, 45.0), key=lambda whole: abs(whole - step))
    magnitude = 10.0 ** math.floor(math.log10(step))
    return min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * magnitude / step))) * magnitude


def _degrees(value: float, sides: str, step: float) -> str:
    """47.5° N and the like; longitudes back in ±180°."""
    value = (value + 180.0) % 360.0 - 180.0 if sides == "EW" else value
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{abs(value):.{digits}f}°"
    if float(text[:-1]) in ((0.0, 180.0) if sides == "EW" else (0.0,)):
        return text
    return f"{text} {sides[0] if value > 0 else sides[1]}"


def _draw_zone_borders(picture: Image.Image, chips: Chips, grid: Grid, frame: Frame) -> None:
    """A dashed line between neighbouring zones, with their names on either side of it."""
    zones = [epsg for epsg, _ in iterate_zones(chips)]
    draw = ImageDraw.Draw(picture)
    for line in frame.zone_borders(zones):
        _dash(draw, line)
    if len(zones) > 1:
        _draw_zone_names(draw, chips, grid, frame)


def _draw_zone_names(draw: ImageDraw.ImageDraw, chips: Chips, grid: Grid, frame: Frame) -> None:
    """At the upper edge in the north and at the lower in the south, over the middle of the zone's chips."""
    free = {True: 0.0, False: 0.0}
    for epsg, part in sorted(iterate_zones(chips), key=lambda zone: _turned(territory(zone[0]), frame.lon).bounds):
        x = frame.pixels(*zone_edge(chips, part, grid, epsg).T)[:, 0]
        middle, half = float(x.min() + x.max()) / 2, draw.textlength(zone_name(epsg), _font(13)) / 2 + 5 * _FINE
        north = epsg < 32700
        if middle - half >= free[north]:
            _halo(
                draw, (middle, 12 * _FINE if north else frame.height - 26 * _FINE), zone_name(epsg), 13, "mt", _SOFT_INK
            )
            free[north] = middle + half


def zone_name(epsg: int) -> str:
    """UTM 32N and the like."""
    return f"UTM {epsg % 100}{'N' if epsg < 32700 else 'S'}"


def _dash(draw: ImageDraw.ImageDraw, line: NDArray[np.float64]) -> None:
    on, period = 9 * _FINE, 15 * _FINE
    for start, stop in pairwise(line):
        length = float(np.hypot(*(stop - start)))
        for begin in np.arange(0.0, length, period):
            ends = np.clip(np.array([begin, begin + on]) / max(length, 1e-9), 0, 1)[:, None]
            points = start + ends * (stop - start)
            draw.line([tuple(point) for point in points.tolist()], _INK, round(1.5 * _FINE))


def _draw_date_labels(picture: Image.Image, dates: Dates, chip: NDArray[np.int32]) -> None:
    """Write each date where it has the most room, if it has any: one need not tell colours apart."""
    draw = ImageDraw.Draw(picture)
    cell = 4 * _FINE
    coarse = chip[cell // 2 :: cell, cell // 2 :: cell]
    shown = np.where(coarse >= 0, dates.of_chip[coarse], -1)
    most = np.argsort(-dates.chips, kind="stable")[:24]
    for number in most.tolist():
        label = _day(dates.days[number], year=False)
        need = draw.textlength(label, _font(14)) / 2 / cell + 1
        place = _roomiest(shown == number, need)
        if place is not None:
            row, col = place
            _halo(draw, ((col + 0.5) * cell, (row + 0.5) * cell), label, 14, "mm", _INK)


def _roomiest(mask: NDArray[np.bool_], need: float) -> tuple[float, float] | None:
    """Row and column deepest inside a mask; None where no square of twice `need` fits."""
    left = np.pad(mask, 1)
    for eroded in range(1, max(mask.shape)):
        middle = left[1:-1] & left[:-2] & left[2:]
        smaller = np.zeros_like(left)
        smaller[1:-1, 1:-1] = middle[:, 1:-1] & middle[:, :-2] & middle[:, 2:]
        if not smaller.any():
            rows, cols = np.nonzero(left)
            middle_one = len(rows) // 2
            return (float(rows[middle_one] - 1), float(cols[middle_one] - 1)) if eroded >= need else None
        left = smaller
    return None


def _draw_scale_bar(sheet: Image.Image, frame: Frame, corner: tuple[int, int]) -> None:
    """A bar of a round length below the map, true in its middle."""
    a_km = frame.scale / 111.32
    length = 10.0 ** math.floor(math.log10(frame.width / 5 / a_km))
    length *= max(factor for factor in (1, 2, 5) if factor * length * a_km <= frame.width / 5)
    draw = ImageDraw.Draw(sheet)
    quarter, y, tall = length * a_km / 4, corner[1] + frame.height + 44 * _FINE, 4 * _FINE
    for number, colour in enumerate((_INK, _PAPER, _INK, _PAPER)):
        left = corner[0] + number * quarter
        draw.rectangle((left, y, left + quarter, y + tall), colour, _INK)
    label = f"{length:g} km" if length >= 1 else f"{1000 * length:g} m"
    draw.text((corner[0] + 4 * quarter + 10 * _FINE, y + tall / 2), label, _SOFT_INK, _font(13), "lm")


# ---------------------------------------------------------------------------------------------------------------------
# Title and legend
# ---------------------------------------------------------------------------------------------------------------------

#: Pixels a line of the legend takes, and the most dates that it lists.
_LINE, _LISTED = 27, 12


def _draw_head(sheet: Image.Image, plan: Plan | StoredPlan, dates: Dates) -> None:
    draw = ImageDraw.Draw(sheet)
    x = (_MARGIN + 20) * _FINE
    draw.text((x, 50 * _FINE), title_of(plan), _INK, _font(30), "ls", stroke_width=1, stroke_fill=_INK)
    draw.text((x, 82 * _FINE), " · ".join(facts_of(plan, dates)), _SOFT_INK, _font(16), "ls")


def title_of(plan: Plan | StoredPlan) -> str:
    """The run's name and its period."""
    config = plan.manifest["config"]
    return f"{config['name']} · {config['period']['start']} to {config['period']['end']}"


def facts_of(plan: Plan | StoredPlan, dates: Dates) -> list[str]:
    """What a plan comes to, in a few words each."""
    zones = [epsg for epsg, _ in iterate_zones(plan.chips)]
    names = ", ".join(zone_name(epsg) for epsg in zones[:4]) + (f" and {len(zones) - 4} more" if len(zones) > 4 else "")
    facts = [
        _count(len(plan.chips), "chip"),
        _count(len(plan.shards), "shard"),
        _count(len(plan.chips.scene_ids), "scene"),
        _count(len(dates), "date"),
        names,
    ]
    return [*facts, f"{_percent(float(plan.chips.clear.mean(dtype=np.float64)))} clear"]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _side_height(plan: Plan | StoredPlan, dates: Dates, frame: Frame) -> int:
    """Pixels that the legend needs."""
    listed = min(len(dates), _LISTED) + (3 if len(dates) > len(PALETTE) else 0)
    return 40 + _LINE * (listed + 6) + 150 + round(_SIDE * frame.height / frame.width)


def _draw_side(
    sheet: Image.Image,
    plan: Plan | StoredPlan,
    grid: Grid,
    area: BaseGeometry | None,
    dates: Dates,
    frame: Frame,
    chip: NDArray[np.int32],
) -> None:
    x, y = _WIDTH - _MARGIN - _SIDE, _HEAD
    y = _heading(sheet, x, y, "Date of a chip's first scene")
    y = _draw_dates(sheet, x, y, dates)
    y = _draw_signs(sheet, x, y + 10, plan, area, frame, chip)
    y = _heading(sheet, x, y + 26, "Clear share")
    _draw_clear(sheet, x, y, plan, grid, area, frame)


def _heading(sheet: Image.Image, x: int, y: int, text: str) -> int:
    draw = ImageDraw.Draw(sheet)
    draw.text((x * _FINE, y * _FINE), text, _INK, _font(17), "lt", stroke_width=1, stroke_fill=_INK)
    return y + 32


def _draw_dates(sheet: Image.Image, x: int, y: int, dates: Dates) -> int:
    """The dates with their colours and counts, those with the most chips if there are too many; returns where it ends.

    The chip count's share of all is the length of the bar below.
    """
    draw = ImageDraw.Draw(sheet)
    if len(dates) > len(PALETTE):
        y = _draw_time_ramp(sheet, x, y, dates)
    listed = np.sort(np.argsort(-dates.chips, kind="stable")[:_LISTED])
    for number in listed.tolist():
        share = dates.chips[number] / dates.chips.sum()
        _swatch(draw, x, y, tuple(dates.colours[number].tolist()))
        _write(draw, x + 32, y, _day(dates.days[number]))
        _write(draw, x + _SIDE - 66, y, f"{dates.chips[number]:,}", "rt")
        _write(draw, x + _SIDE, y, _percent(share), "rt", _SOFT_INK)
        bar = np.array([x + 32, y + 19, x + 32 + max(share * (_SIDE - 32), 0.5), y + 20.5]) * _FINE
        draw.rectangle(tuple(bar.tolist()), tuple(dates.colours[number].tolist()))
        y += _LINE
    if len(dates) > _LISTED:
        rest = np.delete(dates.chips, listed)
        _write(draw, x + 32, y, f"{_count(len(rest), 'further date')}", fill=_SOFT_INK)
        _write(draw, x + _SIDE - 66, y, f"{rest.sum():,}", "rt", _SOFT_INK)
        _write(draw, x + _SIDE, y, _percent(rest.sum() / dates.chips.sum()), "rt", _SOFT_INK)
        y += _LINE
    return y


def _draw_time_ramp(sheet: Image.Image, x: int, y: int, dates: Dates) -> int:
    """Time from the first date to the last, above it how many chips each date has."""
    draw = ImageDraw.Draw(sheet)
    tall = 30 * _FINE
    strip = np.repeat(ramp(TIME_RAMP, np.linspace(0, 1, _SIDE * _FINE))[None], 10 * _FINE, axis=0)
    sheet.paste(Image.fromarray(strip), (x * _FINE, y * _FINE + tall))
    place = (dates.days - dates.days[0]).astype(np.float64)
    place = x * _FINE + place / place[-1] * (_SIDE - 2) * _FINE
    for at, chips in zip(place.tolist(), dates.chips.tolist(), strict=True):
        top = y * _FINE + tall - chips / dates.chips.max() * (tall - 2)
        draw.rectangle((at, top, at + 2 * _FINE - 1, y * _FINE + tall), _SOFT_INK)
    _write(draw, x, y + 46, _day(dates.days[0]), size=13)
    _write(draw, x + _SIDE, y + 46, _day(dates.days[-1]), "rt", size=13)
    return y + 46 + _LINE


def _draw_signs(
    sheet: Image.Image,
    x: int,
    y: int,
    plan: Plan | StoredPlan,
    area: BaseGeometry | None,
    frame: Frame,
    chip: NDArray[np.int32],
) -> int:
    """What other signs mean, each with its count; only those that occur. Returns where it ends."""
    draw = ImageDraw.Draw(sheet)
    borders, cloudy = plan.manifest.get("borders"), int((plan.chips.clear == 0).sum())
    sheet.paste(Image.fromarray(_fading_swatch()), (x * _FINE, y * _FINE))
    y = _sign(draw, x, y, "paler where less is clear", "")
    if borders is not None:
        draw.line((x * _FINE, (y + 8) * _FINE, (x + 20) * _FINE, (y + 8) * _FINE), _INK, 2 * _FINE)
        y = _sign(draw, x, y, "sides between two dates", f"{borders:,}")
    if cloudy:
        sheet.paste(_striped_swatch(), (x * _FINE, y * _FINE))
        y = _sign(draw, x, y, "chips with no clear pixel", f"{cloudy:,}")
    bare = _share_without_chip(area, frame, chip)
    if bare > 0.001:
        _swatch(draw, x, y, _BARE)
        y = _sign(draw, x, y, "of the area has no chip", _percent(bare))
    if len(np.unique(plan.chips.epsg)) > 1:
        _dash(draw, np.array([[x, y + 8], [x + 24, y + 8]]) * float(_FINE))
        y = _sign(draw, x, y, "border of two zones", "")
    return y


def _sign(draw: ImageDraw.ImageDraw, x: int, y: int, meaning: str, count: str) -> int:
    _write(draw, x + 32, y, meaning)
    _write(draw, x + _SIDE, y, count, "rt")
    return y + _LINE


def _fading_swatch() -> NDArray[np.uint8]:
    clear = np.linspace(0.0, 1.0, 20 * _FINE)
    return np.repeat(_paled(np.full((1, 3), 96, np.uint8), clear)[None], 16 * _FINE, axis=0)


def _striped_swatch() -> Image.Image:
    here = np.zeros((16 * _FINE, 20 * _FINE), np.int32)
    ground = np.zeros((*here.shape, 3), np.uint8)
    return Image.fromarray(_paint(here, np.full((1, 3), 232, np.uint8), np.zeros(1, np.float32), ground))


def _share_without_chip(area: BaseGeometry | None, frame: Frame, chip: NDArray[np.int32]) -> float:
    if area is None:
        return 0.0
    inside = _mask(area, frame)
    return float((inside & (chip < 0)).sum() / max(inside.sum(), 1))


def _draw_clear(
    sheet: Image.Image, x: int, y: int, plan: Plan | StoredPlan, grid: Grid, area: BaseGeometry | None, frame: Frame
) -> None:
    """A small map of the clear share alone, and its ramp."""
    small = frame.scaled(_SIDE * _FINE)
    chip = sample_chips(plan.chips, grid, small)
    colours = ramp(CLEAR_RAMP, np.clip(plan.chips.clear, 0, 1))
    picture = Image.fromarray(_paint(chip, colours, plan.chips.clear, _ground(area, small)))
    _draw_outline(picture, area, small, 1)
    sheet.paste(picture, (x * _FINE, y * _FINE))
    y += picture.height // _FINE + 14
    strip = np.repeat(ramp(CLEAR_RAMP, np.linspace(0, 1, _SIDE * _FINE))[None], 10 * _FINE, axis=0)
    sheet.paste(Image.fromarray(strip), (x * _FINE, y * _FINE))
    draw = ImageDraw.Draw(sheet)
    for share, anchor in ((0.0, "lt"), (0.5, "mt"), (1.0, "rt")):
        _write(draw, x + share * _SIDE, y + 15, f"{share:.0%}".replace("%", " %"), anchor, _SOFT_INK, 13)


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _swatch(draw: ImageDraw.ImageDraw, x: int, y: int, colour: tuple[int, ...]) -> None:
    draw.rounded_rectangle((x * _FINE, y * _FINE, (x + 20) * _FINE, (y + 16) * _FINE), 3 * _FINE, colour)


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, anchor: str = "lt", fill: Rgb = _INK, size: int = 15
) -> None:
    draw.text((x * _FINE, (y + 2) * _FINE), text, fill, _font(size), anchor)


def _halo(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str, colour: Rgb
) -> None:
    draw.text(place, text, colour, _font(size), anchor, stroke_width=3 * _FINE, stroke_fill=_PAPER)


def _day(day: np.datetime64, year: bool = True) -> str:
    date: dt.date = day.astype(dt.date)
    return f"{date.day} {date:%b}" + (f" {date.year}" if year else "")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _FINE)
