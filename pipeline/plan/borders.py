"""Which date each chip takes so that dates change seldom from chip to chip: a Potts model over the lattice.

Every chip has a cost for each date, what the date fails to show of it, and every side of a chip across which the date
changes costs the same again and again. The least sum is sought by min-sum belief propagation (Felzenszwalb and
Huttenlocher 2006, https://doi.org/10.1007/s11263-006-7899-4), then by turns made better chip by chip (iterated
conditional modes, Besag 1986) and region by region. Whole numbers throughout: the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Cost of a date that a chip does not have.
NEVER = 1 << 24


#: Rounds of messages: a chip's choice is felt so many chips away.
_ROUNDS = 40


#: Turns of improving at most; a few are enough.
_TURNS = 50


def choose_dates(cost: NDArray[np.int32], border: int, above: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """A date for every chip of a block of the lattice.

    Args:
        cost: (dates, rows, cols) int32, `NEVER` where a chip lacks a date.
        border: cost of one side between chips of different dates.
        above: (cols,) dates of the row above the block, which are settled; −1 where there is no chip.

    Returns:
        (rows, cols) int32 positions along `cost`'s first axis, −1 where a chip has no date at all.
    """
    present: NDArray[np.bool_] = np.any(cost < NEVER, axis=0)
    # What is settled above costs a date of the first row as much as any border.
    cost = cost.copy()
    if above is not None:
        other = np.arange(len(cost))[:, None] != above[None, :]
        cost[:, 0] += np.where(other & (above >= 0), border, 0).astype(np.int32)
    plain = np.where(present, cost.argmin(axis=0), -1).astype(np.int32)
    starts = [plain, np.where(present, _believed(cost, border, present), -1).astype(np.int32)]
    return min((_improve(cost, border, start) for start in starts), key=lambda dates: energy(cost, border, dates))


def energy(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> int:
    """What a choice of dates costs."""
    here = dates >= 0
    rows, cols = np.nonzero(here)
    return int(cost[dates[here], rows, cols].sum(dtype=np.int64)) + border * count_borders(dates)


def count_borders(dates: NDArray[np.int32]) -> int:
    """Sides between chips of different dates; −1 is no chip."""
    down = (dates[1:] != dates[:-1]) & (dates[1:] >= 0) & (dates[:-1] >= 0)
    across = (dates[:, 1:] != dates[:, :-1]) & (dates[:, 1:] >= 0) & (dates[:, :-1] >= 0)
    return int(down.sum() + across.sum())


def _believed(cost: NDArray[np.int32], border: int, present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The date of least belief after some rounds of messages between neighbours."""
    from_above, from_below, from_left, from_right = (np.zeros_like(cost) for _ in range(4))
    vertical = present[1:] & present[:-1]
    horizontal = present[:, 1:] & present[:, :-1]
    for _ in range(_ROUNDS):
        belief = cost + from_above + from_below + from_left + from_right
        down = _message(belief - from_below, border)
        up = _message(belief - from_above, border)
        right = _message(belief - from_right, border)
        left = _message(belief - from_left, border)
        # Half of the old message stays: without that, messages run in circles.
        from_above[:, 1:] = (from_above[:, 1:] + np.where(vertical, down[:, :-1], 0)) >> 1
        from_below[:, :-1] = (from_below[:, :-1] + np.where(vertical, up[:, 1:], 0)) >> 1
        from_left[:, :, 1:] = (from_left[:, :, 1:] + np.where(horizontal, right[:, :, :-1], 0)) >> 1
        from_right[:, :, :-1] = (from_right[:, :, :-1] + np.where(horizontal, left[:, :, 1:], 0)) >> 1
    belief = cost + from_above + from_below + from_left + from_right
    return belief.argmin(axis=0)


def _message(belief: NDArray[np.int32], border: int) -> NDArray[np.int32]:
    """What a chip tells a neighbour of each date: its own cost of it, at most that of changing at the border."""
    least = belief.min(axis=0)
    return np.minimum(belief - least, border)


def _improve(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Single chips and whole regions take better dates by turns, until neither helps."""
    for _ in range(_TURNS):
        dates = _settle(cost, border, dates)
        merged = _merge(cost, border, dates)
        if np.array_equal(merged, dates):
            break
        dates = merged
    return dates


def _settle(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every chip takes the date best for it beside its neighbours, black and white by turns, until none changes."""
    rows, cols = np.indices(dates.shape)
    dates = dates.copy()
    for turn in range(100):
        if turn % 2 == 0:
            before = dates.copy()
        padded = np.pad(dates, 1, constant_values=-1)
        total = cost.copy()
        for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
            differs = np.arange(len(cost))[:, None, None] != neighbour
            total += np.where(differs & (neighbour >= 0), border, 0).astype(np.int32)
        mine = (dates >= 0) & ((rows + cols) % 2 == turn % 2)
        best = total.argmin(axis=0)
        gain = np.take_along_axis(total, np.maximum(dates, 0)[None], axis=0)[0] - total.min(axis=0)
        dates = np.where(mine & (gain > 0), best, dates).astype(np.int32)
        if turn % 2 and np.array_equal(before, dates):
            break
    return dates


def _merge(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Regions of one date take the date of a neighbour where the whole costs less so.

    Of regions that touch only the one that gains most moves, so that gains add up.
    """
    region = _regions(dates, len(cost))
    count = int(region.max()) + 1
    if count < 2:
        return dates
    here = region >= 0
    price = np.zeros((len(cost), count), np.int64)
    for date, of_date in enumerate(cost):
        price[date] = np.bincount(region[here], of_date[here], count).astype(np.int64)
    one, other = _sides(region)
    of_region = np.zeros(count, np.int32)
    of_region[region[here]] = dates[here]
    spared = np.zeros((len(cost), count), np.int64)
    np.add.at(spared, (of_region[other], one), 1)
    change = price - price[of_region, np.arange(count)] - border * spared
    change[of_region, np.arange(count)] = 0
    gain = -change.min(axis=0)
    best_beside = np.zeros(count, np.int64)
    # Ties go to the region that comes first.
    order = gain * count - np.arange(count)
    np.maximum.at(best_beside, one, order[other])
    moves = (gain > 0) & (order > best_beside)
    return np.where(here & moves[region], change.argmin(axis=0)[region], dates).astype(np.int32)


def _regions(dates: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Number of the region of one date that a chip belongs to, −1 for no chip."""
    region = np.full(dates.shape, -1, np.int32)
    total = 0
    for date in range(count):
        labelled, found = ndimage.label(dates == date)
        region = np.where(labelled > 0, labelled + total - 1, region).astype(np.int32)
        total += found
    return region


def _sides(region: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Both ways, the regions on either side of each side of a chip where they differ."""
    pairs = [(region[1:], region[:-1]), (region[:, 1:], region[:, :-1])]
    one = np.concatenate([a[(a != b) & (a >= 0) & (b >= 0)] for a, b in pairs])
    other = np.concatenate([b[(a != b) & (a >= 0) & (b >= 0)] for a, b in pairs])
    return np.concatenate([one, other]), np.concatenate([other, one])
