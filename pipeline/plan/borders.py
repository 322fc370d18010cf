"""Which date each chip takes so that dates seldom change from chip to chip: a Potts model over the lattice.

Every chip has a cost for each date (the share that the date does not show clear), and every side between chips of
different dates has a fixed cost. The sum is minimised by min-sum belief propagation (Felzenszwalb and Huttenlocher
2006, https://doi.org/10.1007/s11263-006-7899-4), then improved in turns chip by chip (iterated conditional modes, Besag
1986) and region by region. All numbers are integers, so the result is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Cost of a date that a chip does not have.
NEVER = 1 << 24

#: Rounds of messages: how many chips away a chip's choice has influence.
_ROUNDS = 40

#: Most turns of improvement; a few are enough.
_TURNS = 50


def choose_dates(cost: NDArray[np.int32], border: int, above: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """A date for every chip of a block of the lattice.

    Args:
        cost: (dates, rows, cols) int32, `NEVER` where a chip lacks a date.
        border: cost of one side between chips of different dates.
        above: (cols,) dates of the row above the block, already decided; −1 where there is no chip.

    Returns:
        (rows, cols) int32 positions along `cost`'s first axis, −1 where a chip has no date at all.
    """
    present: NDArray[np.bool_] = np.any(cost < NEVER, axis=0)
    # A date of the first row that differs from the one decided above it costs one border.
    cost = cost.copy()
    if above is not None:
        other = np.arange(len(cost))[:, None] != above[None, :]
        cost[:, 0] += np.where(other & (above >= 0), border, 0).astype(np.int32)
    plain = np.where(present, cost.argmin(axis=0), -1).astype(np.int32)
    starts = [plain, np.where(present, _believed(cost, border, present), -1).astype(np.int32)]
    return min((_improve(cost, border, start) for start in starts), key=lambda dates: energy(cost, border, dates))


def energy(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> int:
    """Total cost of a choice of dates."""
    here = dates >= 0
    rows, cols = np.nonzero(here)
    return int(cost[dates[here], rows, cols].sum(dtype=np.int64)) + border * count_borders(dates)


def count_borders(dates: NDArray[np.int32]) -> int:
    """Sides between chips of different dates; −1 is no chip."""
    down = (dates[1:] != dates[:-1]) & (dates[1:] >= 0) & (dates[:-1] >= 0)
    across = (dates[:, 1:] != dates[:, :-1]) & (dates[:, 1:] >= 0) & (dates[:, :-1] >= 0)
    return int(down.sum() + across.sum())


def _believed(cost: NDArray[np.int32], border: int, present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The cheapest date of each chip after `_ROUNDS` of messages between neighbours."""
    from_above, from_below, from_left, from_right = (np.zeros_like(cost) for _ in range(4))
    vertical = present[1:] & present[:-1]
    horizontal = present[:, 1:] & present[:, :-1]
    for _ in range(_ROUNDS):
        belief = cost + from_above + from_below + from_left + from_right
        down = _message(belief - from_below, border)
        up = _message(belief - from_above, border)
        right = _message(belief - from_right, border)
        left = _message(belief - from_left, border)
        # Half of the old message is kept; otherwise messages oscillate.
        from_above[:, 1:] = (from_above[:, 1:] + np.where(vertical, down[:, :-1], 0)) >> 1
        from_below[:, :-1] = (from_below[:, :-1] + np.where(vertical, up[:, 1:], 0)) >> 1
        from_left[:, :, 1:] = (from_left[:, :, 1:] + np.where(horizontal, right[:, :, :-1], 0)) >> 1
        from_right[:, :, :-1] = (from_right[:, :, :-1] + np.where(horizontal, left[:, :, 1:], 0)) >> 1
    belief = cost + from_above + from_below + from_left + from_right
    return belief.argmin(axis=0)


def _message(belief: NDArray[np.int32], border: int) -> NDArray[np.int32]:
    """What a chip tells a neighbour about each date: its own extra cost, at most the cost of a border."""
    least = belief.min(axis=0)
    return np.minimum(belief - least, border)


def _improve(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Improve single chips and whole regions in turns, until neither helps."""
    for _ in range(_TURNS):
        dates = _settle(cost, border, dates)
        merged = _merge(cost, border, dates)
        if np.array_equal(merged, dates):
            break
        dates = merged
    return dates


def _settle(cost: NDArray[np.int32], border: int, dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every chip takes the best date given its neighbours', in turns over a chessboard, until none changes."""
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
    """Regions of one date take a neighbour's date where that lowers the total cost.

    Of regions that touch, only the one that gains most changes, so that gains add up.
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
    """The number of each chip's region of one date, −1 for no chip."""
    region = np.full(dates.shape, -1, np.int32)
    total = 0
    for date in range(count):
        labelled, found = ndimage.label(dates == date)
        region = np.where(labelled > 0, labelled + total - 1, region).astype(np.int32)
        total += found
    return region


def _sides(region: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The two regions at each side where regions meet, in both orders."""
    pairs = [(region[1:], region[:-1]), (region[:, 1:], region[:, :-1])]
    one = np.concatenate([a[(a != b) & (a >= 0) & (b >= 0)] for a, b in pairs])
    other = np.concatenate([b[(a != b) & (a >= 0) & (b >= 0)] for a, b in pairs])
    return np.concatenate([one, other]), np.concatenate([other, one])
