"""A scene's DN at some thousand points, where it is clear."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo import LATTICE_M, origin_m
from difffusr.pipeline.ground.pixels import CLOUD_CLASSES, UNMEASURED
from difffusr.pipeline.plan.balance.points import points_within
from difffusr.pipeline.scenes import ChipRules, MaskClass, Nadir, Scene, mask_overview, nadir_of, read_overview

#: Metres from cloud and its shadow within which nothing is compared, and pixels by which edges of the data are.
_FROM_CLOUD_M, _FROM_EDGE_PX = 600.0, 2

#: Classes that are compared: vegetation, bare soil, water, unclassified.
_COMPARED = (4, 5, 6, 7)

#: Side of the cells that the classification is read in, and of those of the bands for points far apart, in metres.
_CLASSES_M, _COARSE_M = 2 * LATTICE_M, 4 * LATTICE_M

#: Spots of cloud or shadow of fewer cells are errors of the classification: roofs and dark fields.
_SPOT = 2


@dataclass(frozen=True, eq=False)
class Samples:
    """What a scene shows at the points that it shows clear.

    Attributes:
        number: (n,) int64 numbers of the points, ascending.
        place: (n, 2) float32 where they lie in the scene's square, 0 – 1 eastwards and southwards.
        dn: (bands, n) uint16 DN at nadir: without radiometric offset, times the factor of view and sun.
        day: when it was taken, in days.
    """

    number: NDArray[np.int64]
    place: NDArray[np.float32]
    dn: NDArray[np.uint16]
    day: float


@dataclass(frozen=True, eq=False)
class Sampled:
    """A scene's samples, its factors, and its square: left, top and side in metres of its CRS."""

    samples: Samples
    nadir: Nadir
    square: tuple[float, float, float]


def sample(scene: Scene, spacing_m: float, sun: str, rules: ChipRules, bands: Sequence[str] = BANDS) -> Sampled:
    """Read a scene at points `spacing_m` apart, on overviews of its files.

    Raises:
        ReadError: a file cannot be read.
    """
    nadir = nadir_of(scene, "noon" if sun == "noon" else "scene")
    step = step_of(spacing_m)
    first = _Raster.of(scene, bands[0], step)
    west, south, east, north = first.bounds
    side = max(east - west, north - south)
    points = points_within(first.bounds, scene.epsg, spacing_m)
    usable = _clear(scene, points.x, points.y, rules)
    dn = np.zeros((len(bands), len(points.x)), np.uint16)
    for i, band in enumerate(bands):
        raw = (first if i == 0 else _Raster.of(scene, band, step)).at(points.x, points.y)
        usable &= (raw > 1) & (raw < UNMEASURED)
        factor = nadir_on(nadir, i, points.x, points.y)
        dn[i] = np.clip(np.rint((raw.astype(np.int32) + scene.assets[band].offset_dn) * factor), 1, UNMEASURED - 1)
    place = np.stack([points.x - west, north - points.y], axis=1) / side
    day = (scene.datetime - dt.datetime(2015, 1, 1, tzinfo=dt.UTC)).total_seconds() / 86_400
    samples = Samples(points.number[usable], place[usable].astype(np.float32), np.ascontiguousarray(dn[:, usable]), day)
    return Sampled(samples, nadir, (west, north, side))


def step_of(spacing_m: float) -> int:
    """Side of the cells, in metres, that the bands are read in for points so far apart."""
    return _CLASSES_M if spacing_m < _COARSE_M else _COARSE_M


def overviews_read(scene: Scene, spacing_m: float, bands: Sequence[str] = BANDS) -> list[tuple[str, int]]:
    """What `sample` reads: bands, or "SCL", each with the side of its cells in metres."""
    classes = [("SCL", _CLASSES_M)] if scene.scl is not None else []
    return [*((band, step_of(spacing_m)) for band in bands), *classes]


def nadir_on(nadir: Nadir, band: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A band's factor at places of the scene's CRS, bilinear between nodes, constant beyond."""
    at = np.stack([nadir.top - y, x - nadir.left]) / nadir.step_m
    factor = nadir.factor[band].astype(np.float64)
    out: NDArray[np.float64] = ndimage.map_coordinates(factor, at, order=1, mode="nearest")
    return out


def _clear(scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64], rules: ChipRules) -> NDArray[np.bool_]:
    """Whether places show the ground, far enough from cloud by the classification and by the mask that the rules name;
    all of them for a scene of which neither is known."""
    clear = np.ones(x.shape, bool) if scene.scl is None else _classified(scene, x, y)
    if rules.masks != "scl":
        mask = mask_overview(scene, _CLASSES_M, rules)
        raster = _Raster(mask.classes, mask.row, mask.col, _CLASSES_M, scene.epsg)
        far = _far_from(np.isin(mask.classes, (MaskClass.CLOUD, MaskClass.SHADOW)))
        clear &= replace(raster, cells=far & (mask.classes == MaskClass.CLEAR)).at(x, y).astype(bool)
    return clear


def _far_from(veiled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where cloud and shadow are far enough away; spots of them do not count."""
    spots, count = ndimage.label(veiled, np.ones((3, 3)))
    small = np.flatnonzero(np.bincount(spots.ravel(), minlength=count + 1) <= _SPOT)
    veiled = veiled & ~np.isin(spots, small[small > 0])
    if not veiled.any():
        return np.ones(veiled.shape, bool)
    far: NDArray[np.bool_] = ndimage.distance_transform_edt(~veiled) * _CLASSES_M > _FROM_CLOUD_M
    return far


def _classified(scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether places show the ground by the scene classification."""
    raster = _Raster.of(scene, "SCL", _CLASSES_M)
    classes = raster.cells
    clear = np.isin(classes, _COMPARED) & _far_from(np.isin(classes, (3, *CLOUD_CLASSES)))
    clear &= ndimage.binary_erosion(classes > 0, iterations=_FROM_EDGE_PX, border_value=1)
    return replace(raster, cells=clear).at(x, y).astype(bool)


@dataclass(frozen=True, eq=False)
class _Raster:
    """Cells of the lattice: `row`, `col` are those of the first, in steps from the zone's origin."""

    cells: NDArray[Any]
    row: int
    col: int
    step_m: int
    epsg: int

    @classmethod
    def of(cls, scene: Scene, band: str, step_m: int) -> _Raster:
        """An overview of a band or of SCL. Raises ReadError."""
        return cls(*read_overview(scene, band, step_m), step_m, scene.epsg)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres."""
        top, left = origin_m(self.epsg) - self.row * self.step_m, self.col * self.step_m
        height, width = (side * self.step_m for side in self.cells.shape)
        return (float(left), float(top - height), float(left + width), float(top))

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[Any]:
        """The cells in which places lie; 0 for places outside."""
        down = np.floor((origin_m(self.epsg) - y) / self.step_m).astype(np.intp) - self.row
        across = np.floor(x / self.step_m).astype(np.intp) - self.col
        height, width = self.cells.shape
        inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
        found = self.cells[np.where(inside, down, 0), np.where(inside, across, 0)]
        return np.where(inside, found, np.zeros(1, found.dtype))
