"""A cube of UTM zones as the source of one in a single CRS: what it has of a period, and which of it where."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.assemble import Ledger
from difffusr.pipeline.assemble.continent.meeting import blend_half_m
from difffusr.pipeline.assemble.continent.warping import ZoneView
from difffusr.pipeline.config import RunConfig, staging_beside
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Lattice, PlaceName, cut_at_180, origin_m
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.publish import states_seen
from difffusr.pipeline.storage import Storage

#: Points along each side of a shard that make its outline in another CRS.
_ALONG = 4

#: Source pixels beyond a shard's edge whose values it has a part in, and one for edges that bend.
_REACH_PX = 3

#: Shards whose outlines are compared at a time.
_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class SourcePeriod:
    """A period of a cube of UTM zones.

    Attributes:
        cube: the cube.
        label: the period's.
        views: its zones, by EPSG code.
        epsg, row, col: (n,) int32 its shards, in lattice order, by zone.
        digests: of each shard.
        shard_px: their side.
        half_m: half the width in metres over which zones may go over into each other.
    """

    cube: Cube
    label: str
    views: Mapping[int, ZoneView]
    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    digests: Sequence[str]
    shard_px: int
    half_m: float

    @cached_property
    def state(self) -> str:
        """What the cube was when it was planned."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    @classmethod
    def of(cls, config: RunConfig) -> SourcePeriod:
        """The period of a configuration, of the cube that it names as its source.

        Raises:
            ConfigError: the cube lacks the period, is itself of one CRS, or its staging folder is not there.
            StoreError: the cube or its staging folder cannot be read.
        """
        storage, staging = source_places(config)
        cube, label = Cube(storage), config.period.label
        if any(cube.of_crs(epsg) for epsg in cube.zones):
            raise ConfigError(
                f"source.cube: {storage.url} is itself a cube of one CRS; give the one that it is made of"
            )
        steps = {epsg: cube.periods(epsg) for epsg in cube.zones}
        there = {epsg: step[0] for epsg, known in steps.items() if (step := known.get(label)) is not None}
        if not there:
            known = ", ".join(sorted({name for of_zone in steps.values() for name in of_zone}))
            raise ConfigError(f"period: {storage.url} has no {label}; it has {known}")
        ledger, states = Ledger.read(staging.child(f"runs/{label}")), states_seen(storage)
        seen = {epsg: states(cube.lineage(epsg)) for epsg in there}
        found: list[tuple[int, int, int, str]] = []
        for name in ledger.entries:
            place = PlaceName.parse(name)
            entry = ledger.latest(name, seen[place.epsg]) if place.epsg in seen else None
            if entry is not None:
                found.append((place.epsg, place.row, place.col, entry.digest))
        if not found:
            raise ConfigError(
                f"source.staging: {staging.url} does not say what {storage.url} has of {label}; name that cube's "
                "staging folder: its ledger says which shards there are"
            )
        found.sort()
        epsg, row, col = (np.array(values, np.int32) for values in list(zip(*found, strict=True))[:3])
        views = {code: ZoneView(code, step, cube.window(code)) for code, step in there.items()}
        digests = [digest for *_, digest in found]
        return cls(cube, label, views, epsg, row, col, digests, cube.grid_px(next(iter(there)))[0], blend_half_m(cube))


def source_places(config: RunConfig) -> tuple[Storage, Storage]:
    """The cube that a configuration names as its source, and its staging folder."""
    url, options = config.source.cube, config.store.storage_options
    if url is None:
        raise ConfigError("source.cube: found null, expected the path or URL of a cube")
    return Storage(url, options), Storage(config.source.staging or staging_beside(url), options)


