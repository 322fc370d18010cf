"""The map of a report: the shards of a period as SVG, coloured by date or by quality."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan.pictures.colours import CLEAR_RAMP, date_colours, ramp
from difffusr.pipeline.plan.pictures.frame import Frame, unrolled, zone_name
from difffusr.pipeline.readers.report.survey import Cell

#: What the map can be coloured by, besides the date, and how: a name, what it says, its ramp from 0 to 1.
COLOURINGS: Final = {
    "clear": ("Clear", "clear, or filled from another date, of what holds data", CLEAR_RAMP),
    "cloudy": ("Cloudy", "cloudy, of what holds data", ("#eceff3", "#e3bd9a", "#c4693a", "#7a2318")),
    "gaps": ("Gaps", "failed or without data", ("#eceff3", "#b9b3d6", "#7d5fb0", "#3d1a6e")),
}

#: Colour classes of a share: none, nine steps, all.
_STEPS: Final = 11

#: Size of the map and greatest side of a cell, in pixels; below is room for the scale.
_WIDTH, _HEIGHT, _CELL, _FOOT = 900, 660, 150, 34

#: Side of a cell in pixels below which what lies between cells would hide them.
_FINE: Final = 12

#: Metres of a degree of latitude.
_DEGREE_M: Final = 111_195.0

#: Dates that the key names one by one; more are a ramp.
_NAMED: Final = 12

_NOT_KNOWN: Final = "date not known"


@dataclass(frozen=True, eq=False)
class PeriodMap:
    """The map of one period.

    Attributes:
        name: distinguishes its style rules from those of other periods.
        cells: what it shows.
        day_of: the date of each scene by its number, ISO 8601.
    """

    name: str
    cells: Sequence[Cell]
    day_of: Mapping[int, str]

    @property
    def days(self) -> list[str]:
        """The dates that cells show, ascending."""
        return sorted({self.day(cell) for cell in self.cells if cell.scene} - {_NOT_KNOWN})

    def day(self, cell: Cell) -> str:
        """The date that most of a cell shows; empty where it shows none."""
        return self.day_of.get(cell.scene, _NOT_KNOWN) if cell.scene else ""

    def colours(self) -> list[str]:
        """Of `days`."""
        return [_hex(colour) for colour in date_colours(np.array(self.days, "datetime64[D]"))] if self.days else []

    def svg(self) -> str:
        """The map; each cell says what it holds."""
        corners, frame = _placed(self.cells)
        days = {day: i for i, day in enumerate(self.days)}
        paths = []
        for cell, xy in zip(self.cells, corners, strict=True):
            shares = " ".join(f"{kind}{_step(share)}" for kind, share in shares_of(cell).items())
            day = days.get(self.day(cell))
            drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy) + "Z"
            title = escape(self.told(cell))
            kinds = f"{'' if day is None else f'd{day} '}{shares}"
            paths.append(f'<path class="{kinds}" d="{drawn}"><title>{title}</title></path>')
        fine = " fine" if np.ptp(corners[0, :, 1]) < _FINE else ""
        kind = "shards" if all(cell.shards == 1 for cell in self.cells) else "squares of shards"
        label = f"Map of {len(self.cells)} {kind}; arrow keys move, and the table below says the same"
        return (
            f'<svg viewBox="0 0 {frame.width} {frame.height + _FOOT}" tabindex="0" role="application" '
            f'aria-label="{label}"><g class="cells{fine}">{"".join(paths)}</g>'
            f"{_zone_names(self.cells, corners)}{_scale_bar(frame)}</svg>"
        )

    def told(self, cell: Cell) -> str:
        """What the map says of a cell."""
        lines = [name_of(cell), self.day(cell) or "no scene"]
        told = [(words(flag), cell.share(flag)) for flag in Quality if cell.flags[flag]]
        return "\n".join([*lines, ", ".join(f"{name} {percent(share)}" for name, share in told)])

    def rules(self) -> str:
        """Its style rules."""
        rules = [f".{self.name} .cells path{{fill:var(--bare)}}"]
        rules += [f".{self.name} .cells .d{i}{{fill:{colour}}}" for i, colour in enumerate(self.colours())]
        rules.append(f".{self.name} .key-date{{display:flex}}")
        for kind, (_, _, stops) in COLOURINGS.items():
            chosen = f".{self.name}:has([value={kind}]:checked)"
            colours = ramp(stops, np.linspace(0, 1, _STEPS))
            rules.append(f"{chosen} .cells path{{fill:var(--bare)}}")
            rules += [f"{chosen} .cells .{kind}{i}{{fill:{_hex(c)}}}" for i, c in enumerate(colours)]
            rules.append(f"{chosen} .key-date{{display:none}}{chosen} .key-{kind}{{display:flex}}")
        return "\n".join(rules)

    def keys(self) -> str:
        """What the colours mean; one of the lists shows at a time."""
        shown = Counter(self.day(cell) for cell in self.cells if cell.scene)
        named = [
            f"<li>{_swatch(colour)}{day} <span class=soft>({shown[day]})</span></li>"
            for day, colour in zip(self.days, self.colours(), strict=True)
        ]
        if len(named) > _NAMED:
            named = [f"<li>{self.days[0]} {_swatch(*self.colours()[:: len(named) // _NAMED])} {self.days[-1]}</li>"]
        if shown[_NOT_KNOWN]:
            named.append(f"<li>{_NOT_KNOWN} <span class=soft>({shown[_NOT_KNOWN]})</span></li>")
        out = [f'<ul class="key key-date"><li class=soft>date of most pixels:</li>{"".join(named)}</ul>']
        for kind, (_, meaning, stops) in COLOURINGS.items():
            colours = [_hex(colour) for colour in ramp(stops, np.linspace(0, 1, _STEPS))]
            scale = f"0 % &nbsp;{_swatch(*colours)}100 %"
            out.append(f'<ul class="key key-{kind}"><li>{scale}</li><li class=soft>{meaning}</li></ul>')
        return "".join(out)


def shares_of(cell: Cell) -> dict[str, float | None]:
    """What each of the colourings shows of a cell; None where it says nothing of it."""
    data = cell.with_data
    of_data = {
        "clear": (cell.flags[Quality.CLEAR] + cell.flags[Quality.FILLED] + cell.flags[Quality.INTERPOLATED]),
        "cloudy": (cell.flags[Quality.CLOUDY] + cell.flags[Quality.INTERPOLATED_CLOUD]),
    }
    shares: dict[str, float | None] = {kind: count / data if data else None for kind, count in of_data.items()}
    return {**shares, "gaps": cell.share(Quality.NO_DATA, Quality.FAILED)}


def name_of(cell: Cell) -> str:
    """A shard's name as the ledger has it, or that of the first of a square."""
    side = math.isqrt(cell.window.height * cell.window.width)
    row, col = cell.window.row // side, cell.window.col // side
    return f"{cell.epsg}/{row}_{col}" if cell.shards == 1 else f"{cell.epsg}, {cell.shards} shards, square {row}_{col}"


