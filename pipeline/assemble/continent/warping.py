"""One shard of a cube of one CRS: the zones that show its ground, each pixel warped once, and blended where zones meet.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.warp import Resampling, reproject
from scipy.ndimage import distance_transform_cdt

from difffusr.kernels.bands import BANDS, TARGET_GSD_M
from difffusr.pipeline.assemble.continent.meeting import zone_weights
from difffusr.pipeline.cube import Cube, ShardData, held_whole, read_window
from difffusr.pipeline.geo import Grid, Lattice, PixelWindow
from difffusr.pipeline.ground.pixels import STD_FILL

#: Source pixels around the ground of a shard: cubic convolution reaches two further, and edges bend a little.
_AROUND_PX = 4

#: From this many source pixels along a target pixel on, means are taken instead of cubic convolution.
_COARSE = 1.5

#: Points along a side of a window, to find what it covers in another CRS.
_ALONG = 17

#: Target pixels from a zone's last ones in which cubic convolution lacks some of what it needs; and those in which it
#: fades out where another zone shows the same ground. What is left of it at its very edge.
_KERNEL_PX, _FADE_PX, _LEAST = 2, 16, np.float32(1e-3)

#: Pixels that are warped by one call, in several bands where they fit: a call takes GDAL 5 ms to prepare.
_TOGETHER_PX = 1 << 20

#: Side of the squares in which labels are looked at.
_TILE_PX = 128

_MEAN = Resampling.average

#: Variables with bands.
_SPECTRAL = ("reflectance", "reflectance_std")

#: Target pixels by which places may be off: GDAL interpolates between exact ones.
_TOLERANCE_PX = 0.02


@dataclass(frozen=True)
class Resolution:
    """How zones are brought to a lattice.

    Attributes:
        level: of the zones' pyramid to read.
        coarse: whether a target pixel is clearly larger than one of that level: then it is the mean of them.
    """

    level: int
    coarse: bool

    @classmethod
    def of(cls, lattice: Lattice, overviews: int, finest_m: float = TARGET_GSD_M) -> Resolution:
        """For the pixels of a lattice, from zones with so many levels above the finest, whose pixels have so many
        metres."""
        ratio = lattice.pixel * lattice.unit_m / finest_m
        if ratio < _COARSE:
            return cls(0, False)
        return cls(min(overviews, int(math.log2(ratio / _COARSE))), True)


@dataclass(frozen=True)
class ZoneView:
    """A zone's level as the source of a shard.

    Attributes:
        epsg: the zone.
        step: of its time.
        window: what its finest level covers.
        level: of its pyramid.
        of_crs: the pixels of a cube of one CRS; None in a UTM zone.
    """

    epsg: int
    step: int
    window: PixelWindow
    level: int = 0
    of_crs: Lattice | None = None

    @cached_property
    def lattice(self) -> Lattice:
        """The pixels of the finest level."""
        return self.of_crs or Lattice.of_zone(self.epsg)

    @cached_property
    def pixel(self) -> float:
        """Side of a pixel in the CRS's units."""
        return self.lattice.pixel * 2.0**self.level

    @cached_property
    def pixel_m(self) -> float:
        """Side of a pixel in metres."""
        return self.pixel * self.lattice.unit_m

    @cached_property
    def whole(self) -> PixelWindow:
        """What the level covers, in its own pixels from its upper left corner."""
        return PixelWindow(0, 0, -(-self.window.height >> self.level), -(-self.window.width >> self.level))

    def transform(self, part: PixelWindow) -> Affine:
        """Of a window in the level's own pixels."""
        left, _, _, top = self.lattice.bounds(self.window)
        size = self.pixel
        return Affine(size, 0, left + part.col * size, 0, -size, top - part.row * size)

    def seen_from(self, lattice: Lattice, target: PixelWindow) -> PixelWindow | None:
        """What of it a window of another lattice shows, with room for the kernel; None for nothing."""
        rows = np.linspace(-0.5, target.height - 0.5, _ALONG)
        cols = np.linspace(-0.5, target.width - 0.5, _ALONG)
        x, y = np.meshgrid(*lattice.centres(target, rows, cols))
        east, north = _between(lattice.crs, self.lattice.crs).transform(x, y)
        left, _, _, top = self.lattice.bounds(self.window)
        down, right = (top - north) / self.pixel, (self.lattice.unrolled(east) - left) / self.pixel
        if not (np.isfinite(down).all() and np.isfinite(right).all()):
            return None  # far from the zone
        first = [math.floor(axis.min()) - _AROUND_PX for axis in (down, right)]
        last = [math.ceil(axis.max()) + _AROUND_PX for axis in (down, right)]
        (row, col), whole = (max(0, at) for at in first), self.whole
        height, width = min(last[0], whole.height) - row, min(last[1], whole.width) - col
        return PixelWindow(row, col, height, width) if height > 0 and width > 0 else None


