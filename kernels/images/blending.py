"""Blending of overlapping chips: windows that add up to one, summed exactly, so that their order is irrelevant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Weights are integers in [0, 2¹⁵]: with 16-bit values every sum below is exact, hence independent of order.
WEIGHT_ONE = 1 << 15


def chip_window(size: int, overlap: int, margin: int) -> NDArray[np.int64]:
    """Weight of each pixel of a chip.

    Zero within `margin` pixels of the chip's edge, where the networks' receptive field leaves the chip; a raised cosine
    over the rest of the overlap; one inside. The windows of neighbouring chips (at a stride of size − overlap) add up
    to one, up to rounding of the integer weights.

    Args:
        size: side of the chip in pixels.
        overlap: pixels shared with a neighbour; at most half of `size`.
        margin: pixels at the edge that get no weight; less than half of `overlap`.

    Returns:
        (size, size) int64 in [0, WEIGHT_ONE].
    """
    if not 0 <= overlap <= size // 2:
        raise ValueError(f"overlap of {overlap} pixels: expected 0 to {size // 2} for a chip of {size}")
    if margin < 0 or (overlap and 2 * margin >= overlap):
        raise ValueError(f"margin of {margin} pixels: expected less than half of the overlap of {overlap}")
    ramp = overlap - 2 * margin
    profile = np.ones(size)
    if overlap:
        rise = np.sin((np.arange(ramp) + 0.5) / ramp * np.pi / 2) ** 2
        profile[:overlap] = np.concatenate([np.zeros(margin), rise, np.ones(margin)])
        profile[-overlap:] = profile[:overlap][::-1]
    return np.rint(np.outer(profile, profile) * WEIGHT_ONE).astype(np.int64)


@dataclass(frozen=True)
class Layer:
    """A chip to be blended with others.

    Attributes:
        values: (C, h, w) uint16.
        labels: whole numbers (quality, source, …), each (h / f, w / f): one for every f × f pixels.
        valid: (h / f, w / f) bool; pixels without data have no weight.
        at: (row, col) of its top left pixel in the target; may be negative.
        rank: its position among all chips, unique: decides between equal weights.
    """

    values: NDArray[np.uint16]
    labels: Sequence[NDArray[np.unsignedinteger[Any]]]
    valid: NDArray[np.bool_]
    at: tuple[int, int]
    rank: int


def blend(
    layers: Sequence[Layer],
    window: NDArray[np.int64],
    values: NDArray[np.uint16],
    labels: Sequence[NDArray[np.unsignedinteger[Any]]],
    fill: int = 0,
) -> None:
    """Blend chips into a target: Σ w·value / Σ w, rounded half up, independent of the order of the chips.

    Labels cannot be averaged: they follow the chip with the greatest weight, the lower rank among equals.

    The edges of the chips' windows divide the target into rectangles. In most of them only one chip has weight and is
    copied; the others are summed, rectangle by rectangle, within a core's cache.

    Args:
        layers: the chips; their parts outside the target are ignored.
        window: (h, w) weight of each pixel of a chip, in [0, WEIGHT_ONE].
        values: (C, H, W) uint16, written to; `fill` where nothing has weight.
        labels: the target of each of the chips' labels, (H, W), written to; 0 where nothing has weight.
        fill: value of pixels where nothing has weight.
    """
    weight = window.astype(np.uint32)
    rows, cols = _support(window.max(axis=1)), _support(window.max(axis=0))
    ordered = sorted(layers, key=lambda layer: layer.rank)
    for top, bottom in _cuts([layer.at[0] for layer in ordered], rows, values.shape[1]):
        across = [layer for layer in ordered if layer.at[0] + rows.start <= top < layer.at[0] + rows.stop]
        for left, right in _cuts([layer.at[1] for layer in across], cols, values.shape[2]):
            here = np.s_[top:bottom, left:right]
            pieces = [
                _Piece.of(layer, weight, (top, bottom), (left, right))
                for layer in across
                if layer.at[1] + cols.start <= left < layer.at[1] + cols.stop
            ]
            cell, marks = values[(slice(None), *here)], [target[here] for target in labels]
            if len(pieces) == 1:
                _copy(pieces[0], cell, marks, fill)
            else:
                _mix(pieces, cell, fill)
                _choose(pieces, marks)


def _support(weights: NDArray[np.int64]) -> slice:
    """From the first to the last position with weight."""
    places = np.flatnonzero(weights)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _cuts(starts: Sequence[int], support: slice, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the stretches of 0 … size between the edges of the chips' windows."""
    edges = {edge for start in starts for edge in (start + support.start, start + support.stop)}
    return pairwise(sorted({0, size, *(edge for edge in edges if 0 < edge < size)}))


