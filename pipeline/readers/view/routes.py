"""What requests may ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from fastapi import HTTPException

from difffusr.pipeline.readers.view.layers import Layer
from difffusr.pipeline.readers.view.levels import Bounds
from difffusr.pipeline.readers.view.tiles import ZOOMS

T = TypeVar("T")


def check_known(what: str, name: str, known: Mapping[str, T]) -> T:
    """What has a name, else an answer that lists the names."""
    if name not in known:
        raise HTTPException(404, f"there is no {what} {name!r}; there are {', '.join(known)}")
    return known[name]


def check_tile(z: int, x: int, y: int) -> None:
    """Refuse tiles that do not exist."""
    if z not in ZOOMS:
        raise HTTPException(404, f"there is no zoom {z}; there are {ZOOMS[0]} to {ZOOMS[-1]}")
    if not (0 <= x < 2**z and 0 <= y < 2**z):
        raise HTTPException(404, f"there is no tile {x}, {y} at zoom {z}")


def check_degrees(west: float, south: float, east: float, north: float) -> Bounds:
    """The edges of a view, if they are numbers."""
    if not all(map(math.isfinite, (west, south, east, north))):
        raise HTTPException(422, "west, south, east, north: expected degrees")
    return west, south, east, north


def range_given(layer: Layer, low: float | None, high: float | None) -> tuple[float, float]:
    """The range to draw: as asked for, else the layer's."""
    low, high = layer.low if low is None else low, layer.high if high is None else high
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise HTTPException(422, f"low and high: found {low:g} and {high:g}, expected low below high")
    return low, high
