"""The variables and coordinates of every level of a cube: names, dimensions, types and CF attributes, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GSD_M, WAVELENGTH_NM
from difffusr.pipeline.cube.layout import Zone
from difffusr.pipeline.ground.pixels import DN_SCALE, STD_FILL, STD_SCALE, Quality

#: Dimensions of a variable with bands, and of one without.
SPECTRAL, FLAT = ("time", "band", "y", "x"), ("time", "y", "x")

_CALENDAR = {"units": "days since 1970-01-01", "calendar": "standard"}
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Variable:
    """An array with pixels. Its shards and chunks hold one step of time, all bands, and a square of the grid.

    Attributes:
        name, dims, dtype, fill: as in the store.
        attributes: at every level.
        of_overview: further ones at the levels above 2.5 m.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: int
    attributes: Mapping[str, Any]
    of_overview: Mapping[str, Any]

    def sizes(self, steps: int, height: int, width: int) -> tuple[int, ...]:
        """Sizes of its dimensions in a block of so many steps, rows and columns."""
        known = {"time": steps, "band": len(BANDS), "y": height, "x": width}
        return tuple(known[name] for name in self.dims)


def _reflectance(scale: int, fill: int, long_name: str) -> dict[str, Any]:
    return {
        "standard_name": "surface_bidirectional_reflectance",
        "long_name": long_name,
        "units": "1",
        "scale_factor": 1 / scale,
        "_FillValue": fill,
        **_placed("wavelength"),
    }


def _placed(*coordinates: str) -> dict[str, str]:
    """How a variable names its CRS. xarray makes a coordinate only of what `coordinates` lists, and rioxarray and
    odc-geo look for the CRS among a variable's coordinates."""
    return {"grid_mapping": "spatial_ref", "coordinates": " ".join((*coordinates, "spatial_ref"))}


def variables(samples: int, composite: str = "none") -> tuple[Variable, ...]:
    """Those of a zone.

    Args:
        samples: how many samples `reflectance_std` is made of; 0 for a zone without it.
        composite: what several looks become; "none" for a zone without `looks`.
    """
    further = {"reflectance_std": samples > 0, "looks": composite != "none"}
    ancillary = " ".join(("quality", "source", *(name for name, there in further.items() if there)))
    table = (
        Variable(
            "reflectance",
            SPECTRAL,
            "uint16",
            fill=0,
            attributes={**_reflectance(DN_SCALE, 0, "surface reflectance"), "ancillary_variables": ancillary},
            of_overview={"cell_methods": "area: mean"},
        ),
        Variable(
            "reflectance_std",
            SPECTRAL,
            "uint16",
            fill=STD_FILL,
            attributes={
                **_reflectance(
                    STD_SCALE,
                    STD_FILL,
                    f"standard deviation of surface reflectance among {samples} samples of super-resolution",
                ),
                "cell_methods": "realization: standard_deviation",
            },
            of_overview={"cell_methods": "realization: standard_deviation area: mean"},
        ),
        Variable(
            "quality",
            FLAT,
            "uint8",
            fill=0,
            attributes={
                "long_name": "what a pixel is made of",
                "standard_name": "quality_flag",
                "flag_values": [int(flag) for flag in Quality],
                "flag_meanings": " ".join(flag.name.lower() for flag in Quality),
                **_placed(),
            },
            of_overview={"cell_methods": "area: mode"},
        ),
        Variable(
            "source",
            FLAT,
            "uint16",
            fill=0,
            attributes={
                "long_name": "number of the scene, by the root group's attribute difffusr:scene_pages, 0 for none",
                **_placed(),
            },
            of_overview={"cell_methods": "area: mode"},
        ),
        Variable(
            "looks",
            FLAT,
            "uint8",
            fill=0,
            attributes={
                "long_name": f"clear observations of the ground that the composite ({composite}) is made of",
                "standard_name": "number_of_observations",
                "units": "1",
                **_placed(),
            },
            of_overview={"cell_methods": "area: mode"},
        ),
    )
    return tuple(variable for variable in table if further.get(variable.name, True))


