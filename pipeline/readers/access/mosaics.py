"""An area of a cube in one CRS: all zones that show it, warped once and blended, read when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS, WAVELENGTH_NM
from difffusr.pipeline.geo import Lattice, PixelWindow, cut_at_180, utm_epsg
from difffusr.pipeline.ground.errors import ConfigError, CoverageError
from difffusr.pipeline.readers.access.facts import CubeFacts, Missing, check_missing
from difffusr.pipeline.readers.access.lazy import lazy_variable
from difffusr.pipeline.readers.access.warped import GROUP_PX, Mosaic

#: Longest edge in degrees of an area's outline before it is brought into another CRS.
_STEP_DEG = 0.02

#: Largest pixels in metres: beyond, the squares that are warped at a time are wider than a UTM zone's CRS knows.
_COARSEST_M = 1_100.0

#: Part of a pixel that is rounding error.
_ROUNDING = 1e-3


def mosaic(
    cube: CubeFacts | str,
    *,
    bbox: Sequence[float] | None = None,
    area: Any = None,
    crs: str | None = None,
    resolution: float | None = None,
    period: str | Sequence[str] | None = None,
    bands: str | Sequence[str] | None = None,
    variable: str = "reflectance",
    missing: Missing = "raise",
) -> xr.DataArray:
    """An area in one CRS over all zones of a cube, read when it is asked for.

    Pixels are warped once, by cubic convolution, or are means where they are at least 1.5 times as coarse as the
    cube's, from the pyramid's level that is still finer. Where zones meet, one goes over into the other, as in cubes
    that `difffusr continent` makes. In the CRS and pixels of the zone that alone shows it, pixels are the cube's own.

    Args:
        cube: an opened one, or a URL.
        bbox: west, south, east, north in degrees; west > east crosses 180°.
        area: instead: polygons, of shapely in degrees, or of geopandas in any CRS.
        crs: any that is projected or geographic; by default the UTM zone of the area's middle, of a cube of one CRS
            its own.
        resolution: side of a pixel in the CRS's units, up to a kilometre; by default the cube's own, 2.5 m.
        period: a label such as 2024-06; several make a dimension `time`; may be left out where the cube has one alone.
        bands: names; all by default. Fewer take less time to warp, not less to read.
        variable: reflectance, reflectance_std, quality, source or looks.
        missing: what to do about ground inside the area that nobody has written: an error when it is read, or "nan".

    Returns:
        ([time,] [band,] y, x) float32 of reflectance, NaN where there is no data; labels as stored, 0 for none. It
        covers the area's bounding box in the CRS, in whole pixels counted from the CRS's origin: areas side by side
        fit.
        `.chunk()` makes a Dask array of it.

    Raises:
        ConfigError: something is not understood.
        CoverageError: no zone reaches the area; and, when pixels are read, if nobody has written some of it.
        StoreError: when pixels are read, if the store refuses.
    """
    opened = CubeFacts.at(cube) if isinstance(cube, str) else cube
    check_missing(missing)
    if variable not in opened.variables:
        raise ConfigError(f"variable: {opened.url} has no {variable!r}; it has {', '.join(opened.variables)}")
    if period is None and len(opened.periods) > 1:
        raise ConfigError(f"period: {opened.url} has several, {', '.join(opened.periods)}; give one, or a list")
    labels, names = opened.known_periods(period), opened.known_bands(bands)
    ground = _ground(bbox, area)
    lattice = _lattice(opened, ground, crs, resolution)
    if lattice.pixel * lattice.unit_m > _COARSEST_M:
        raise ConfigError(
            f"resolution: found {lattice.pixel:g}, {lattice.pixel * lattice.unit_m:,.0f} m; a mosaic has pixels of up "
            f"to {_COARSEST_M:,.0f} m: what is read at a time has to fit into a zone. Average one of those"
        )
    window = _window(lattice, ground)
    image = Mosaic(opened, ground, lattice, window, labels, tuple(BANDS.index(name) for name in names), missing)
    if not any(_reaches(opened, zone, labels, ground) for zone in opened.zones):
        west, south, east, north = (f"{side:.5f}" for side in ground.bounds)
        raise CoverageError(
            f"{opened.url}: no zone shows {west}, {south}, {east}, {north} in {', '.join(labels)}; `coverage()` has "
            "what there is"
        )
    return _labelled(image, variable, names, single=period is None or isinstance(period, str))


def _reaches(cube: CubeFacts, zone: int, labels: Sequence[str], ground: BaseGeometry) -> bool:
    """Whether a zone has one of the periods, and its window some of the ground."""
    lattice = cube.lattice(zone)
    outline = lattice.shape_in_degrees(lattice.box(cube.cube.window(zone)))
    return any(cube.step(zone, label) is not None for label in labels) and bool(outline.intersects(ground))


def _ground(bbox: Sequence[float] | None, area: Any) -> BaseGeometry:
    """An area in EPSG:4326, cut at 180°."""
    if (bbox is None) == (area is None):
        raise ConfigError("bbox and area: give one of them")
    if bbox is not None:
        try:
            west, south, east, north = (float(side) for side in bbox)
        except (TypeError, ValueError):
            raise ConfigError(f"bbox: found {bbox!r}, expected west, south, east, north in degrees") from None
        if not (-90 <= south < north <= 90 and abs(west) <= 360 and abs(east) <= 360 and west != east):
            raise ConfigError(
                f"bbox: found {west:g}, {south:g}, {east:g}, {north:g}, expected west, south, east, north in degrees"
            )
        return cut_at_180(shapely.box(west, south, east if west < east else east + 360, north))
    shapes = getattr(area, "geometry", area) if not isinstance(area, BaseGeometry) else area
    if hasattr(shapes, "crs"):
        if shapes.crs is None:
            raise ConfigError("area: it does not say its CRS; set it, or give polygons in degrees")
        shapes = shapes.to_crs("EPSG:4326")
    try:
        ground = shapely.make_valid(shapely.union_all(np.atleast_1d(np.asarray(shapes, object))))
    except TypeError:
        raise ConfigError("area: expected polygons of shapely in degrees, or of geopandas") from None
    ground = cut_at_180(ground)
    if ground.is_empty or ground.area <= 0 or not np.isfinite(ground.bounds).all():
        raise ConfigError("area: expected polygons that cover some ground")
    return ground


def _lattice(cube: CubeFacts, ground: BaseGeometry, crs: str | None, resolution: float | None) -> Lattice:
    own = cube.lattice(cube.zones[0])
    if crs is None:
        if cube.cube.in_one_crs:
            return own if resolution is None else Lattice.asked_for(own.crs, resolution)
        middle = ground.representative_point()
        crs = f"EPSG:{utm_epsg(middle.x, middle.y)}"
    asked = Lattice.asked_for(crs, resolution)
    known = [cube.lattice(zone) for zone in cube.zones]
    lattice = next((replace(asked, origin=own.origin, west=own.west) for own in known if own.crs == asked.crs), asked)
    if resolution is None and (found := next((own for own in known if own.crs == asked.crs), None)) is not None:
        return found
    if lattice.is_geographic and lattice is asked:
        west, _, east, _ = ground.bounds
        parts = sorted((part.bounds[0], part.bounds[2]) for part in getattr(ground, "geoms", [ground]))
        if east - west > 180 and len(parts) > 1:
            # It crosses 180°: longitudes go on from the widest gap.
            gaps = [(after[0] - before[1], before[1]) for before, after in pairwise(parts)]
            width, start = max(gaps)
            return replace(lattice, west=float(round(start + width / 2)))
    return lattice


def _window(lattice: Lattice, ground: BaseGeometry) -> PixelWindow:
    """The whole pixels of a lattice that hold an area."""
    lon, lat = shapely.get_coordinates(shapely.segmentize(ground, _STEP_DEG)).T
    x, y = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True).transform(lon, lat)
    x = lattice.unrolled(np.asarray(x))
    if lattice.is_geographic:
        # 180° is −180° as well: an outline that ends there ends on its own side.
        x = np.where((x == lattice.west) & (lon > 0) & (lattice.west < 0), x + 360.0, x)
    seen = np.isfinite(x) & np.isfinite(y)
    if not seen.all():
        raise ConfigError(f"crs: {lattice.name} does not show all of the area; choose another CRS, or a smaller area")
    cols, rows = x / lattice.pixel, (lattice.origin - y) / lattice.pixel
    row, col = math.floor(rows.min() + _ROUNDING), math.floor(cols.min() + _ROUNDING)
    return PixelWindow(
        row, col, max(math.ceil(rows.max() - _ROUNDING) - row, 1), max(math.ceil(cols.max() - _ROUNDING) - col, 1)
    )


def _labelled(image: Mosaic, variable: str, names: Sequence[str], *, single: bool) -> xr.DataArray:
    cube, lattice, window = image.cube, image.lattice, image.window
    spectral = variable.startswith("reflectance")
    sizes = {
        **({} if single else {"time": len(image.labels)}),
        **({"band": len(names)} if spectral else {}),
        "y": window.height,
        "x": window.width,
    }

    def read(others: Sequence[NDArray[np.int64]], rows: slice, cols: slice) -> NDArray[Any]:
        part = PixelWindow(
            window.row + rows.start, window.col + cols.start, rows.stop - rows.start, cols.stop - cols.start
        )
        bands = [image.bands[at] for at in others[-1]] if spectral else []
        if single:
            return image.read(variable, 0, part, bands)
        return np.stack([image.read(variable, int(at), part, bands) for at in others[0]])

    told = dict(cube.cube.array(cube.zones[0], variable).attrs)
    kept = ("standard_name", "long_name", "units", "flag_values", "flag_meanings", "cell_methods")
    attributes = {"grid_mapping": "spatial_ref", **{key: told[key] for key in kept if key in told}}
    data = lazy_variable(list(sizes), tuple(sizes.values()), image.dtype(variable), read, attributes, GROUP_PX)
    x, y = lattice.centres(window, np.arange(window.height), np.arange(window.width))
    wkt = lattice.known.to_wkt()
    days = np.array([cube.periods[label][0] for label in image.labels], "datetime64[ns]")
    axes = ("longitude", "latitude") if lattice.is_geographic else [f"projection_{at}_coordinate" for at in "xy"]
    found = xr.DataArray(
        data,
        {
            "time": days[0] if single else days,
            "period": image.labels[0] if single else ("time", list(image.labels)),
            **(_bands(names) if spectral else {}),
            "y": ("y", y, {"axis": "Y", "standard_name": axes[1]}),
            "x": ("x", x, {"axis": "X", "standard_name": axes[0]}),
            # No GeoTransform: rioxarray would believe it, instead of x and y, of parts of it.
            "spatial_ref": ((), np.int64(0), {**lattice.known.to_cf(), "crs_wkt": wkt, "spatial_ref": wkt}),
        },
        name=variable,
        attrs={**attributes, "resolution": lattice.pixel},
    )
    found.encoding = dict(data.encoding)
    return found


def _bands(names: Sequence[str]) -> dict[str, Any]:
    return {"band": list(names), "wavelength": ("band", [WAVELENGTH_NM[name] for name in names], {"units": "nm"})}
