"""The content of a vector file: geometries and their CRS, before conversion to degrees."""

from __future__ import annotations

from dataclasses import dataclass

import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.ground.errors import ConfigError


@dataclass(frozen=True)
class Drawn:
    """The geometries of a file as they are in it, their CRS, and the place that errors begin with (key: file)."""

    geometries: list[BaseGeometry]
    crs: pyproj.CRS
    place: str

    def misfit(self) -> ConfigError:
        """The error for coordinates that are impossible in the CRS."""
        west, south, east, north = shapely.total_bounds(self.geometries)
        return ConfigError(
            f"{self.place}: its coordinates do not fit its CRS ({self.crs.name}): their bounds are "
            f"{west:.6g}, {south:.6g}, {east:.6g}, {north:.6g}; name in the file the CRS that they are in"
        )


def horizontal(crs: pyproj.CRS, place: str) -> pyproj.CRS:
    """A CRS without its vertical part. Raises ConfigError unless it is geographic or projected."""
    flat = crs.sub_crs_list[0] if crs.is_compound else crs
    if not (flat.is_projected or (flat.is_geographic and not flat.is_derived)):
        raise ConfigError(f"{place}: its CRS ({crs.name}) is neither longitude and latitude nor a map projection")
    return flat
