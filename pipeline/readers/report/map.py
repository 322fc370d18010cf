"""The map of a report: a period's shards as SVG, coloured by date or quality."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.geo import Lattice, PlaceName
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.ground.words import careful_share_words
from difffusr.pipeline.plan.pictures import CLEAR_RAMP, Frame, date_colours, ramp, unrolled, zone_name
from difffusr.pipeline.readers.report.survey import Cell

#: What the map can be coloured by besides the date: title, meaning, colours from 0 to 1.
COLOURINGS: Final = {
    "clear": ("Clear", "clear or filled from another date, of pixels with data", CLEAR_RAMP),
    "cloudy": ("Cloudy", "cloudy, of pixels with data", ("#eceff3", "#e3bd9a", "#c4693a", "#7a2318")),
    "gaps": ("Gaps", "failed or without data", ("#eceff3", "#b9b3d6", "#7d5fb0", "#3d1a6e")),
}

#: Colour classes of a share: 0, nine steps, 1.
_STEPS: Final = 11

#: Size of the map, greatest side of a cell, and room for the scale below, in pixels.
_WIDTH, _HEIGHT, _CELL, _FOOT = 900, 660, 150, 34

#: Below this side of a cell in pixels, lines between cells are thin.
_FINE: Final = 12

#: Metres of a degree of latitude.
_DEGREE_M: Final = 111_195.0

#: With more dates than this the key is a ramp.
_NAMED: Final = 12

_NOT_KNOWN: Final = "date not known"


@dataclass(frozen=True, eq=False)
class PeriodMap:
    """The map of one period.

    Attributes:
        name: distinguishes its style rules from those of other periods.
        cells: to draw.
        day_of: date of each scene by number, ISO 8601.
        lattices: pixels of zones that are none of UTM's, by number.
    """

    name: str
    cells: Sequence[Cell]
    day_of: Mapping[int, str]
    lattices: Mapping[int, Lattice] = field(default_factory=dict)

    @property
    def days(self) -> list[str]:
        """Dates of the cells, ascending."""
        return sorted({self.day(cell) for cell in self.cells if cell.scene} - {_NOT_KNOWN})

    def day(self, cell: Cell) -> str:
        """Date of most pixels of a cell; empty for none."""
        return self.day_of.get(cell.scene, _NOT_KNOWN) if cell.scene else ""

    def colours(self) -> list[str]:
        """Colours of `days`."""
        return [_hex(colour) for colour in date_colours(np.array(self.days, "datetime64[D]"))] if self.days else []

    def svg(self) -> str:
        """The map; each cell has a text."""
        corners, frame = _placed(self.cells, self.lattices)
        days = {day: i for i, day in enumerate(self.days)}
        paths = []
        for cell, xy in zip(self.cells, corners, strict=True):
            shares = " ".join(f"{kind}{_step(share)}" for kind, share in shares_of(cell).items())
            day = days.get(self.day(cell))
            drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy) + "Z"
            title = escape(self.text_of(cell))
            kinds = f"{'' if day is None else f'd{day} '}{shares}"
            paths.append(f'<path class="{kinds}" d="{drawn}"><title>{title}</title></path>')
        fine = " fine" if np.ptp(corners[0, :, 1]) < _FINE else ""
        kind = "shards" if all(cell.shards == 1 for cell in self.cells) else "squares of shards"
        label = f"Map of {len(self.cells)} {kind}; arrow keys move; the table below has the same content"
        return (
            f'<svg viewBox="0 0 {frame.width} {frame.height + _FOOT}" tabindex="0" role="application" '
            f'aria-label="{label}"><g class="cells{fine}">{"".join(paths)}</g>'
            f"{_zone_names(self.cells, corners)}{_scale_bar(frame)}</svg>"
        )

    def text_of(self, cell: Cell) -> str:
        """Name, date and quality of a cell."""
        lines = [name_of(cell), self.day(cell) or "no scene"]
        shares = [f"{flag_words(flag)} {careful_share_words(cell.share(flag))}" for flag in Quality if cell.flags[flag]]
        return "\n".join([*lines, ", ".join(shares)])

    def rules(self) -> str:
        """The style rules of this map."""
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
        """The keys of all colourings; one of them is shown at a time."""
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
    """The share that each colouring shows of a cell; None if it has no data."""
    data = cell.with_data
    of_data = {
        "clear": (cell.flags[Quality.CLEAR] + cell.flags[Quality.FILLED] + cell.flags[Quality.INTERPOLATED]),
        "cloudy": (cell.flags[Quality.CLOUDY] + cell.flags[Quality.INTERPOLATED_CLOUD]),
    }
    shares: dict[str, float | None] = {kind: count / data if data else None for kind, count in of_data.items()}
    return {**shares, "gaps": cell.share(Quality.NO_DATA, Quality.FAILED)}


def name_of(cell: Cell) -> str:
    """A shard's name as in the ledger, or a name of a square of shards."""
    side = math.isqrt(cell.window.height * cell.window.width)
    row, col = cell.window.row // side, cell.window.col // side
    return (
        str(PlaceName(cell.epsg, row, col))
        if cell.shards == 1
        else f"{cell.epsg}, {cell.shards} shards, square {row}_{col}"
    )


def flag_words(flag: Quality) -> str:
    """A quality flag in words."""
    return flag.name.lower().replace("_", " ")


def _step(share: float | None) -> str:
    """The colour class of a share: the first only for 0, the last only for 1."""
    if share is None:
        return "x"
    return str(0 if share <= 0 else _STEPS - 1 if share >= 1 else 1 + min(int(share * (_STEPS - 2)), _STEPS - 3))


def _placed(cells: Sequence[Cell], lattices: Mapping[int, Lattice]) -> tuple[NDArray[np.float64], Frame]:
    """(n, 4, 2) corners of the cells in pixels of a frame around them, and the frame (equirectangular, equal scales in
    the middle)."""
    corners = np.empty((len(cells), 4, 2))
    zones = np.array([cell.epsg for cell in cells])
    for epsg in np.unique(zones):
        here = zones == epsg
        lattice = lattices.get(int(epsg)) or Lattice.of_zone(int(epsg))
        left, bottom, right, top = np.array([lattice.bounds(cell.window) for cell in cells if cell.epsg == epsg]).T
        x, y = np.stack([left, right, right, left], 1), np.stack([top, top, bottom, bottom], 1)
        corners[here] = np.stack(lattice.degrees(x, y), axis=-1)
    turn = np.exp(1j * np.radians(corners[..., 0])).mean()
    around, lat = unrolled(corners[..., 0], float(np.degrees(np.angle(turn)))), corners[..., 1]
    middle = float(around.min() + around.max()) / 2, float(lat.min() + lat.max()) / 2
    east, north = float(np.ptp(around)) * math.cos(math.radians(middle[1])), float(np.ptp(lat))
    largest = float(np.ptp(lat, axis=1).max())
    scale = min(0.96 * _WIDTH / east, 0.96 * _HEIGHT / north, _CELL / largest)
    frame = Frame(*middle, scale, _WIDTH, round(north * scale / 0.96))
    return frame.pixels(around, lat), frame


def _zone_names(cells: Sequence[Cell], corners: NDArray[np.float64]) -> str:
    """The zones' names in their middles, if there are several."""
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