def percent(share: float) -> str:
    """A share for people: what is not nothing, or not all, never looks so."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def words(flag: Quality) -> str:
    return flag.name.lower().replace("_", " ")


def _step(share: float | None) -> str:
    """The colour class of a share: only nothing has the first, only all has the last."""
    if share is None:
        return "x"
    return str(0 if share <= 0 else _STEPS - 1 if share >= 1 else 1 + min(int(share * (_STEPS - 2)), _STEPS - 3))


def _placed(cells: Sequence[Cell]) -> tuple[NDArray[np.float64], Frame]:
    """(n, 4, 2) corners of the cells in pixels of a frame around them, and the frame: longitude and latitude with equal
    scales in the middle."""
    corners = np.empty((len(cells), 4, 2))
    zones = np.array([cell.epsg for cell in cells])
    for epsg in np.unique(zones):
        here = zones == epsg
        bounds = [cell.window.bounds_m(cell.epsg) for cell in cells if cell.epsg == epsg]
        left, bottom, right, top = np.array(bounds).T
        to_degrees = Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)
        x, y = np.stack([left, right, right, left], 1), np.stack([top, top, bottom, bottom], 1)
        corners[here] = np.stack(to_degrees.transform(x, y), axis=-1)
    turn = np.exp(1j * np.radians(corners[..., 0])).mean()
    around, lat = unrolled(corners[..., 0], float(np.degrees(np.angle(turn)))), corners[..., 1]
    middle = float(around.min() + around.max()) / 2, float(lat.min() + lat.max()) / 2
    east, north = float(np.ptp(around)) * math.cos(math.radians(middle[1])), float(np.ptp(lat))
    largest = float(np.ptp(lat, axis=1).max())
    scale = min(0.96 * _WIDTH / east, 0.96 * _HEIGHT / north, _CELL / largest)
    frame = Frame(*middle, scale, _WIDTH, round(north * scale / 0.96))
    return frame.pixels(around, lat), frame


def _zone_names(cells: Sequence[Cell], corners: NDArray[np.float64]) -> str:
    """Where there are several zones, each one's name in its middle."""
    zones = np.array([cell.epsg for cell in cells])
    names = np.unique(zones)
    if len(names) < 2:
        return ""
    places = [(zone_name(int(epsg)), *corners[zones == epsg].reshape(-1, 2).mean(axis=0)) for epsg in names]
    return "".join(
        f'<text class="halo" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{name}</text>' for name, x, y in places
    )


def _scale_bar(frame: Frame) -> str:
    """A round number of kilometres, at most a quarter of the map."""
    most = frame.width / 4 / frame.scale * _DEGREE_M / 1000
    power = 10.0 ** math.floor(math.log10(most))
    km = next(step * power for step in (5, 2, 1) if step * power <= most)
    width, y = km * 1000 / _DEGREE_M * frame.scale, frame.height + _FOOT - 10
    return (
        f'<path class="marks" d="M14 {y - 6}V{y}H{14 + width:.1f}V{y - 6}"/>'
        f'<text class="halo" x="{22 + width:.1f}" y="{y}">{km:g} km</text>'
    )


def _swatch(*colours: str) -> str:
    bars = "".join(f'<rect x="{14 * i}" width="14" height="14" fill="{c}"/>' for i, c in enumerate(colours))
    return f'<svg width="{14 * len(colours)}" height="14" aria-hidden="true">{bars}</svg>'


def _hex(colour: NDArray[Any]) -> str:
    return "#" + colour.astype(np.uint8).tobytes().hex()