@lru_cache(maxsize=128)
def _between(crs: str, other: str) -> Transformer:
    return Transformer.from_crs(crs, other, always_xy=True)


#: Reads a variable of a view at its step of time: (bands, h, w) or (h, w) as stored, of a window in the level's own
#: pixels.
ReadPixels = Callable[[ZoneView, str, PixelWindow], NDArray[Any]]


def read_stored(cube: Cube) -> ReadPixels:
    """Reads the pixels of a cube."""

    def read(view: ZoneView, name: str, part: PixelWindow) -> NDArray[Any]:
        array = cube.array(view.epsg, name, view.level)
        if array.ndim == 3:
            array = held_whole(array, view.step, part, view.whole)
        return read_window(array, view.step, part, view.whole)

    return read


@dataclass(frozen=True)
class _Pixels:
    """A zone's pixels of a shard's ground, as stored.

    Attributes:
        view: where they are from.
        part: window in the level's own pixels.
        spectral: (12, h, w) by name: reflectance, and the standard deviation where there is one.
        kinds: (h, w) uint16, for each pixel the row of `labels` that it has; 0 where there is nothing.
        labels: (n, 2 or 3) uint16: source, quality, looks.
    """

    view: ZoneView
    part: PixelWindow
    spectral: Mapping[str, NDArray[np.uint16]]
    kinds: NDArray[np.uint16]
    labels: NDArray[np.uint16]


def warped_shard(
    cube: Cube,
    views: Sequence[ZoneView],
    lattice: Lattice,
    target: PixelWindow,
    resolution: Resolution,
    half_m: float,
    *,
    read: ReadPixels | None = None,
    bands: Sequence[int] | None = None,
    spectral: Sequence[str] = _SPECTRAL,
) -> ShardData | None:
    """The pixels of a rectangle of a lattice from a cube's zones; None where they show nothing.

    Reflectance is warped by cubic convolution, or is the mean of the pixels below where the target is coarser; its
    standard deviation is warped linearly, as an upper bound of what the mean of several pixels has. Quality, source
    and looks are the most frequent ones, each pixel's three from the same pixels. Where zones overlap, reflectance is
    their mean by weight, see `zone_weights`, and a pixel is labelled as in the zone that counts most.

    Args:
        cube: the zones' cube.
        views: the zones to look at.
        target: in the lattice's pixels.
        half_m: half the width in metres over which one zone goes over into another.
        read: how to read the cube; `read_stored` by default.
        bands: positions of those to make; all by default.
        spectral: variables with bands to make, as far as the cube has them; what is left out has no data.

    Raises:
        StoreError: the store refuses, or a chunk is damaged.
    """
    held = list(_read(cube, read or read_stored(cube), views, lattice, target, spectral))
    if not held:
        return None
    place = lattice, target
    labels = np.stack([_labels(pixels, place, resolution) for pixels in held])
    shown = labels[..., 0] > 0
    weights = [
        _weight(pixels, place, half_m, resolution, shows) if len(held) > 1 else np.float32(1)
        for pixels, shows in zip(held, shown, strict=True)
    ]
    chosen = _chosen(labels, shown, weights)
    with_std, with_looks = "reflectance_std" in held[0].spectral, labels.shape[-1] == 3
    wanted = range(len(BANDS)) if bands is None else bands
    size = target.height, target.width
    made = ShardData.empty(size, bands=len(wanted), with_std=with_std, with_looks=with_looks)
    made.source[:], made.quality[:] = chosen[..., 0], chosen[..., 1]
    if made.looks is not None:
        made.looks[:] = chosen[..., 2]
    if not made.quality.any():
        return None
    parts = list(zip(held, weights, shown, strict=True))
    coarse = resolution.coarse
    if "reflectance" in spectral:
        how = _MEAN if coarse else Resampling.cubic
        _blend(parts, "reflectance", wanted, made.reflectance, place, (how, 0, 1, 65535))
    if made.std is not None:
        how = _MEAN if coarse else Resampling.bilinear
        _blend(parts, "reflectance_std", wanted, made.std, place, (how, STD_FILL, 0, STD_FILL - 1))
    return made


