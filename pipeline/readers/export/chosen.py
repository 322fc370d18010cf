"""What to export: which part of a cube, in which pixels, as which files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import SCALE
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Lattice, PixelWindow, territory, to_zone
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.export.mosaic import Mosaic
from difffusr.pipeline.readers.footprints import footprint, ground_of

#: Variables exported by default.
USUAL: Final = ("reflectance", "quality")

#: Most tiles of an export, and degrees by which ground is grown before it is asked which tiles have some.
_MOST_TILES, _NEAR_DEG = 1_000_000, 1e-4


@dataclass(frozen=True)
class Tile:
    """A square of a grid that is anchored to the CRS's own coordinates.

    Attributes:
        km: side in kilometres, as asked for.
        east, north: of its lower left corner, in sides.
    """

    km: float
    east: int
    north: int

    @property
    def name(self) -> str:
        """Such as 50km_e86n57; west and south of zero w and s."""
        east, north = "e" if self.east >= 0 else "w", "n" if self.north >= 0 else "s"
        return f"{self.km:g}km_{east}{abs(self.east)}{north}{abs(self.north)}"


@dataclass(frozen=True)
class Export:
    """One file to write.

    Attributes:
        epsg: the zone; the number of the CRS in a mosaic of zones.
        label: of the period, as a run names it.
        days: its first and last day.
        variable: the cube's variable.
        step: its position on the zone's time axis; -1 in a mosaic of zones.
        window: the file's part of the zone, in absolute pixels of its lattice, within the cube unless it is a tile.
        of_crs: the pixels of a cube of one CRS, or of a mosaic; None in a UTM zone.
        mosaic: whether it is put together from all zones.
        tile: None for one file of all.
    """

    epsg: int
    label: str
    days: tuple[date, date]
    variable: str
    step: int
    window: PixelWindow
    of_crs: Lattice | None = None
    mosaic: bool = False
    tile: Tile | None = None

    @property
    def lattice(self) -> Lattice:
        """Its pixels."""
        return self.of_crs or Lattice.of_zone(self.epsg)

    @property
    def place(self) -> str:
        """What names of files begin with."""
        return str(self.epsg) if self.of_crs is None else self.of_crs.name.replace(":", "")

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.series}{'' if self.tile is None else f'_{self.tile.name}'}.tif"

    def of(self, variable: str) -> Export:
        """The same of another variable."""
        return replace(self, variable=variable)

    @property
    def series(self) -> str:
        """What files of the same variable and period have in their names, whatever the tile."""
        return f"{self.place}_{self.label}_{self.variable}"

    @property
    def item(self) -> str:
        """Name of the item that describes it, with files of other variables."""
        return f"{self.place}_{self.label}{'' if self.tile is None else f'_{self.tile.name}'}"


def exports_of(
    cube: Cube,
    area: BaseGeometry | None,
    periods: Sequence[str] = (),
    variables: Sequence[str] = USUAL,
    *,
    crs: str | None = None,
    resolution: float | None = None,
    tile_km: float | None = None,
) -> list[Export]:
    """The files to export for an area.

    Args:
        area: in EPSG:4326; None for the whole cube. A file covers the area's bounding box in its zone, widened to whole
            10 m pixels, in a cube of one CRS and in a mosaic to whole pixels of its own, and cut at the cube's edge.
        periods: labels such as 2024-07; all if empty.
        variables: names of the cube's variables.
        crs: one mosaic of all zones in this CRS instead of a file for each zone.
        resolution: side of its pixels in its units; about 2.5 m by default.
        tile_km: side of tiles, which are whole wherever the area begins; without data there is none.

    Raises:
        ConfigError: the cube lacks a period or a variable, does not cover the area, or cannot be had in this CRS.
        StoreError: the cube cannot be read.
    """
    known = sorted({label for epsg in cube.zones for label in cube.periods(epsg)})
    if lacking := [label for label in periods if label not in known]:
        raise ConfigError(f"--period: the cube has no {lacking[0]}; it has {', '.join(known)}")
    offered = sorted({name for epsg in cube.zones for name in cube.variables(epsg)})
    if lacking := [name for name in variables if name not in offered]:
        raise ConfigError(f"--variable: the cube has no {lacking[0]!r}; it has {', '.join(offered)}")
    if resolution is not None and crs is None:
        raise ConfigError("--resolution: goes with --crs; without it, files have the cube's own pixels")
    out = list(_wholes(cube, area, periods, variables, _mosaic_of(cube, crs, resolution)))
    if not out:
        raise ConfigError(
            f"{cube.storage.url}: the cube does not cover this area in {', '.join(periods) or 'any period'}; it "
            f"covers {'; '.join(_ground(cube, epsg) for epsg in cube.zones)}"
        )
    return out if tile_km is None else _tiles_of(cube, out, tile_km)


def _mosaic_of(cube: Cube, crs: str | None, resolution: float | None) -> Mosaic | None:
    """The mosaic that is asked for; None for the cube's own pixels."""
    if crs is None:
        return None
    asked = Lattice.asked_for(crs, resolution)
    for epsg in cube.zones:
        own = cube.of_crs(epsg)
        if own is not None and own.crs == asked.crs and (resolution is None or own.pixel == asked.pixel):
            return None
    return Mosaic.of(cube, asked)


