"""What the page draws: chips, or shards that stand for them, as columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.geo import GSD_10_M, Grid
from difffusr.pipeline.plan.pictures.colours import Dates
from difffusr.pipeline.plan.tables import Plan, StoredPlan


@dataclass(frozen=True, eq=False)
class Squares:
    """The squares of the map: chips, or shards that stand for them.

    Attributes:
        kind: "chip" or "shard".
        side_m, inset_m: a square's side, and where the first one begins, in metres of the zone.
        epsg, row, col: (n,) int32, by zone.
        date: (n,) uint16 position in `Dates.days`; of a shard, that of most of its chips.
        clear, covered: (n,) uint16, 1/10000.
        scenes: (n,) uint16, 1/100, of a shard the mean of its chips.
        chips: (n,) uint16.
        list: (n,) uint32 number of the list of scenes, best (of a shard: most used) first.
        first, members: list i has the scenes at `members[first[i]:first[i + 1]]`, positions in the plan's scenes.
    """

    kind: str
    side_m: float
    inset_m: float
    epsg: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    date: NDArray[np.uint16]
    clear: NDArray[np.uint16]
    covered: NDArray[np.uint16]
    scenes: NDArray[np.uint16]
    chips: NDArray[np.uint16]
    list: NDArray[np.uint32]
    first: NDArray[np.uint32]
    members: NDArray[np.uint32]

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of the page, by name."""
        names = ("row", "col", "date", "clear", "covered", "scenes", "list", "first", "members")
        return {name: getattr(self, name) for name in names} | {"chips_of": self.chips}


def squares_of_chips(plan: Plan | StoredPlan, grid: Grid, dates: Dates) -> Squares:
    chips = plan.chips
    used = chips.scenes >= 0
    lists, which = np.unique(chips.scenes, axis=0, return_inverse=True)
    lengths = (lists >= 0).sum(axis=1)
    return Squares(
        kind="chip",
        side_m=grid.stride_px * GSD_10_M,
        inset_m=grid.overlap_px * GSD_10_M / 2,
        epsg=chips.epsg,
        row=chips.row,
        col=chips.col,
        date=dates.of_chip.astype(np.uint16),
        clear=_ten_thousandths(chips.clear),
        covered=_ten_thousandths(chips.covered),
        scenes=(used.sum(axis=1) * 100).astype(np.uint16),
        chips=np.ones(len(chips), np.uint16),
        list=which.reshape(-1).astype(np.uint32),
        first=np.append(0, np.cumsum(lengths)).astype(np.uint32),
        members=lists[lists >= 0].astype(np.uint32),
    )


def squares_of_shards(plan: Plan | StoredPlan, grid: Grid, dates: Dates) -> Squares:
    """Each chip counts for the shard that contains its centre."""
    chips = plan.chips
    step, size = grid.chip_step, grid.chip_side
    row = (chips.row.astype(np.int64) * step + size // 2) // grid.shard_px
    col = (chips.col.astype(np.int64) * step + size // 2) // grid.shard_px
    order, first, shard = _groups(chips.epsg, row, col)
    count = np.bincount(shard)
    used = chips.scenes >= 0
    listed, members = _most_common(np.repeat(shard, used.sum(axis=1)), chips.scenes[used])
    dated, date = _most_common(shard, dates.of_chip)
    return Squares(
        kind="shard",
        side_m=grid.shard_px * TARGET_GSD_M,
        inset_m=0.0,
        epsg=chips.epsg[order[first]],
        row=row[order[first]].astype(np.int32),
        col=col[order[first]].astype(np.int32),
        date=date[np.flatnonzero(np.diff(dated, prepend=-1))].astype(np.uint16),
        clear=_ten_thousandths(np.bincount(shard, chips.clear) / count),
        covered=_ten_thousandths(np.bincount(shard, chips.covered) / count),
        scenes=np.round(np.bincount(shard, used.sum(axis=1)) / count * 100).astype(np.uint16),
        chips=np.minimum(count, 65_535).astype(np.uint16),
        list=np.arange(len(first), dtype=np.uint32),
        first=np.searchsorted(listed, np.arange(len(first) + 1)).astype(np.uint32),
        members=members.astype(np.uint32),
    )


def _groups(
    epsg: NDArray[np.int32], row: NDArray[np.int64], col: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An order by zone, row and column, where each group begins in it, and the group of every element."""
    order = np.lexsort((col, row, epsg))
    place = np.stack([epsg, row, col])[:, order]
    begins = np.ones(len(order), bool)
    begins[1:] = (place[:, 1:] != place[:, :-1]).any(axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(begins) - 1
    return order, np.flatnonzero(begins), group


def _most_common(group: NDArray[np.int64], value: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each group's distinct values, the most frequent first: (k,) groups ascending and (k,) values."""
    base = int(value.max(initial=0)) + 1
    pairs, counts = np.unique(group.astype(np.int64) * base + value, return_counts=True)
    groups, values = pairs // base, pairs % base
    order = np.lexsort((values, -counts, groups))
    return groups[order], values[order]


def _ten_thousandths(share: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Shares in 1/10000; a share above 0 is at least 1."""
    number = np.round(np.clip(share, 0, 1) * 10_000)
    return np.where(share > 0, np.maximum(number, 1), 0).astype(np.uint16)