class _Piece(NamedTuple):
    """A chip's part of a rectangle, all (…, h, w): values, weights with those of pixels without data at 0, labels."""

    values: NDArray[np.uint16]
    weight: NDArray[np.uint32]
    labels: list[NDArray[np.unsignedinteger[Any]]]

    @classmethod
    def of(cls, layer: Layer, weight: NDArray[np.uint32], rows: tuple[int, int], cols: tuple[int, int]) -> _Piece:
        (row, col), factor = layer.at, layer.values.shape[1] // layer.valid.shape[0]
        there = slice(rows[0] - row, rows[1] - row), slice(cols[0] - col, cols[1] - col)
        part = _Part(there, factor)
        weight = weight[there]
        if not layer.valid[part.coarse].all():
            weight = weight * part.spread(layer.valid)
        return cls(layer.values[(slice(None), *there)], weight, [part.spread(label) for label in layer.labels])


class _Part:
    """A part, given in pixels, of arrays of one number for every factor × factor pixels."""

    def __init__(self, there: tuple[slice, slice], factor: int) -> None:
        self.coarse = tuple(slice(part.start // factor, (part.stop - 1) // factor + 1) for part in there)
        self._rows, self._cols = (np.arange(part.start, part.stop) // factor - part.start // factor for part in there)

    def spread(self, coarse: NDArray[Any]) -> NDArray[Any]:
        """The part's numbers, one a pixel, (h, w)."""
        return coarse[self.coarse].take(self._cols, axis=1).take(self._rows, axis=0)


def _copy(piece: _Piece, values: NDArray[np.uint16], labels: list[NDArray[Any]], fill: int) -> None:
    """A rectangle of one chip."""
    shown = piece.weight > 0
    if shown.all():
        values[...] = piece.values
        for target, label in zip(labels, piece.labels, strict=True):
            target[...] = label
    else:
        values[...] = np.where(shown, piece.values, np.uint16(fill))
        for target, label in zip(labels, piece.labels, strict=True):
            target[...] = label * shown


def _mix(pieces: list[_Piece], values: NDArray[np.uint16], fill: int) -> None:
    """A rectangle of several chips, or of none.

    With T = Σ w·value and W = Σ w the result is (T + ⌊W/2⌋) // W, which is T / W rounded half up: where W is odd, T / W
    never lies half way. Where W ≤ 2¹⁶, as where windows add up to one, 32 bits are enough:
    T + ⌊W/2⌋ ≤ 2¹⁶ · (2¹⁶ − 1) + 2¹⁵ < 2³².
    """
    summed = np.zeros(values.shape[1:], np.int64)
    for piece in pieces:
        summed += piece.weight
    least, most = int(summed.min()), int(summed.max())
    if most == 0:
        values[...] = fill
        return
    dtype = np.uint32 if most <= 2 * WEIGHT_ONE else np.uint64
    # Most rectangles have one divisor everywhere: a scalar, or a shift where windows add up to one. Both are faster.
    divisor = dtype(most) if least == most else np.maximum(summed, 1).astype(dtype)
    shift = most.bit_length() - 1 if least == most and most.bit_count() == 1 else None
    half: Any = np.floor_divide(divisor, 2, dtype=dtype)
    weights = [np.ascontiguousarray(piece.weight, dtype) for piece in pieces]
    total, product = np.empty(summed.shape, dtype), np.empty(summed.shape, dtype)
    for band, out in enumerate(values):
        total[...] = pieces[0].values[band]
        total *= weights[0]
        for piece, weight in zip(pieces[1:], weights[1:], strict=True):
            product[...] = piece.values[band]
            product *= weight
            total += product
        total += half
        if shift is None:
            total //= divisor
        else:
            total >>= dtype(shift)
        out[...] = total
    if least == 0:
        values[:, summed == 0] = fill


def _choose(pieces: list[_Piece], labels: list[NDArray[Any]]) -> None:
    """Each pixel's labels, from the chip with the greatest weight; in order of rank, so that the first wins a tie."""
    if not labels:
        return
    for target in labels:
        target[...] = 0
    strongest = np.zeros(labels[0].shape, np.uint32)
    for piece in pieces:
        stronger = piece.weight > strongest
        np.copyto(strongest, piece.weight, where=stronger)
        for target, label in zip(labels, piece.labels, strict=True):
            np.copyto(target, label, where=stronger)
