"""A plan in memory: tables of the chips and shards of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.geo import ChipIndex, Grid, PixelWindow, PlaceName, ShardIndex, place_names, staged_names
from difffusr.pipeline.plan.balance import Balanced
from difffusr.pipeline.scenes import Scene

if TYPE_CHECKING:
    import geopandas as gpd

#: Bytes of a content key (sha256).
KEY_BYTES = 32


@dataclass(frozen=True)
class ChipPlan:
    """One chip to compute.

    Attributes:
        epsg: its zone.
        index: its place on the zone's lattice.
        scenes: ids of the scenes to use, best first.
        covered: share of the chip that its scenes cover, 0 … 1.
        clear: share that they cover without cloud, 0 … 1.
        key: hash of everything its pixels depend on, 64 hexadecimal digits.
    """

    epsg: int
    index: ChipIndex
    scenes: tuple[str, ...]
    covered: float
    clear: float
    key: str

    @property
    def name(self) -> str:
        """Zone, row and column, as staged objects and messages show them."""
        return str(PlaceName(self.epsg, *self.index))

    @property
    def object_name(self) -> str:
        """Name of the staged object: it exists exactly when the chip is done."""
        return PlaceName(self.epsg, *self.index).staged(self.key)


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write, and the chips it is blended from.

    Attributes:
        epsg: its zone.
        index: its place on the zone's lattice.
        chips: the chips that touch it, in lattice order.
        key: hash of everything its pixels depend on, 64 hexadecimal digits.
    """

    epsg: int
    index: ShardIndex
    chips: tuple[ChipPlan, ...]
    key: str

    @property
    def name(self) -> str:
        """Zone, row and column, as the ledger and messages show them."""
        return str(PlaceName(self.epsg, *self.index))


@dataclass(frozen=True, eq=False)
class Chips(Sequence[ChipPlan]):
    """All chips of a plan, one column per attribute: millions of chips fit in memory, which as many objects would not.

    Attributes:
        epsg, row, col: (n,) int32; rows of the table are ordered by them.
        scenes: (n, m) int32 positions in `scene_ids`, best first, −1 after the last.
        covered, clear: (n,) float32, 0 … 1.
        key: (n, 32) uint8 content keys.
        scene_ids: the ids that `scenes` points to.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    scenes: NDArray[np.int32]
    covered: NDArray[np.float32]
    clear: NDArray[np.float32]
    key: NDArray[np.uint8]
    scene_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, position: int) -> ChipPlan: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[ChipPlan]: ...
    def __getitem__(self, position: int | slice) -> ChipPlan | Sequence[ChipPlan]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        return ChipPlan(
            int(self.epsg[i]),
            ChipIndex(int(self.row[i]), int(self.col[i])),
            tuple(self.scene_ids[s] for s in self.scenes[i] if s >= 0),
            round(float(self.covered[i]), 4),
            round(float(self.clear[i]), 4),
            self.key[i].tobytes().hex(),
        )

    def object_names(self) -> list[str]:
        """Name of each chip's staged object."""
        return staged_names(self.epsg, self.row, self.col, self.key)


