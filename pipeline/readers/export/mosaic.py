"""One mosaic over all zones of a cube, in the pixels of any CRS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from pyproj import Transformer

from difffusr.pipeline.assemble.continent import Resolution, ZoneView, blend_half_m, cut_lattice, warped_shard
from difffusr.pipeline.cube import Cube, ShardData
from difffusr.pipeline.geo import Lattice, PixelWindow

#: Points along a side of a zone's window from which its extent in another CRS is found.
_ALONG = 65


@dataclass(frozen=True, eq=False)
class Mosaic:
    """The zones of a cube, or a cube of one CRS, in the pixels of another CRS.

    Attributes:
        cube: the cube.
        lattice: the pixels.
    """

    cube: Cube
    lattice: Lattice

    @classmethod
    def of(cls, cube: Cube, lattice: Lattice) -> Mosaic:
        """In a CRS that somebody asks for; of degrees, cut where the zones do not lie."""
        return cls(cube, cut_lattice(lattice, {epsg: _view(cube, epsg, 0, 0) for epsg in cube.zones}))

    @cached_property
    def resolution(self) -> Resolution:
        """How zones are brought to the pixels."""
        own = self.cube.lattice(next(iter(self.cube.zones)))
        levels = min(self.cube.overviews(epsg) for epsg in self.cube.zones)
        return Resolution.of(self.lattice, levels, own.pixel * own.unit_m)

    @cached_property
    def half_m(self) -> float:
        """Half the width in metres over which zones go over into each other."""
        return blend_half_m(self.cube)

    @property
    def periods(self) -> Mapping[str, tuple[date, date]]:
        """First and last day of each period of any zone, by label."""
        known = {label: days for epsg in self.cube.zones for label, (_, days) in self.cube.periods(epsg).items()}
        return dict(sorted(known.items()))

    @cached_property
    def window(self) -> PixelWindow:
        """What all zones cover together."""
        rows, cols = [], []
        for epsg in self.cube.zones:
            own = self.cube.lattice(epsg)
            left, bottom, right, top = own.bounds(self.cube.window(epsg))
            places = np.meshgrid(np.linspace(left, right, _ALONG), np.linspace(bottom, top, _ALONG))
            x, y = Transformer.from_crs(own.crs, self.lattice.crs, always_xy=True).transform(*places)
            shown = np.isfinite(x) & np.isfinite(y)
            cols.append(self.lattice.unrolled(np.asarray(x)[shown]) / self.lattice.pixel)
            rows.append((self.lattice.origin - np.asarray(y)[shown]) / self.lattice.pixel)
        row, col = (int(np.floor(np.concatenate(axis).min())) for axis in (rows, cols))
        row_stop, col_stop = (int(np.ceil(np.concatenate(axis).max())) for axis in (rows, cols))
        return PixelWindow(row, col, row_stop - row, col_stop - col)

    def pixels_of(self, label: str, target: PixelWindow) -> ShardData | None:
        """The pixels of a window in a period; None where zones show nothing.

        Raises:
            StoreError: the store refuses, or a chunk is damaged.
        """
        views = list(self.views(label, target))
        return warped_shard(self.cube, views, self.lattice, target, self.resolution, self.half_m) if views else None

    def views(self, label: str, target: PixelWindow) -> Iterator[ZoneView]:
        """The zones that may show a window in a period."""
        for epsg in self.cube.zones:
            found = self.cube.periods(epsg).get(label)
            if found is not None:
                view = _view(self.cube, epsg, found[0], self.resolution.level)
                if view.seen_from(self.lattice, target) is not None:
                    yield view


def _view(cube: Cube, epsg: int, step: int, level: int) -> ZoneView:
    return ZoneView(epsg, step, cube.window(epsg), level, cube.of_crs(epsg))