def _wholes(
    cube: Cube, area: BaseGeometry | None, periods: Sequence[str], variables: Sequence[str], mosaic: Mosaic | None
) -> Iterator[Export]:
    """Files that are not cut into tiles."""
    if mosaic is not None:
        whole, lattice = mosaic.window, mosaic.lattice
        window = whole if area is None else lattice.part_of(whole, area)
        if window is not None:
            for label, days in mosaic.periods.items():
                for name in variables if not periods or label in periods else ():
                    yield Export(lattice.number, label, days, name, -1, window, lattice, mosaic=True)
        return
    for epsg in cube.zones:
        of_crs = cube.of_crs(epsg)
        window = _part(cube.window(epsg), area, epsg, of_crs)
        if window is None:
            continue
        steps = {label: found for label, found in cube.periods(epsg).items() if not periods or label in periods}
        names = [name for name in variables if name in cube.variables(epsg)]
        for label, (step, days) in steps.items():
            for name in names:
                yield Export(epsg, label, days, name, step, window, of_crs)


def _tiles_of(cube: Cube, wholes: Sequence[Export], km: float) -> list[Export]:
    """The tiles of files, of those that have data.

    Raises:
        ConfigError: tiles would be smaller than a pixel, or too many.
    """
    lattice = wholes[0].lattice
    side = round(km * 1000 / (lattice.pixel * lattice.unit_m))
    if side < 1:
        raise ConfigError(f"--tile-km: found {km:g}, expected at least a pixel, {lattice.pixel:g} in {lattice.name}")
    found: list[Export] = []
    for (epsg, label), files in _grouped(wholes).items():
        window, lattice = files[0].window, files[0].lattice
        rows = range(window.row // side, -(-window.row_stop // side))
        cols = range(window.col // side, -(-window.col_stop // side))
        if len(rows) * len(cols) > _MOST_TILES:
            raise ConfigError(
                f"--tile-km: found {km:g}, which makes {len(rows) * len(cols):,} tiles of {lattice.name}; at most "
                f"{_MOST_TILES:,} are possible: choose larger ones"
            )
        seen = _seen(cube, None if files[0].mosaic else epsg, label)
        for row in rows:
            for col in cols:
                here = PixelWindow(row * side, col * side, side, side)
                if seen.intersects(lattice.shape_in_degrees(lattice.box(here))):
                    tile = Tile(km, col, -row - 1)
                    found += [replace(file, window=here, tile=tile) for file in files]
    if not found:
        raise ConfigError(f"{cube.storage.url}: the cube has no data in this area; choose another")
    return found


def _grouped(files: Sequence[Export]) -> dict[tuple[int, str], list[Export]]:
    """Files by place and period, which differ in their variable alone."""
    found: dict[tuple[int, str], list[Export]] = {}
    for file in files:
        found.setdefault((file.epsg, file.label), []).append(file)
    return found


def _seen(cube: Cube, epsg: int | None, label: str) -> BaseGeometry:
    """Where a zone, or None for all of them, has data in a period, in EPSG:4326."""
    steps = {code: cube.periods(code) for code in cube.zones if epsg in (None, code)}
    grounds = [
        footprint(cube, code, ground_of(cube, code, known[label][0])).shape
        for code, known in steps.items()
        if label in known
    ]
    whole = shapely.buffer(shapely.union_all(grounds), _NEAR_DEG)
    shapely.prepare(whole)
    return whole


def _part(whole: PixelWindow, area: BaseGeometry | None, epsg: int, of_crs: Lattice | None) -> PixelWindow | None:
    """Bounding box of the area's part in the zone's territory; None if the zone's arrays do not reach it."""
    if area is None:
        return whole
    if of_crs is not None:
        return of_crs.part_of(whole, area)
    here = area.intersection(territory(epsg))
    if here.is_empty:
        return None
    left, bottom, right, top = to_zone(here, epsg).bounds
    _, _, _, origin = PixelWindow(0, 0, 0, 0).bounds_m(epsg)
    row, row_stop = _widened(origin - top, origin - bottom)
    col, col_stop = _widened(left, right)
    row, col = max(row * SCALE, whole.row), max(col * SCALE, whole.col)
    height, width = min(row_stop * SCALE, whole.row_stop) - row, min(col_stop * SCALE, whole.col_stop) - col
    return PixelWindow(row, col, height, width) if height > 0 and width > 0 else None


def _widened(start_m: float, stop_m: float) -> tuple[int, int]:
    """First and one past the last 10 m pixel; less than a centimetre of overlap is rounding error."""
    return math.floor(start_m / 10 + 1e-3), math.ceil(stop_m / 10 - 1e-3)


def _ground(cube: Cube, epsg: int) -> str:
    lattice = cube.lattice(epsg)
    bounds = (f"{side:.{5 if lattice.is_geographic else 0}f}" for side in lattice.bounds(cube.window(epsg)))
    return f"{', '.join(bounds)} in {lattice.name}"
