"""Names of chips and shards: zone, row and column, as staged objects, the ledger and messages write them.

Resuming finds what is done by these names alone: their format must never change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Hexadecimal digits of a content key or digest that the name of an object holds, and the bytes that they stand for.
NAME_DIGITS, NAME_BYTES = 20, 10

_PLACE = "%d/%d_%d"
_OVERVIEW = "%d/%d/%d_%d"
_STAGED = "%s-%s.chip"
_STAGED_PLACE = _STAGED % (_PLACE, "%s")

_PARSED = re.compile(r"(\d+)/(?:(\d+)/)?(-?\d+)_(-?\d+)")
_OF_CHIP = re.compile(rf"\d+/-?\d+_-?\d+-[0-9a-f]{{{NAME_DIGITS}}}\.chip", re.ASCII)
_PARSED_STAGED = re.compile(rf"(.+)-([0-9a-f]{{{NAME_DIGITS}}})\.chip")


@dataclass(frozen=True, order=True)
class PlaceName:
    """Name of a chip, of a shard, or of a shard of an overview. `str` writes it, `parse` reads it.

    Attributes:
        epsg: the zone.
        row, col: place on the lattice; of a shard of an overview, from the zone's top left corner.
        level: of an overview's shard, 1 for 5 m and so on; else None.
    """

    epsg: int
    row: int
    col: int
    level: int | None = None

    def __str__(self) -> str:
        if self.level is None:
            return _PLACE % (self.epsg, self.row, self.col)
        return _OVERVIEW % (self.epsg, self.level, self.row, self.col)

    @classmethod
    def parse(cls, text: str) -> PlaceName:
        """The place that a name stands for.

        Raises:
            ValueError: it is not such a name.
        """
        match = _PARSED.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r}: expected zone/row_col or zone/level/row_col")
        epsg, level, row, col = match.groups()
        return cls(int(epsg), int(row), int(col), None if level is None else int(level))

    def staged(self, key: str) -> str:
        """Name of the staged object of a chip with this content key (hexadecimal; its first 20 digits count)."""
        return _STAGED % (self, key[:NAME_DIGITS])

    @classmethod
    def parse_staged(cls, object_name: str) -> tuple[PlaceName, str]:
        """The chip and the first 20 digits of the content key that a staged object's name stands for.

        Raises:
            ValueError: it is not such a name.
        """
        match = _PARSED_STAGED.fullmatch(object_name)
        if match is None:
            raise ValueError(f"{object_name!r}: expected zone/row_col-key.chip")
        return cls.parse(match[1]), match[2]


def is_staged_name(object_name: str) -> bool:
    """Whether an object's name is that of a staged chip."""
    return _OF_CHIP.fullmatch(object_name) is not None


def place_names(epsg: NDArray[np.int32], row: NDArray[np.int32], col: NDArray[np.int32]) -> list[str]:
    """`str` of the `PlaceName` of every row of three (n,) columns, for millions of them."""
    return _formatted(_PLACE, zip(epsg.tolist(), row.tolist(), col.tolist(), strict=True))


def staged_names(
    epsg: NDArray[np.int32], row: NDArray[np.int32], col: NDArray[np.int32], key: NDArray[np.uint8]
) -> list[str]:
    """`PlaceName.staged` of every row of three (n,) columns and the (n, 10 or more) bytes of the content keys."""
    digits = np.ascontiguousarray(key[:, :NAME_BYTES]).tobytes().hex()
    keys = (digits[start : start + NAME_DIGITS] for start in range(0, len(digits), NAME_DIGITS))
    return _formatted(_STAGED_PLACE, zip(epsg.tolist(), row.tolist(), col.tolist(), keys, strict=True))


def _formatted(pattern: str, values: Iterable[tuple[object, ...]]) -> list[str]:
    return list(map(pattern.__mod__, values))