@dataclass(frozen=True)
class Coordinate:
    """A coordinate: where and when pixels are. Written with the metadata.

    Attributes:
        name, dims: as in the store.
        values: of a zone's level.
        attributes: in every zone and at every level.
        of_level: further ones, of a zone's level.
    """

    name: str
    dims: tuple[str, ...]
    values: Callable[[Zone, int], NDArray[Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    of_level: Callable[[Zone, int], Mapping[str, Any]] = lambda *_: {}


def time_chunk(document: Mapping[str, Any] | None) -> int:
    """Steps in a chunk of `time`, by its document: one in cubes of earlier versions."""
    chunks = ((document or {}).get("chunk_grid") or {}).get("configuration") or {}
    size = (chunks.get("chunk_shape") or [1])[0]
    return size if isinstance(size, int) and size > 0 else 1


def _days(zone: Zone) -> list[tuple[int, int]]:
    """First day of each period and the day after its last, in days since the epoch."""
    return [((start - _EPOCH).days, (end - _EPOCH).days + 1) for start, end in zone.periods]


def _eastings(zone: Zone, level: int) -> NDArray[np.floating[Any]]:
    left, width = zone.lattice.bounds(zone.window)[0], zone.level_shape(level)[1]
    return left + zone.pixel(level) * (np.arange(width) + 0.5)


def _northings(zone: Zone, level: int) -> NDArray[np.floating[Any]]:
    top, height = zone.lattice.bounds(zone.window)[3], zone.level_shape(level)[0]
    return top - zone.pixel(level) * (np.arange(height) + 0.5)


def _along(axis: str, projected: str, geographic: str) -> Callable[[Zone, int], dict[str, Any]]:
    """CF's words for the coordinate of an axis in the plane."""

    def words(zone: Zone, _: int) -> dict[str, Any]:
        if zone.lattice.is_geographic:
            name, units = geographic, f"degrees_{'east' if axis == 'X' else 'north'}"
            return {"standard_name": name, "units": units, "axis": axis, "long_name": f"{name} of pixel centres"}
        name, unit = f"projection_{axis.lower()}_coordinate", zone.lattice.known.axis_info[0].unit_name
        unit = "m" if unit == "metre" else unit.replace(" ", "_")
        return {"standard_name": name, "units": unit, "axis": axis, "long_name": f"{projected} of pixel centres"}

    return words


def _crs(zone: Zone, _: int) -> dict[str, Any]:
    """CF's and GDAL's words for a zone's CRS. No GeoTransform: rioxarray would believe it, instead of x and y, of every
    second pixel and of means of several."""
    crs = zone.lattice.known
    wkt = crs.to_wkt()
    return {**crs.to_cf(), "crs_wkt": wkt, "spatial_ref": wkt}


#: Those of every level.
COORDINATES = (
    Coordinate(
        "time",
        ("time",),
        lambda zone, _: np.array([first for first, _ in _days(zone)], np.int64),
        {
            **_CALENDAR,
            "standard_name": "time",
            "axis": "T",
            "bounds": "time_bnds",
            "long_name": "first day of the period",
        },
    ),
    Coordinate(
        "time_bnds", ("time", "bnds"), lambda zone, _: np.array(_days(zone), np.int64).reshape(-1, 2), _CALENDAR
    ),
    Coordinate("x", ("x",), _eastings, of_level=_along("X", "easting", "longitude")),
    Coordinate("y", ("y",), _northings, of_level=_along("Y", "northing", "latitude")),
    Coordinate(
        "wavelength",
        ("band",),
        lambda *_: np.array([WAVELENGTH_NM[band] for band in BANDS]),
        {"standard_name": "radiation_wavelength", "units": "nm", "long_name": "central wavelength of Sentinel-2A"},
    ),
    Coordinate(
        "band",
        ("band",),
        lambda *_: np.array(BANDS, dtype=np.dtypes.StringDType()),
        {"long_name": "Sentinel-2 band", "difffusr:native_gsd_m": [GSD_M[band] for band in BANDS]},
    ),
    Coordinate("spatial_ref", (), lambda *_: np.array(0, np.int64), of_level=_crs),
)
