"""What a vector file says: geometries and their CRS, before they are turned into degrees."""

from __future__ import annotations

from dataclasses import dataclass

import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.ground.errors import ConfigError


@dataclass(frozen=True)
class Drawn:
    """What a file says: its geometries as they stand in it, their CRS, and where from, as errors begin."""

    geometries: list[BaseGeometry]
    crs: pyproj.CRS
    place: str

    def misfit(self) -> ConfigError:
        """The error of coordinates that the CRS cannot have."""
        west, south, east, north = shapely.total_bounds(self.geometries)
        return ConfigError(
            f"{self.place}: its coordinates do not fit its CRS ({self.crs.name}): their bounds are "
            f"{west:.6g}, {south:.6g}, {east:.6g}, {north:.6g}; name in the file the CRS that they are in"
        )


def horizontal(crs: pyproj.CRS, place: str) -> pyproj.CRS:
    """A CRS without its heights; ConfigError unless it is of the earth and either geographic or projected."""
    flat = crs.sub_crs_list[0] if crs.is_compound else crs
    if not (flat.is_projected or (flat.is_geographic and not flat.is_derived)):
        raise ConfigError(f"{place}: its CRS ({crs.name}) is neither longitude and latitude nor a map projection")
    return flat