@dataclass(frozen=True, eq=False)
class Shards(Sequence[ShardPlan]):
    """All shards of a plan.

    Attributes:
        epsg, row, col: (n,) int32; rows of the table are ordered by them.
        first: (n + 1,) int64: shard i is blended from the chips at `members[first[i]:first[i + 1]]`.
        members: positions in `chips`, in lattice order within a shard.
        key: (n, 32) uint8 content keys.
        chips: the plan's chips.
    """

    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    first: NDArray[np.int64]
    members: NDArray[np.int32]
    key: NDArray[np.uint8]
    chips: Chips

    @classmethod
    def of(cls, chips: Chips, grid: Grid) -> Shards:
        """The shards that the chips touch."""
        place, members = _touching(chips, grid)
        order = np.lexsort((members, place[2], place[1], place[0]))
        place, members = place[:, order], members[order]
        begins = np.ones(len(members), bool)
        begins[1:] = (place[:, 1:] != place[:, :-1]).any(axis=0)
        first = np.append(np.flatnonzero(begins), len(members)).astype(np.int64)
        epsg, row, col = place[:, first[:-1]].astype(np.int32)
        size = grid.shard_px.to_bytes(8, "little")
        places = np.ascontiguousarray(np.stack([epsg, row, col], axis=1))
        keys = [
            hashlib.sha256(size + places[i].tobytes() + chips.key[members[first[i] : first[i + 1]]].tobytes()).digest()
            for i in range(len(epsg))
        ]
        key = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        return cls(epsg, row, col, first, members.astype(np.int32), key, chips)

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, position: int) -> ShardPlan: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[ShardPlan]: ...
    def __getitem__(self, position: int | slice) -> ShardPlan | Sequence[ShardPlan]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        chips = tuple(self.chips[int(m)] for m in self.members[self.first[i] : self.first[i + 1]])
        index = ShardIndex(int(self.row[i]), int(self.col[i]))
        return ShardPlan(int(self.epsg[i]), index, chips, self.key[i].tobytes().hex())

    def place(self, i: int) -> ShardIndex:
        """Place of the i-th shard."""
        return ShardIndex(int(self.row[i]), int(self.col[i]))

    def names(self) -> list[str]:
        """Zone, row and column of each shard, as the ledger names it."""
        return place_names(self.epsg, self.row, self.col)


def _touching(chips: Chips, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair of a shard and a chip that touches it: (3, k) zone, row and column, and (k,) position of the chip."""
    step, size, shard = grid.chip_step, grid.chip_side, grid.shard_px
    row, col = chips.row.astype(np.int64) * step, chips.col.astype(np.int64) * step
    top, left, bottom, right = row // shard, col // shard, (row + size - 1) // shard, (col + size - 1) // shard
    places, members = [], []
    for down in range(-(-size // shard) + 1):
        for across in range(-(-size // shard) + 1):
            here = np.flatnonzero((top + down <= bottom) & (left + across <= right))
            places.append(np.stack([chips.epsg[here].astype(np.int64), top[here] + down, left[here] + across]))
            members.append(here)
    return np.concatenate(places, axis=1), np.concatenate(members)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run will do, known before it does anything.

    Attributes:
        scenes: every scene that some chip uses, in order of id.
        chips, shards: in lattice order, by zone.
        manifest: JSON-able description: config, versions, content keys, shares.
        balance: what is done to the scenes, those that no chip uses included; None for nothing.
    """

    scenes: tuple[Scene, ...]
    chips: Chips
    shards: Shards
    manifest: Mapping[str, Any]
    balance: Balanced | None = None

    def zones(self) -> list[int]:
        """EPSG codes of the zones the plan touches, ascending."""
        return [int(epsg) for epsg in np.unique(self.shards.epsg)]

    def extent(self, epsg: int, grid: Grid) -> PixelWindow:
        """The window of whole shards that holds the plan's part of a zone."""
        here = self.shards.epsg == epsg
        return grid.shard_extent(self.shards.row[here].astype(np.int64), self.shards.col[here].astype(np.int64))


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """A plan read from disk: everything but what reading the scenes needs.

    Attributes:
        manifest: as in `Plan`.
        scenes: one row each: id, datetime, tile, epsg, baseline, cloud_cover, provider, version, chips, geometry; of
            scenes that are balanced `correction`, which identifies what is done to them, `gain` (12), `offset` (48: by
            band the four corners) and `shift` (12) in DN, `factor` (12): its mean, `angles`: where they are from,
            `before` and `after` (12): median absolute difference to the scenes that they overlap, DN; `hazy`.
        chips, shards: as in `Plan`.
    """

    manifest: Mapping[str, Any]
    scenes: gpd.GeoDataFrame
    chips: Chips
    shards: Shards


def iterate_zones(chips: Chips) -> Iterator[tuple[int, slice]]:
    """Each zone of a table and the rows that belong to it."""
    return zone_slices(chips.epsg)


def zone_slices(epsg: NDArray[np.int32]) -> Iterator[tuple[int, slice]]:
    """Each zone of a column that is ordered by zone, and its rows."""
    starts = np.flatnonzero(np.diff(epsg, prepend=-1))
    stops = np.append(starts[1:], len(epsg))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield int(epsg[start]), slice(start, stop)
