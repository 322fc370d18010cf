"""A granule's metadata (`MTD_TL.xml`): angles of sun and view on a grid of 5 km, and what they do to reflectance."""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.kernels.brdf import c_factor
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line

#: Bands as the metadata number them.
_NUMBERED: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

#: Largest metadata file that is read, in bytes: real ones have 0.3 to 1 MB.
_LARGEST: Final = 20_000_000


@dataclass(frozen=True, eq=False)
class View:
    """Angles from the ground to one detector, in degrees, azimuth clockwise from north; NaN where it does not look."""

    zenith: NDArray[np.float64]
    azimuth: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FactorField:
    """A factor that varies smoothly over a tile, known at the nodes of a grid.

    Attributes:
        left, top: of the first node, in metres of the tile's CRS.
        step_m: from node to node, southwards and eastwards.
        values: (rows, columns) at the nodes, finite; one by one for a factor that is the same everywhere.
    """

    left: float
    top: float
    step_m: float
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.size or not np.isfinite(self.values).all() or not self.step_m > 0:
            raise ValueError(f"a factor field needs finite (rows, columns) of values {self.step_m} m apart")

    def on(self, bounds: tuple[float, float, float, float], gsd_m: float) -> NDArray[np.float32]:
        """The factor at the centres of a window's pixels: bilinear between nodes, constant beyond the outermost.

        Args:
            bounds: west, south, east, north in metres of the tile's CRS (`PixelWindow.bounds_m`).
            gsd_m: side of a pixel.

        Returns:
            (h, w) float32, as many pixels as fit; exact where a centre is a node.
        """
        west, south, east, north = bounds
        height, width = round((north - south) / gsd_m), round((east - west) / gsd_m)
        above, below, down = self._between(self.top - north, height, gsd_m, self.values.shape[0])
        before, after, across = self._between(west - self.left, width, gsd_m, self.values.shape[1])
        nodes = self.values.astype(np.float64)
        rows = nodes[above] * (1 - down)[:, None] + nodes[below] * down[:, None]
        out: NDArray[np.float64] = rows[:, before] * (1 - across) + rows[:, after] * across
        return out.astype(np.float32)

    def _between(
        self, start_m: float, count: int, gsd_m: float, nodes: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """For each pixel along an axis the nodes on either side, and how far it is on the way to the second, 0 – 1."""
        place = (start_m + (np.arange(count) + 0.5) * gsd_m) / self.step_m
        place = np.clip(place, 0, nodes - 1)
        first = np.floor(place).astype(np.intp)
        return first, np.minimum(first + 1, nodes - 1), place - first


@dataclass(frozen=True, eq=False)
class Granule:
    """Angles over one granule.

    Attributes:
        epsg: CRS of the tile.
        left, top: of the first node, in metres of that CRS.
        step_m: from node to node, southwards and eastwards.
        sun: angles to the sun, (n, n) degrees.
        views: by band, the views of the detectors that look at the tile, (n, n) each.
    """

    epsg: int
    left: float
    top: float
    step_m: float
    sun: View
    views: Mapping[str, tuple[View, ...]]

    def factors(self, band: str, nadir_sun: float | None = None) -> NDArray[np.float64]:
        """(n, n) what to multiply a band's reflectance by at each node to get that at nadir (`kernels.brdf`).

        Where two detectors look at a node their factors are averaged: their azimuths may differ by 180°, so that the
        mean of those would be a direction from which nobody looks. A node at which none looks has the factor of the
        nearest one that is seen; a band without any view has 1.
        """
        total, count = np.zeros(self.sun.zenith.shape), np.zeros(self.sun.zenith.shape)
        for view in self.views.get(band, ()):
            azimuth = self.sun.azimuth - view.azimuth
            factor = c_factor(band, self.sun.zenith, view.zenith, azimuth, nadir_sun)
            seen = np.isfinite(factor)
            total[seen] += factor[seen]
            count += seen
        if not count.any():
            return np.ones(total.shape)
        return _filled(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))

    def field(self, band: str, nadir_sun: float | None = None) -> FactorField:
        """`factors` as a field that can be had on any pixels."""
        return FactorField(self.left, self.top, self.step_m, self.factors(band, nadir_sun).astype(np.float32))


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values with each NaN replaced by the nearest that is none."""
    from scipy.ndimage import distance_transform_edt  # here, because few who import scenes need it

    gaps = np.isnan(values)
    if not gaps.any():
        return values
    nearest = distance_transform_edt(gaps, return_distances=False, return_indices=True)
    out: NDArray[np.float64] = values[tuple(nearest)]
    return out


def read_granule(data: bytes, name: str) -> Granule:
    """The angles in a granule's metadata, as in the product or gzipped.

    Args:
        name: begins errors.

    Raises:
        CatalogError: it is not the metadata of a granule, or lacks the angles of the sun.
    """
    try:
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        if len(text) > _LARGEST:
            raise ValueError(f"{len(text):,} bytes")
        root = ElementTree.fromstring(text)
        angles = next(found for found in root.iter() if found.tag.endswith("Tile_Angles"))
        corner = next(found for found in root.iter("Geoposition") if found.get("resolution") == "10")
        code = next(root.iter("HORIZONTAL_CS_CODE")).text or ""
        sun = _grid(angles.find("Sun_Angles_Grid"))
        step = float(angles.findtext("Sun_Angles_Grid/Zenith/COL_STEP") or 5000)
        left, top = (float(corner.findtext(key) or "") for key in ("ULX", "ULY"))
        return Granule(int(code.upper().removeprefix("EPSG:")), left, top, step, sun, _views(angles, sun))
    except (ElementTree.ParseError, StopIteration, EOFError, OSError, ValueError, TypeError, LookupError) as error:
        why = one_line(error) or "an element is missing"
        raise CatalogError(f"{name}: is not the metadata of a Sentinel-2 granule (MTD_TL.xml): {why}") from None


def _views(angles: ElementTree.Element, sun: View) -> dict[str, tuple[View, ...]]:
    """By band, the views whose grids are as large as the sun's and not empty."""
    found: dict[str, list[View]] = {band: [] for band in BANDS}
    for number, grid in _numbered(angles):
        view = _grid(grid)
        if number in found and view.zenith.shape == sun.zenith.shape and np.isfinite(view.zenith).any():
            found[number].append(view)
    return {band: tuple(views) for band, views in found.items()}


def _numbered(angles: ElementTree.Element) -> Iterator[tuple[str, ElementTree.Element]]:
    for grid in angles.findall("Viewing_Incidence_Angles_Grids"):
        yield _NUMBERED[int(grid.get("bandId") or "")], grid


def _grid(grid: ElementTree.Element | None) -> View:
    """Zenith and azimuth of a grid. Raises ValueError or TypeError where it is not whole."""
    if grid is None:
        raise ValueError("a grid of angles is missing")
    zenith, azimuth = (
        np.array(
            [
                [float(value) for value in (row.text or "").split()]
                for row in grid.iterfind(f"{kind}/Values_List/VALUES")
            ]
        )
        for kind in ("Zenith", "Azimuth")
    )
    if zenith.ndim != 2 or zenith.shape != azimuth.shape or not zenith.size:
        raise ValueError("a grid of angles is not whole")
    return View(zenith, azimuth)