def touching(
    lattice: Lattice,
    shard_px: int,
    epsg: NDArray[np.int32],
    row: NDArray[np.int32],
    col: NDArray[np.int32],
    source_px: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Every pair of a shard of a lattice and a shard of a zone that has a part in its pixels: (k,) row, (k,) column,
    and (k,) position of the zone's shard; in no order.

    Args:
        shard_px: side of the lattice's shards.
        epsg, row, col: (n,) of the zones' shards.
        source_px: their side.
    """
    found = []
    for code in np.unique(epsg).tolist():
        of_zone = np.flatnonzero(epsg == code)
        for start in range(0, len(of_zone), _AT_ONCE):
            here = of_zone[start : start + _AT_ONCE]
            outlines = outlines_in(lattice, code, row[here], col[here], source_px)
            # A pixel more: of coarser levels, one of theirs may lie across a shard's edge.
            reach = _REACH_PX * TARGET_GSD_M / lattice.unit_m / lattice.pixel + 1
            rows, cols, members = _pairs(outlines, shard_px, reach)
            found.append((rows, cols, here[members]))
    if not found:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64)
    rows, cols, members = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows.astype(np.int32), cols.astype(np.int32), members.astype(np.int64)


def outlines_in(
    lattice: Lattice, epsg: int, row: NDArray[np.int32], col: NDArray[np.int32], side_px: int
) -> NDArray[np.float64]:
    """(n, m, 2) outlines of shards of a zone: column and row in pixels of a lattice, as real numbers."""
    down, right = _ring()
    side = side_px * TARGET_GSD_M
    x = (col[:, None] + right) * side
    y = origin_m(epsg) - (row[:, None] + down) * side
    to_lattice = Transformer.from_crs(f"EPSG:{epsg}", lattice.crs, always_xy=True)
    east, north = to_lattice.transform(x, y)
    if lattice.is_geographic:
        east = lattice.unrolled(east)
    return np.stack([east / lattice.pixel, (lattice.origin - north) / lattice.pixel], axis=-1)


def _ring() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places down and to the right along the outline of a square of side 1, from its upper left corner."""
    along = np.arange(_ALONG) / _ALONG
    ones, zeros = np.ones(_ALONG), np.zeros(_ALONG)
    return np.concatenate([zeros, along, ones, 1 - along]), np.concatenate([along, ones, 1 - along, zeros])


def _pairs(
    outlines: NDArray[np.float64], side: int, reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, column and outline of each square of a side that an outline, grown by `reach`, shares ground with."""
    low = np.floor((outlines.min(axis=1) - reach) / side).astype(np.int64)
    high = np.floor((outlines.max(axis=1) + reach) / side).astype(np.int64)
    across, down = (high - low + 1).T
    member = np.repeat(np.arange(len(outlines)), across * down)
    nth = np.arange(len(member)) - np.repeat(np.cumsum(across * down) - across * down, across * down)
    col, row = low[member, 0] + nth % across[member], low[member, 1] + nth // across[member]
    boxes = shapely.box(col * side - reach, row * side - reach, (col + 1) * side + reach, (row + 1) * side + reach)
    meets = shapely.intersects(shapely.polygons(outlines)[member], boxes)
    return row[meets], col[meets], member[meets]


def all_places(source: SourcePeriod, lattice: Lattice, shard_px: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and columns of all shards of a lattice that the zones' windows can have a part in, whatever they hold now:
    the extent of a cube of one CRS, which stays the same from period to period."""
    places = []
    for code, view in source.views.items():
        window, side = view.window, source.shard_px
        first, left = window.row // side, window.col // side
        place = np.mgrid[first : window.row_stop // side, left : window.col_stop // side].astype(np.int32)
        places.append((np.full(place[0].size, code, np.int32), place[0].ravel(), place[1].ravel()))
    epsg, row, col = (np.concatenate(parts) for parts in zip(*places, strict=True))
    rows, cols, _ = touching(lattice, shard_px, epsg, row, col, source.shard_px)
    both = np.unique(np.stack([rows, cols]), axis=1)
    return both[0], both[1]


def windows_in_degrees(
    lattice: Lattice, row: NDArray[np.int32], col: NDArray[np.int32], side_px: int
) -> NDArray[np.object_]:
    """Shards of a lattice as polygons in longitude and latitude, cut at 180°."""
    down, right = _ring()
    side = side_px * lattice.pixel
    x = (col[:, None] + right) * side
    y = lattice.origin - (row[:, None] + down) * side
    lon, lat = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True).transform(x, y)
    shapes: NDArray[np.object_] = shapely.polygons(np.stack([lon, lat], axis=-1))
    wide = (np.ptp(lon, axis=1) > 180) | (np.abs(lon) > 180).any(axis=1)
    for i in np.flatnonzero(wide):
        shapes[i] = cut_at_180(shapes[i])
    return shapes
