"""Seams between sources: steps across the borders of scenes in a cube, against steps inside one scene.

A border between two dates is no step from one pixel to the next: where chips overlap they are blended, and the border
is a ramp some tens of pixels wide; inside a chip it follows cells of 60 m. And it is small against the ground's
texture: 0.003 to 0.03 in reflectance, while neighbouring fields differ by 0.1. It shows because it goes on along the
whole border in the same direction. So that is measured:

1. Squares of 30 m at the same distance on both sides of a border are compared, beyond the ramp: their difference, with
   its sign, from the scene of the lower number to the other. Within a chip, where there is no ramp, they lie nearer.
2. The differences are averaged along the border, over at most one edge of a chip, without the highest and the lowest
   tenth (roads, edges of fields). Texture averages out; a difference between the scenes does not.
3. The absolute value of that is compared with those of the same pairs of squares moved sideways by multiples of 120 m,
   to where both squares lie within one scene: same length, distance and direction, near by, and in step with the
   period of the upsampled bands.

The ratio of the means over many borders is 1 where borders between scenes cannot be told from the ground. Each border
counts by its length and relative to the level of all its steps, those at the border and those beside it alike: a border
in a town, where all steps are large, counts no more than one in meadows. What has changed on the ground between two
dates (a harvested field) is part of it, as it is for the eye: it adds to single borders, and little to the mean over
many. Pixels under cloud and those that are not from the networks are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import SCALE
from difffusr.pipeline.geo import ChipIndex, Grid, PixelWindow
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.seams import Read

#: Side of the squares that are compared, in 2.5 m pixels. Borders of chips and of 60 m cells lie between squares.
SQUARE_PX: Final = 12

#: How far around a chip pixels are needed, in 2.5 m pixels.
REACH_PX: Final = 192

#: How far lines are moved, in squares; the odd multiples of 60 m only where none of 120 m is within one scene.
_MOVES: Final = (tuple(4 * i for i in range(-4, 5) if i), tuple(2 * i for i in range(-7, 8, 2)))

#: Squares between a border within a chip and those that are compared.
_GAP_IN_CHIP: Final = 1

#: Added to all steps in quadrature, DN: steps below 0.001 in reflectance count little, however smooth the ground is.
_FAINT: Final = 10.0


@dataclass(frozen=True, eq=False)
class SourceBorder:
    """A border between two scenes, at one sampled chip and in one direction.

    Attributes:
        epsg: its zone.
        sources: numbers of its scenes, the lower first.
        row, col: of its middle, in absolute 2.5 m pixels.
        squares: its length in squares of `SQUARE_PX`.
        moves: how often it was moved sideways.
        step, usual: (bands,) step averaged along the border, and along the moved ones (their mean), DN.
        seen, seen_usual: (bands,) the same with `_FAINT` added to every step.
    """

    epsg: int
    sources: tuple[int, int]
    row: float
    col: float
    squares: int
    moves: float
    step: NDArray[np.float64]
    usual: NDArray[np.float64]
    seen: NDArray[np.float64]
    seen_usual: NDArray[np.float64]

    @property
    def steps(self) -> NDArray[np.float64]:
        """(bands, 4) for `seam_ratios`: sum and count at the border, and inside, relative to the level of both."""
        level = (self.seen + self.moves * self.seen_usual) / (self.moves + 1)
        count = np.full(len(level), float(self.squares))
        return np.stack([count * self.seen / level, count, count * self.seen_usual / level, count], axis=1)

    @property
    def contrast(self) -> NDArray[np.float64]:
        """(bands,) the step at the border in usual steps."""
        contrast: NDArray[np.float64] = self.seen / self.seen_usual
        return contrast


def surroundings(grid: Grid, chip: ChipIndex) -> PixelWindow:
    """The pixels that the borders of a chip are measured in."""
    window = grid.chip_window(chip)
    size = REACH_PX + max(grid.chip_side, grid.overlap_px * SCALE + REACH_PX)
    return PixelWindow(window.row - REACH_PX, window.col - REACH_PX, size, size)


def source_borders(read: Read, grid: Grid, epsg: int, chip: ChipIndex) -> list[SourceBorder]:
    """The borders between scenes within a chip, and where it meets the chips on its left and above it.

    Borders that can be compared with nothing, because no line near by lies within one scene, are left out.
    """
    window = surroundings(grid, chip)
    source = _clear_source(read, epsg, window)
    middles, source = source[SQUARE_PX // 2 :: SQUARE_PX, SQUARE_PX // 2 :: SQUARE_PX], _in_squares(source)
    first, size = (REACH_PX + grid.overlap_px * SCALE // 2) // SQUARE_PX, grid.chip_step // SQUARE_PX
    own = slice(first, first + size)
    if len(np.unique(middles[own.start - 1 : own.stop, own.start - 1 : own.stop])) < 2:
        return []
    means = _means(read(epsg, "reflectance", window))
    found = []
    strip = _Strip(means, source, middles)
    for turned in (False, True):
        strip = strip.turned() if turned else strip
        for line in strip.borders(own, max(_GAP_IN_CHIP, _half_ramp(grid) // SQUARE_PX)):
            along, across = (SQUARE_PX * middle for middle in line.middle)
            row, col = (across, along) if turned else (along, across)
            at = window.row + row, window.col + col
            squares, moves, steps = line.measured
            found.append(SourceBorder(epsg, line.sources, *at, squares, moves, *steps))
    return found


def _clear_source(read: Read, epsg: int, window: PixelWindow) -> NDArray[np.uint16]:
    """Numbers of the scenes (h, w); 0 for pixels under cloud and those that are not from the networks."""
    source, quality = read(epsg, "source", window), read(epsg, "quality", window)
    return np.where((quality == Quality.CLEAR) | (quality == Quality.FILLED), source, 0)


def _in_squares(source: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The scene of every square; 0 for squares of several."""
    rows, cols = (side // SQUARE_PX for side in source.shape)
    first = source[::SQUARE_PX, ::SQUARE_PX]
    one = (source.reshape(rows, SQUARE_PX, cols, SQUARE_PX) == first[:, None, :, None]).all(axis=(1, 3))
    return np.where(one, first, 0)


def _means(pixels: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(bands, h, w) of the squares; rows first, which is twelve times as fast as both at once."""
    bands, rows, cols = pixels.shape
    squares = pixels.reshape(bands, rows // SQUARE_PX, SQUARE_PX, cols // SQUARE_PX, SQUARE_PX)
    return np.asarray(squares.sum(axis=2, dtype=np.uint32).sum(axis=-1) / SQUARE_PX**2)


def _half_ramp(grid: Grid) -> int:
    """2.5 m pixels from where a chip's weight is a half to where it is one."""
    return (grid.overlap_px // 2 - grid.margin_px) * SCALE


class _Measured(NamedTuple):
    """A border, or a part of one: squares, moves and (4, bands) steps, as in `SourceBorder`."""

    squares: int
    moves: float
    steps: NDArray[np.float64]


class _Line(NamedTuple):
    """A border as found in a strip: scenes, the middle along and across it in squares, what was measured."""

    sources: tuple[int, int]
    middle: tuple[float, float]
    measured: _Measured


@dataclass(frozen=True, eq=False)
class _Strip:
    """Squares in which borders between columns are looked for.

    Attributes:
        means: (bands, h, w) DN.
        source: (h, w) numbers of the scenes; 0 where a square is of several or is left out.
        middles: (h, w) numbers of the scenes in the middles of the squares: borders may cross a square.
    """

    means: NDArray[np.float64]
    source: NDArray[np.uint16]
    middles: NDArray[np.uint16]

    def turned(self) -> _Strip:
        """Columns as rows."""
        return _Strip(self.means.swapaxes(1, 2), self.source.T, self.middles.T)

    def borders(self, own: slice, gap_at_edge: int) -> Iterator[_Line]:
        """Borders in a square of squares: those at its left edge, where chips are blended, and those inside.

        Args:
            own: its rows, and its columns.
            gap_at_edge: squares between a blended border and those that are compared.
        """
        left, right = self.middles[own, own.start - 1 : own.stop - 1], self.middles[own, own]
        rows, cols = np.nonzero((left != right) & (left > 0) & (right > 0))
        at_edge = cols == 0
        for chosen, gap in ((at_edge, gap_at_edge), (~at_edge, _GAP_IN_CHIP)):
            pairs = self._pairs(own.start + rows[chosen], own.start + cols[chosen], gap)
            for scenes in np.unique(pairs.scenes, axis=0).tolist():
                here = pairs.of((pairs.scenes == scenes).all(axis=1))
                parts = -(-len(here.rows) // (own.stop - own.start))
                split = (here.of(part) for part in np.array_split(np.arange(len(here.rows)), parts))
                measured = [found for part in split if (found := self._compared(part)) is not None]
                if measured:
                    middle = float(here.rows.mean()) + 0.5, float(here.cols.mean()) + gap + 1
                    yield _Line((scenes[0], scenes[1]), middle, _joined(measured))

    def _pairs(self, rows: NDArray[np.intp], cols: NDArray[np.intp], gap: int) -> _Pairs:
        """Squares on both sides of a border, given the first square behind it; without those of another scene."""
        lag = 2 * gap + 1
        start = cols - 1 - gap
        there = (start >= 0) & (start + lag < self.source.shape[1])
        rows, cols, start = rows[there], cols[there], start[there]
        left, right = self.source[rows, start], self.source[rows, start + lag]
        good = (left == self.middles[rows, cols - 1]) & (right == self.middles[rows, cols])
        scenes = np.sort(np.stack([left, right], axis=1), axis=1)
        return _Pairs(rows, start, np.where(left < right, 1.0, -1.0), scenes, lag).of(good)

    def _compared(self, pairs: _Pairs) -> _Measured | None:
        """The step at pairs of squares, and at the same pairs moved sideways; None if none of those fits in a scene."""
        at_border = self._steps(pairs)
        for moves in _MOVES:
            steps = []
            for moved in map(pairs.moved, moves):
                within = self._within_one_scene(moved)
                if 2 * within.sum() >= len(within):
                    # The same pairs at the border, so that both are means of as many.
                    both = np.stack([_level(at_border[:, within]), _level(self._steps(moved.of(within)))])
                    steps.append(np.concatenate([both, np.hypot(both, _FAINT)]))
            if steps:
                return _Measured(len(pairs.rows), len(steps), np.mean(steps, axis=0))
        return None

    def _steps(self, pairs: _Pairs) -> NDArray[np.float64]:
        """(bands, n) differences, from the lower scene to the other, DN."""
        left, right = (self.means[:, pairs.rows, pairs.cols + lag] for lag in (0, pairs.lag))
        return (right - left) * pairs.signs

    def _within_one_scene(self, pairs: _Pairs) -> NDArray[np.bool_]:
        """Which pairs lie within one scene, with all between them."""
        width = self.source.shape[1]
        inside = (pairs.cols >= 0) & (pairs.cols + pairs.lag < width)
        columns = np.clip(pairs.cols, 0, width - 1 - pairs.lag)[:, None] + np.arange(pairs.lag + 1)
        seen = self.source[pairs.rows[:, None], columns]
        within: NDArray[np.bool_] = inside & (seen[:, 0] > 0) & (seen == seen[:, :1]).all(axis=1)
        return within


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of squares in one row.

    Attributes:
        rows, cols: (n,) of the left one.
        signs: (n,) 1 where the left one is of the lower scene, else −1.
        scenes: (n, 2) the lower scene, the other.
        lag: squares from the left one to the right one.
    """

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    signs: NDArray[np.float64]
    scenes: NDArray[np.uint16]
    lag: int

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> _Pairs:
        """Some of them."""
        return _Pairs(self.rows[chosen], self.cols[chosen], self.signs[chosen], self.scenes[chosen], self.lag)

    def moved(self, squares: int) -> _Pairs:
        """All of them, moved sideways."""
        return _Pairs(self.rows, self.cols + squares, self.signs, self.scenes, self.lag)


def _level(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bands,) absolute mean of (bands, n) steps, without the highest and the lowest tenth."""
    cut = steps.shape[1] // 10
    kept = np.sort(steps, axis=1)[:, cut : steps.shape[1] - cut]
    level: NDArray[np.float64] = np.abs(kept.mean(axis=1))
    return level


def _joined(parts: Sequence[_Measured]) -> _Measured:
    """The parts of one border as one: means by length."""
    squares = [part.squares for part in parts]
    moves, steps = (np.average([part[i] for part in parts], axis=0, weights=squares) for i in (1, 2))
    return _Measured(sum(squares), float(moves), steps)
