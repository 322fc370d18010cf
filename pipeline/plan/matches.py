"""Chips and shards of two plans, matched by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.plan.tables import Chips, Shards


@dataclass(frozen=True)
class Fate:
    """How many chips or shards are unchanged, added, removed and changed."""

    unchanged: int
    added: int
    removed: int
    changed: int

    @property
    def touched(self) -> int:
        """How many to compute or write."""
        return self.added + self.changed


@dataclass(frozen=True, eq=False)
class Match:
    """Which rows of an old and of a new table are the same place.

    Attributes:
        old, new: (k,) positions of each pair, ascending.
        changed: (k,) bool, whether the pair's content keys differ.
        old_rows, new_rows: lengths of the tables.
    """

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    changed: NDArray[np.bool_]
    old_rows: int
    new_rows: int

    @classmethod
    def of(cls, old: Chips | Shards, new: Chips | Shards, same_lattice: bool) -> Match:
        if not same_lattice:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros(0, bool), len(old), len(new))
        _, one, other = np.intersect1d(_places(old), _places(new), assume_unique=True, return_indices=True)
        changed = (old.key[one] != new.key[other]).any(axis=1)
        return cls(one, other, changed, len(old), len(new))

    def fate(self) -> Fate:
        changed = int(self.changed.sum())
        pairs = len(self.changed)
        return Fate(pairs - changed, self.new_rows - pairs, self.old_rows - pairs, changed)

    def added(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.new_rows), self.new, assume_unique=True)

    def removed(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.old_rows), self.old, assume_unique=True)

    def touched(self) -> NDArray[np.bool_]:
        """(new_rows,) bool: added or changed."""
        out = np.ones(self.new_rows, bool)
        out[self.new[~self.changed]] = False
        return out


def _places(table: Chips | Shards) -> NDArray[np.int64]:
    """Zone, row and column as one number: 15, 24 and 24 bits."""
    middle = 1 << 23
    row, col = table.row.astype(np.int64) + middle, table.col.astype(np.int64) + middle
    return (table.epsg.astype(np.int64) << 48) | (row << 24) | col