def _labels(pixels: _Pixels, place: tuple[Lattice, PixelWindow], resolution: Resolution) -> NDArray[np.uint16]:
    """(h, w, 2 or 3) source, quality and looks of a zone in the target's pixels: where it has any."""
    lattice, target = place
    nearest = np.zeros((target.height, target.width), np.uint16)
    _warp(pixels.kinds, nearest, pixels, *place, Resampling.nearest, 0)
    if resolution.coarse:
        kinds = np.zeros_like(nearest)
        _warp(pixels.kinds, kinds, pixels, *place, Resampling.mode, 0)
        return pixels.labels[kinds]
    kinds = nearest.copy()
    for tile in _mixed(nearest):
        part = PixelWindow(target.row + tile[0].start, target.col + tile[1].start, *kinds[tile].shape)
        frequent = np.zeros_like(kinds[tile])
        _warp(pixels.kinds, frequent, pixels, lattice, part, Resampling.mode, 0)
        kinds[tile] = frequent
    # A pixel has reflectance where the one below its centre has.
    sources = pixels.labels[:, 0]
    return pixels.labels[np.where((sources[kinds] > 0) & (sources[nearest] > 0), kinds, nearest)]


def _mixed(kinds: NDArray[np.uint16]) -> Iterator[tuple[slice, slice]]:
    """The squares of an image whose pixels, and those around, are not all of one kind: only there the most frequent is
    another than the nearest, and GDAL takes twenty times as long to find it."""
    height, width = kinds.shape
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            rows, cols = slice(top, min(top + _TILE_PX, height)), slice(left, min(left + _TILE_PX, width))
            around = kinds[
                max(top - _KERNEL_PX, 0) : rows.stop + _KERNEL_PX, max(left - _KERNEL_PX, 0) : cols.stop + _KERNEL_PX
            ]
            if (around != around[0, 0]).any():
                yield rows, cols


