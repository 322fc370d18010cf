"""One pixel of a cube: spectra, indices, quality and scene, period by period."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo import utm_epsg
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.readers.view.layers import normalised_difference
from difffusr.pipeline.readers.view.levels import MappedCube, MappedZone, NothingThereError, pixels_of_10_m, reading

#: Bands whose shift by balance is told.
_SHIFTED: Final = ("B02", "B04", "B08")


def spectrum(cube: MappedCube, lon: float, lat: float) -> dict[str, Any]:
    """The pixel at a place, in every period.

    Args:
        lon, lat: in degrees.

    Returns:
        `epsg`, the `crs` by its name and `degrees`, whether these are its units, `easting` and `northing` of the
        pixel's centre, its `outline` and that of its 10 m pixel (degrees), and `periods`: for each its
        `label`, by band `reflectance` and `averaged` to 10 m, `std` and `looks` if the cube
        has them, `indices` by layer, `quality` and `scene`. None where there is no data.

    Raises:
        NothingThereError: no zone reaches there.
        StoreError: the cube cannot be read.
    """
    wrapped = (lon + 180) % 360 - 180
    empty: dict[str, Any] | None = None
    for zone in cube.zones_near(utm_epsg(wrapped, lat)):
        place = _place(zone, wrapped, lat)
        if place is None:
            continue
        with reading(cube.url):
            here = _at(cube, zone, *place)
        # A zone that reaches there may have no data where its neighbour has some.
        if any(period["quality"]["value"] for period in here["periods"]):
            return here
        empty = empty or here
    if empty is None:
        raise NothingThereError(f"the cube does not reach {lat:.5f}, {lon:.5f}")
    return empty


def _place(zone: MappedZone, lon: float, lat: float) -> tuple[int, int] | None:
    """Row and column of a place on a zone's finest level."""
    level = zone.levels[0]
    easting, northing = _transformer(zone.lattice.crs).transform(lon, lat)
    if zone.lattice.is_geographic:
        easting = float(zone.lattice.unrolled(np.array(easting)))
    left, bottom, right, top = level.bounds
    if not (left <= easting < right and bottom < northing <= top):
        return None
    return int((top - northing) / level.pixel), int((easting - left) / level.pixel)


def _at(cube: MappedCube, zone: MappedZone, row: int, col: int) -> dict[str, Any]:
    level = zone.levels[0]
    side = pixels_of_10_m(level.gsd_m)
    top, left = row // side * side, col // side * side
    block = level.data.isel(y=slice(top, top + side), x=slice(left, left + side)).load()
    y, x = row - top, col - left
    easting, northing = float(block.x[x]), float(block.y[y])
    middle = float(block.x[0] + block.x[-1]) / 2, float(block.y[0] + block.y[-1]) / 2
    return {
        "epsg": zone.epsg,
        "crs": zone.lattice.name,
        "degrees": zone.lattice.is_geographic,
        "easting": easting,
        "northing": northing,
        "outline": _outline(zone.lattice.crs, easting, northing, level.pixel),
        "outline_10m": _outline(zone.lattice.crs, *middle, level.pixel * side),
        "periods": [
            {"label": label, **_of_period(cube, block.isel(time=zone.steps[label]), y, x)}
            for label in cube.periods
            if label in zone.steps
        ],
    }


def _of_period(cube: MappedCube, block: xr.Dataset, y: int, x: int) -> dict[str, Any]:
    """The pixel (y, x) of one period's block (band, y, x)."""

    def spectra(name: str) -> NDArray[np.float64]:
        stored = block[name].values
        return np.where(stored == cube.fills[name], np.nan, stored * cube.scales[name])

    whole = spectra("reflectance")
    own = whole[:, y, x]
    seen = np.isfinite(whole)
    averaged = np.divide(
        np.nansum(whole, axis=(1, 2)),
        seen.sum(axis=(1, 2)),
        out=np.full(len(whole), np.nan),
        where=seen.any(axis=(1, 2)),
    )
    quality, source = int(block["quality"][y, x]), int(block["source"][y, x])
    return {
        "reflectance": _or_none(own),
        "averaged": _or_none(averaged),
        **({"std": _or_none(spectra("reflectance_std")[:, y, x])} if "reflectance_std" in block else {}),
        **({"looks": int(block["looks"][y, x])} if "looks" in block else {}),
        "indices": _indices(cube, own),
        "quality": {"value": quality, "meaning": cube.flags.get(quality, "unknown")},
        "scene": _scene(cube, source) if source else None,
    }


def _scene(cube: MappedCube, number: int) -> dict[str, Any]:
    """A scene's number, id and time, and by some bands `shift`: what balance added to its reflectance, if anything."""
    facts = cube.scenes.get(number, {})
    told = {"number": number, "id": facts.get("id"), "datetime": facts.get("datetime")}
    shift = facts.get("balance", {}).get("shift")
    if not shift or not any(shift):
        return told
    return {**told, "shift": {band: round(shift[BANDS.index(band)] / DN_SCALE, 5) for band in _SHIFTED}}


def _indices(cube: MappedCube, own: NDArray[np.float64]) -> dict[str, float | None]:
    layers = [layer for layer in cube.layers.values() if layer.is_index]
    pairs = [[own[BANDS.index(band)] for band in layer.bands] for layer in layers]
    values = normalised_difference(*np.array(pairs).T)
    return dict(zip((layer.name for layer in layers), _or_none(values), strict=True))


def _or_none(values: NDArray[np.floating]) -> list[float | None]:
    """For JSON: NaN as None, rounded to a thousandth of a stored step."""
    return [round(float(value), 7) if np.isfinite(value) else None for value in values]


def _outline(crs: str, easting: float, northing: float, side: float) -> list[list[float]]:
    """A ring of longitudes and latitudes around a square of a CRS."""
    half = side / 2
    x = easting + half * np.array([-1, 1, 1, -1, -1])
    y = northing + half * np.array([1, 1, -1, -1, 1])
    lon, lat = _transformer(crs).transform(x, y, direction="INVERSE")
    return [[round(float(a), 8), round(float(b), 8)] for a, b in zip(lon, lat, strict=True)]


@lru_cache(maxsize=128)
def _transformer(crs: str) -> Transformer:
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)
