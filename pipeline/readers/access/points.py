"""The pixels under some points, over all zones and periods of a cube."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from difffusr.pipeline.geo import territory
from difffusr.pipeline.ground.errors import ConfigError, CoverageError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.access.facts import ZONE_REACH_DEG, CubeFacts, Missing, check_missing, scaled
from difffusr.pipeline.readers.access.windows import Block

#: Names of columns that are taken for longitude and latitude.
DEGREES = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"), ("x", "y"))


def sample(
    cube: CubeFacts | str,
    points: Any,
    bands: str | Sequence[str] | None = None,
    periods: str | Sequence[str] | None = None,
    *,
    crs: str | None = None,
    missing: Missing = "raise",
) -> xr.Dataset:
    """The pixels of 2.5 m that hold some points, from whatever zone shows them.

    A point is read from the zone in whose territory it lies; where that has no data in a period and a neighbour shows
    the same ground, from the neighbour. Each chunk that holds a point is read once for each period.

    Args:
        cube: an opened one, or a URL.
        points: a GeoDataFrame or GeoSeries of points in any CRS; a DataFrame with columns lon and lat (longitude and
            latitude, x and y); or (n, 2) numbers, x before y.
        bands, periods: names, labels such as 2024-06; all by default.
        crs: of points that do not say theirs, by default longitude and latitude (EPSG:4326).
        missing: what to do about points where nobody has written the cube: an error, or "nan": NaN, and 0 for labels.

    Returns:
        (point, time, band) `reflectance` float32, NaN where there is no data (and `reflectance_std` where the cube has
        it); (point, time) `quality` uint8, `source` uint16 (and `looks`), and `zone` int32, from which zone it is read,
        0 for none. Coordinates: `point` as the index of the points, `lon` and `lat`, `time` as first days of the
        periods, `period` their labels.

    Raises:
        ConfigError: points, bands or periods are not understood.
        CoverageError: nobody has written the cube at a point in a period.
        StoreError: the store refuses.
    """
    opened = CubeFacts.at(cube) if isinstance(cube, str) else cube
    check_missing(missing)
    names, labels = opened.known_bands(bands), opened.known_periods(periods)
    places = Places.of(points, crs)
    found = _Found.empty(opened, len(places.lon), len(labels), len(names))
    wanted = [opened.bands.index(name) for name in names]
    for at, label in enumerate(labels):
        _fill(opened, places, label, at, wanted, found)
    if missing == "raise":
        _check(opened, places, labels, found)
    return _dataset(opened, places, labels, names, found)


@dataclass(frozen=True, eq=False)
class Places:
    """Points by longitude and latitude in degrees, (n,) each, and what they are called."""

    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    index: pd.Index

    @classmethod
    def of(cls, points: Any, crs: str | None = None) -> Places:
        """Points in any form that `sample` takes.

        Raises:
            ConfigError: they are of no such form, or not on the globe.
        """
        index = getattr(points, "index", None)
        shapes = getattr(points, "geometry", None)
        if shapes is not None:
            told = getattr(shapes, "crs", None) or crs
            if told is None:
                raise ConfigError('points: they do not say their CRS; give crs="EPSG:4326" or another')
            geometry = np.asarray(shapes)
            if len(wrong := np.flatnonzero(shapely.get_type_id(geometry) != 0)):
                raise ConfigError(f"points: row {wrong[0]} is no point; sample takes points alone")
            x, y = shapely.get_x(geometry), shapely.get_y(geometry)
        elif isinstance(points, pd.DataFrame):
            x, y = _columns(points)
            told = crs or "EPSG:4326"
        else:
            try:
                pairs = np.asarray(points, np.float64).reshape(-1, 2) if len(points) else np.zeros((0, 2))
            except (TypeError, ValueError):
                raise ConfigError("points: expected points, or (n, 2) numbers: longitudes and latitudes") from None
            (x, y), told = pairs.T, crs or "EPSG:4326"
        lon, lat = _in_degrees(x, y, told)
        index = pd.RangeIndex(len(lon)) if index is None or callable(index) else index
        wrong = np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90) & (np.abs(lon) <= 540)))
        if len(wrong):
            first = wrong[0]
            raise ConfigError(
                f"points: row {index[first]} is at {x[first]:g}, {y[first]:g}, which is no place in {told}; "
                f"{len(wrong)} of {len(lon)} are not"
            )
        return cls((lon + 180.0) % 360.0 - 180.0, lat, index)


def _columns(points: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    there = {str(name).lower(): name for name in points.columns}
    for pair in DEGREES:
        if pair[0] in there and pair[1] in there:
            try:
                x, y = (points[there[name]].to_numpy(np.float64) for name in pair)
            except (TypeError, ValueError):
                raise ConfigError(f"points: columns {pair[0]} and {pair[1]} have to be numbers") from None
            return x, y
    raise ConfigError(
        f"points: found columns {', '.join(map(str, points.columns[:8]))}, expected lon and lat, or a geometry"
    )


def _in_degrees(
    x: NDArray[np.float64], y: NDArray[np.float64], crs: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        known = CRS.from_user_input(crs)
    except CRSError as error:
        raise ConfigError(f"crs: found {crs!r}, expected a CRS such as EPSG:4326 ({first_line(error)})") from None
    if known.equals("EPSG:4326", ignore_axis_order=True):
        return np.asarray(x, np.float64), np.asarray(y, np.float64)
    lon, lat = Transformer.from_crs(known, "EPSG:4326", always_xy=True).transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


@dataclass(frozen=True, eq=False)
class _Found:
    """What is found for each point and period.

    Attributes:
        spectral: (n, periods, bands) float32 by name.
        flat: (n, periods) by name.
        zone: (n, periods) int32, from which zone it is.
        written: (n, periods) bool, whether somebody has written the cube there.
    """

    spectral: dict[str, NDArray[np.float32]]
    flat: dict[str, NDArray[Any]]
    zone: NDArray[np.int32]
    written: NDArray[np.bool_]

    @classmethod
    def empty(cls, cube: CubeFacts, points: int, periods: int, bands: int) -> _Found:
        spectral, flat = {}, {}
        for name in cube.variables:
            array = cube.cube.array(cube.zones[0], name)
            if array.ndim == 4:
                spectral[name] = np.full((points, periods, bands), np.nan, np.float32)
            else:
                flat[name] = np.zeros((points, periods), array.dtype)
        return cls(spectral, flat, np.zeros((points, periods), np.int32), np.zeros((points, periods), bool))


def _fill(cube: CubeFacts, places: Places, label: str, at: int, bands: Sequence[int], found: _Found) -> None:
    """Read a period: each point from the first zone that has data of it."""
    open_still = np.ones(len(places.lon), bool)
    for zone, members in _candidates(cube, places):
        step = cube.step(zone, label)
        here = members[open_still[members]]
        if step is None or not len(here):
            continue
        rows, cols = _pixels(cube, zone, places, here)
        height, width = cube.windows.shape(zone)
        inside = (rows >= 0) & (cols >= 0) & (rows < height) & (cols < width)
        here, rows, cols = here[inside], rows[inside], cols[inside]
        quality = _values(cube, zone, "quality", step, rows, cols)
        high, wide = cube.windows.shard_px(zone)
        empty = quality == 0
        written = np.ones(len(here), bool)
        written[empty] = ~cube.windows.unwritten(zone, step, rows[empty] // high, cols[empty] // wide)
        found.written[here, at] |= written
        has = ~empty
        here, rows, cols = here[has], rows[has], cols[has]
        open_still[here] = False
        found.zone[here, at] = zone
        for name in found.flat:
            values = quality[has] if name == "quality" else _values(cube, zone, name, step, rows, cols)
            found.flat[name][here, at] = values
        for name, into in found.spectral.items():
            attributes = dict(cube.cube.array(zone, name).attrs)
            values = _values(cube, zone, name, step, rows, cols)[:, bands]
            into[here, at] = scaled(values, float(attributes["scale_factor"]), attributes.get("_FillValue"))  # type: ignore[arg-type]


def _candidates(cube: CubeFacts, places: Places) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Zones and the points to look for in them: first all points in their own zone's territory, then those that have
    found no data in neighbours, the nearest first."""
    everyone = np.arange(len(places.lon))
    if cube.cube.in_one_crs:
        for zone in cube.zones:
            yield zone, everyone
        return
    own = np.zeros(len(everyone), np.int32)
    for zone in cube.zones:
        ground = territory(zone)
        shapely.prepare(ground)
        own[(own == 0) & shapely.intersects_xy(ground, places.lon, places.lat)] = zone
    for zone in cube.zones:
        yield zone, np.flatnonzero(own == zone)
    middle = np.array([6.0 * (zone % 100) - 183.0 for zone in cube.zones])
    north = np.array([zone // 100 == 326 for zone in cube.zones])
    away = np.abs((places.lon[:, None] - middle + 180.0) % 360.0 - 180.0)
    away += 12.0 * ((places.lat[:, None] >= 0) != north)
    order = away.argsort(axis=1, kind="stable")
    zones = np.array(cube.zones)
    for rank in range(len(zones)):
        ranked = zones[order[:, rank]]
        near = (np.take_along_axis(away, order[:, [rank]], 1)[:, 0] < ZONE_REACH_DEG) & (ranked != own)
        for zone in np.unique(ranked[near]).tolist():
            yield zone, np.flatnonzero(near & (ranked == zone))


def _pixels(
    cube: CubeFacts, zone: int, places: Places, members: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels that hold some points, from the zone's upper left corner; −1 where it shows no
    such ground."""
    lattice, whole = cube.lattice(zone), cube.cube.window(zone)
    to_zone = Transformer.from_crs("EPSG:4326", lattice.crs, always_xy=True)
    x, y = to_zone.transform(places.lon[members], places.lat[members])
    x = lattice.unrolled(np.asarray(x))
    seen = np.isfinite(x) & np.isfinite(y)
    with np.errstate(invalid="ignore"):
        cols = np.floor(np.where(seen, x, 0) / lattice.pixel) - whole.col
        rows = np.floor((lattice.origin - np.where(seen, y, 0)) / lattice.pixel) - whole.row
    return (np.where(seen, axis, -1).astype(np.int64) for axis in (rows, cols))  # type: ignore[return-value]


def _values(
    cube: CubeFacts, zone: int, name: str, step: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[Any]:
    """(n,) or (n, bands) as stored, of some pixels of a zone; every chunk that has one of them is read once."""
    array = cube.cube.array(zone, name)
    out = np.empty((len(rows), *array.shape[1:-2]), array.dtype)
    if not len(rows):
        return out
    high, wide = array.chunks[-2:]
    height, width = array.shape[-2:]
    number = rows // high * (width // wide + 1) + cols // wide
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(number[order]) != 0])
    groups = np.split(order, starts[1:])
    blocks = []
    for group in groups:
        row, col = int(rows[group[0]]) // high * high, int(cols[group[0]]) // wide * wide
        blocks.append(Block(slice(row, min(row + high, height)), slice(col, min(col + wide, width))))

    def take(at: int, values: NDArray[Any]) -> None:
        group, block = groups[at], blocks[at]
        out[group] = values[..., rows[group] - block.rows.start, cols[group] - block.cols.start].T

    cube.windows.read_blocks(zone, name, step, blocks, take)
    return out


def _check(cube: CubeFacts, places: Places, labels: Sequence[str], found: _Found) -> None:
    lacking = np.argwhere(~found.written)
    if len(lacking):
        point, at = lacking[0]
        raise CoverageError(
            f"{cube.url}: nobody has written the cube at {len(np.unique(lacking[:, 0]))} of {len(places.lon)} points, "
            f"such as row {places.index[point]} ({places.lon[point]:.5f}, {places.lat[point]:.5f}) in {labels[at]}; "
            '`coverage()` has what there is, missing="nan" gives NaN there'
        )


def _dataset(cube: CubeFacts, places: Places, labels: Sequence[str], bands: Sequence[str], found: _Found) -> xr.Dataset:
    days = np.array([cube.periods[label][0] for label in labels], "datetime64[ns]")
    told = {name: dict(cube.cube.array(cube.zones[0], name).attrs) for name in (*found.spectral, *found.flat)}
    kept = {
        name: {key: facts[key] for key in ("long_name", "units", "flag_values", "flag_meanings") if key in facts}
        for name, facts in told.items()
    }
    per_point = {name: ("point", "time") for name in found.flat}
    return xr.Dataset(
        {
            **{name: (("point", "time", "band"), values, kept[name]) for name, values in found.spectral.items()},
            **{name: (per_point[name], values, kept[name]) for name, values in found.flat.items()},
            "zone": (("point", "time"), found.zone, {"long_name": "EPSG code of the zone that it is read from"}),
        },
        {
            "point": _plain(places.index),
            "time": days,
            "band": list(bands),
            "period": ("time", list(labels)),
            "lon": ("point", places.lon, {"units": "degrees_east"}),
            "lat": ("point", places.lat, {"units": "degrees_north"}),
        },
        {"cube": cube.url},
    )


def _plain(index: pd.Index) -> Any:
    """An index as a coordinate: of several levels, its tuples' positions."""
    return np.arange(len(index)) if isinstance(index, pd.MultiIndex) else index.to_numpy()