def _weight(
    pixels: _Pixels,
    place: tuple[Lattice, PixelWindow],
    half_m: float,
    resolution: Resolution,
    shows: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """(h, w) how much a zone counts: by where it meets others, and less where its own data ends."""
    weight = np.asarray(zone_weights(*place, pixels.view.epsg, half_m), np.float32)
    if shows.all():
        return weight
    far = distance_transform_cdt(np.pad(shows, 1, constant_values=True), "chessboard")[1:-1, 1:-1]
    inside = 0 if resolution.coarse else _KERNEL_PX
    fade = np.clip((far - inside).astype(np.float32) / _FADE_PX, _LEAST, 1)
    return np.where(shows, weight * fade, np.float32(0))


def _chosen(
    labels: NDArray[np.uint16], shown: NDArray[np.bool_], weights: Sequence[NDArray[np.float32] | np.float32]
) -> NDArray[np.uint16]:
    """(h, w, n) of labels, (zones, h, w, n), those of the zone that counts most; of any that flags a pixel which none
    shows."""
    if len(labels) == 1:
        return labels[0]
    counts = np.stack([weight * shows for weight, shows in zip(weights, shown, strict=True)])
    flags = labels[..., 1] > 0
    best = np.where(shown.any(axis=0), counts.argmax(axis=0), flags.argmax(axis=0))
    return np.take_along_axis(labels, best[None, ..., None], axis=0)[0]


def _read(
    cube: Cube,
    read: ReadPixels,
    views: Sequence[ZoneView],
    lattice: Lattice,
    target: PixelWindow,
    spectral: Sequence[str],
) -> Iterator[_Pixels]:
    """The zones' pixels of a window's ground, of those that have any."""
    for view in views:
        part = view.seen_from(lattice, target)
        if part is None:
            continue
        quality = read(view, "quality", part)
        if not quality.any():
            continue
        names = cube.variables(view.epsg)
        flat = [read(view, "source", part), quality, *([read(view, "looks", part)] if "looks" in names else [])]
        kinds, labels = _kinds(flat)
        values = {name: read(view, name, part) for name in spectral if name in names}
        yield _Pixels(view, part, values, kinds, labels)


def _kinds(flat: Sequence[NDArray[Any]]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For each pixel the number of its kind, 0 for nothing at all; and the labels of each kind."""
    code = np.zeros(flat[0].shape, np.int64)
    for values in flat:
        code = code << 16 | values
    codes, kinds = np.unique(code, return_inverse=True)
    if codes[0] != 0:
        codes, kinds = np.concatenate([[0], codes]), kinds + 1
    labels = [codes >> 16 * at & 0xFFFF for at in reversed(range(len(flat)))]
    return kinds.reshape(code.shape).astype(np.uint16), np.stack(labels, axis=-1).astype(np.uint16)


def _blend(
    parts: Sequence[tuple[_Pixels, NDArray[np.float32] | np.float32, NDArray[np.bool_]]],
    name: str,
    bands: Sequence[int],
    out: NDArray[np.uint16],
    place: tuple[Lattice, PixelWindow],
    values: tuple[Resampling, int, int, int],
) -> None:
    """Warp a variable, a few bands at a time, and take the mean of the zones by weight.

    Args:
        parts: each zone's pixels, its weight, and where it shows something, (h, w).
        bands: positions of the bands to make.
        out: (bands, h, w), filled with what stands for no data.
        values: how to warp; what stands for no data; the smallest and the largest value.
    """
    how, nodata, least, most = values
    size = out.shape[1:]
    together = max(1, _TOGETHER_PX // (size[0] * size[1]))
    for first in range(0, len(bands), together):
        some = bands[first : first + together]
        total, weight = np.zeros((len(some), *size), np.float32), np.zeros((len(some), *size), np.float32)
        for pixels, counts, shows in parts:
            value = np.full(total.shape, np.nan, np.float32)
            _warp(pixels.spectral[name][list(some)], value, pixels, *place, how, nodata)
            share = np.where(shows & ~np.isnan(value), counts, np.float32(0))
            np.nan_to_num(value, copy=False)
            total += value * share
            weight += share
        valid = weight > 0
        np.divide(total, weight, out=total, where=valid)
        np.copyto(out[first : first + together], np.clip(np.rint(total), least, most).astype(np.uint16), where=valid)


def _warp(
    values: NDArray[Any],
    out: NDArray[Any],
    pixels: _Pixels,
    lattice: Lattice,
    target: PixelWindow,
    how: Resampling,
    nodata: int,
) -> None:
    box = lattice.geobox(target)
    # GDAL takes the ratio of both boxes for that of their pixels and, where one is turned against the other, widens the
    # kernel: at 20 degrees that would blur away a fifth of the finest detail.
    scale = min(1.0, pixels.view.pixel_m / (lattice.pixel * lattice.unit_m))
    kernel = {"XSCALE": scale, "YSCALE": scale} if how in (Resampling.cubic, Resampling.bilinear) else {}
    reproject(
        values,
        out,
        src_transform=pixels.view.transform(pixels.part),
        src_crs=pixels.view.lattice.crs,
        src_nodata=nodata,
        dst_transform=box.transform,
        dst_crs=lattice.crs,
        dst_nodata=math.nan if out.dtype.kind == "f" else 0,
        resampling=how,
        tolerance=_TOLERANCE_PX,
        **kernel,
    )


def warp_memory(grid: Grid, views: Sequence[PixelWindow], *, with_std: bool, with_looks: bool) -> int:
    """Most bytes that the arrays of a shard take: the zones' pixels, the new ones, and a dozen planes in between.

    Args:
        views: the windows that are read of each zone.
    """
    pixel = 2 * len(BANDS) * (2 if with_std else 1) + 3 + with_looks + 8 + 2
    side = grid.shard_px**2
    return sum(view.height * view.width for view in views) * pixel + side * (pixel + 12 * 4 * max(1, len(views)))
