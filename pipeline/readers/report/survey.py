"""What a period of a cube contains, read with bounded effort: quality by shard, reflectance by band, places to show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, RGB, TARGET_GSD_M
from difffusr.pipeline.cube import BASE_LEVEL, Cube, read_window
from difffusr.pipeline.geo import PixelWindow, ShardIndex
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.report.statistics import VALUES, BandStatistics
from difffusr.pipeline.readers.report.windows import PeriodPixels, shard_side

T = TypeVar("T")

R = TypeVar("R")

#: Most inner chunks of `quality` and `source` read of a period; of larger periods some of every shard are read.
MOST_CHUNKS = 8192

#: Most inner chunks of `reflectance` read of a period.
MOST_SAMPLED = 128

#: Quality flags of pixels that hold a reflectance.
_WITH_DATA = tuple(flag for flag in Quality if flag not in (Quality.NO_DATA, Quality.FAILED))

#: Least share of clear pixels of a chunk to show, and reflectance at which brightness is clipped, so that unmasked
#: clouds do not count as contrast.
_CLEAR_ENOUGH, _BRIGHT = 0.97, 0.5

#: Reading threads.
_THREADS = 4


@dataclass(frozen=True)
class Cell:
    """A shard or a square of shards, and what was found in it.

    Attributes:
        epsg: its zone.
        window: in absolute pixels of its lattice.
        shards: how many.
        flags: pixels read by flag, in the order of `Quality`.
        scene: number of the scene of most pixels; 0 for none.
    """

    epsg: int
    window: PixelWindow
    shards: int
    flags: tuple[int, ...]
    scene: int

    @property
    def looked_at(self) -> int:
        """Pixels read."""
        return sum(self.flags)

    @property
    def with_data(self) -> int:
        """Pixels read that hold a reflectance."""
        return sum(self.flags[flag] for flag in _WITH_DATA)

    def share(self, *flags: Quality) -> float:
        """Share of pixels read that have one of these flags."""
        return sum(self.flags[flag] for flag in flags) / max(self.looked_at, 1)


@dataclass(frozen=True)
class ClearChunk:
    """An inner chunk that is clear enough to show.

    Attributes:
        epsg: its zone.
        window: in absolute pixels of its lattice.
        contrast: mean absolute step of brightness between neighbouring pixels, reflectance.
    """

    epsg: int
    window: PixelWindow
    contrast: float


@dataclass(frozen=True, eq=False)
class Survey:
    """What one period contains.

    Attributes:
        cells: those with data or planned shards, by zone, row and column.
        seen_m: pixel size in metres of the level that was read.
        finest_m: that of the cube's finest level.
        scenes: pixels read by scene number.
        bands: None if no pixel holds a reflectance.
        places: chunks to show, most contrast first.
    """

    cells: tuple[Cell, ...]
    seen_m: float
    scenes: dict[int, int]
    bands: BandStatistics | None
    places: tuple[ClearChunk, ...]
    finest_m: float = TARGET_GSD_M

    @property
    def flags(self) -> dict[Quality, float]:
        """Share of each flag among the pixels read."""
        total = sum(cell.looked_at for cell in self.cells)
        return {flag: sum(cell.flags[flag] for cell in self.cells) / max(total, 1) for flag in Quality}


def survey_period(cube: Cube, label: str, most_cells: int, planned: Sequence[tuple[int, ShardIndex]] | None) -> Survey:
    """Survey a period.

    `quality` and `source` of small periods are read whole; of larger ones an overview, or without one some inner chunks
    of every cell. `reflectance` is sampled in whole inner chunks of the finest level, never in an overview: means hide
    zeros and values above 1.

    Args:
        label: the period's.
        most_cells: with more shards than this, cells are squares of shards.
        planned: zone and place of the period's shards; None if not known.

    Raises:
        StoreError: the cube cannot be read.
    """
    cells, side = _cells(cube, label, most_cells, planned)
    level = _level(cube, sum(map(len, cells.values())))
    zones = {epsg: _ZoneLabels(cube, epsg, label, level) for epsg in sorted({epsg for epsg, _, _ in cells})}
    each = max(MOST_CHUNKS // max(len(cells), 1), 1)
    found: list[Cell] = []
    chunks: list[tuple[int, PixelWindow]] = []
    scenes: Counter[int] = Counter()

    def read_cell(key: tuple[int, int, int]) -> _CellContents:
        return zones[key[0]].read(cells[key], each)

    with ThreadPoolExecutor(_THREADS) as pool:
        for (epsg, row, col), seen in zip(cells, _in_turn(pool, read_cell, list(cells)), strict=True):
            if planned is not None or seen.flags[1:].any():
                window = PixelWindow(row * side, col * side, side, side)
                flags = tuple(seen.flags[: len(Quality)].tolist())
                most = min(seen.scenes, key=lambda number: (-seen.scenes[number], number), default=0)
                found.append(Cell(epsg, window, len(cells[epsg, row, col]), flags, most))
                scenes.update(seen.scenes)
                chunks += [(epsg, place) for place in seen.chunks]
    bands, places = _sample(PeriodPixels(cube, label), chunks)
    epsg = next(iter(cube.zones))
    finest = TARGET_GSD_M if cube.of_crs(epsg) is None else cube.lattice(epsg).ground_m(cube.window(epsg))
    return Survey(tuple(found), finest * level.factor, dict(sorted(scenes.items())), bands, places, finest)


class _Resolution(NamedTuple):
    """A level of the cube: how many of the finest pixels one of its pixels spans, and the name of its group."""

    factor: int
    group: str


def _cells(
    cube: Cube, label: str, most: int, planned: Sequence[tuple[int, ShardIndex]] | None
) -> tuple[dict[tuple[int, int, int], list[ShardIndex]], int]:
    """Shards by (zone, row, col) of their square, in order, and the side of a square in pixels."""
    every = sorted(_shards(cube, label) if planned is None else planned)
    size, side = shard_side(cube), 1
    while len({(epsg, shard.row // side, shard.col // side) for epsg, shard in every}) > most:
        side *= 2
    out: dict[tuple[int, int, int], list[ShardIndex]] = {}
    for epsg, shard in every:
        out.setdefault((epsg, shard.row // side, shard.col // side), []).append(shard)
    return dict(sorted(out.items())), side * size


def _shards(cube: Cube, label: str) -> Iterator[tuple[int, ShardIndex]]:
    """All shards that a period can have."""
    for epsg in cube.zones:
        if label in cube.periods(epsg):
            window, size = cube.window(epsg), shard_side(cube)
            for row in range(window.row // size, window.row_stop // size):
                for col in range(window.col // size, window.col_stop // size):
                    yield epsg, ShardIndex(row, col)


def _level(cube: Cube, shards: int) -> _Resolution:
    """The finest level that can be read whole for this many shards; the finest of all if there is none."""
    epsg = next(iter(cube.zones))
    array = cube.array(epsg, "quality")
    chunks = shards * (shard_side(cube) // array.chunks[-1]) ** 2
    coarser = sorted(set.intersection(*(set(_levels(cube, zone)) for zone in cube.zones)))
    enough = [level for level in coarser if chunks <= MOST_CHUNKS * level.factor**2]
    return enough[0] if enough else _Resolution(1, BASE_LEVEL)


def _levels(cube: Cube, epsg: int) -> list[_Resolution]:
    """The levels in a zone's `multiscales` whose pixels span whole ones of the finest and divide an inner chunk."""
    layout = (cube.of_zone(epsg).get("multiscales") or {}).get("layout", [])
    chunk = cube.array(epsg, "quality").chunks[-1]
    pixel = cube.lattice(epsg).pixel
    factors = {str(entry["asset"]): float(entry["spatial:transform"][0]) / pixel for entry in layout}
    return [_Resolution(int(f), name) for name, f in factors.items() if f == int(f) and chunk % int(f) == 0] or [
        _Resolution(1, BASE_LEVEL)
    ]


@dataclass(frozen=True, eq=False)
class _CellContents:
    """Pixels of a cell by flag (256,) and by scene number, and its inner chunks with data."""

    flags: NDArray[np.int64]
    scenes: Counter[int]
    chunks: list[PixelWindow]


class _ZoneLabels:
    """`quality` and `source` of one zone in one period, at one level."""

    def __init__(self, cube: Cube, epsg: int, label: str, level: _Resolution) -> None:
        self._factor, name = level
        group = cube.group(epsg, int(name))
        self._quality, self._source = group["quality"], group["source"]
        self._step = cube.periods(epsg)[label][0]
        self._whole = PixelWindow(*(edge // self._factor for edge in cube.window(epsg)))
        self._shard, self._chunk = shard_side(cube), cube.array(epsg, "quality").chunks[-1]

    def read(self, shards: Sequence[ShardIndex], most: int) -> _CellContents:
        """Read shards, or at most this many of their inner chunks."""
        found = _CellContents(np.zeros(256, np.int64), Counter(), [])
        for place in self._places(shards, most):
            quality, source = (self._read(array, place) for array in (self._quality, self._source))
            found.flags[:] += np.bincount(quality.ravel(), minlength=256)
            pixels = np.bincount(source.ravel())
            found.scenes.update({number: int(pixels[number]) for number in np.flatnonzero(pixels).tolist() if number})
            found.chunks.extend(self._with_data(quality, place))
        return found

    def _places(self, shards: Sequence[ShardIndex], most: int) -> Iterator[PixelWindow]:
        """Whole shards if that is not too much, else inner chunks spread evenly over all of them."""
        size, side = self._shard, self._chunk
        across = size // side
        every = len(shards) * across**2
        if every <= most or self._factor > 1:
            for shard in shards:
                yield PixelWindow(shard.row * size, shard.col * size, size, size)
            return
        for place in _spread(every, most):
            shard, (row, col) = shards[place // across**2], divmod(place % across**2, across)
            yield PixelWindow(shard.row * size + row * side, shard.col * size + col * side, side, side)

    def _read(self, array: Any, window: PixelWindow) -> NDArray[Any]:
        return read_window(array, self._step, PixelWindow(*(edge // self._factor for edge in window)), self._whole)

    def _with_data(self, quality: NDArray[np.uint8], window: PixelWindow) -> Iterator[PixelWindow]:
        side = self._chunk // self._factor
        rows, cols = quality.shape[0] // side, quality.shape[1] // side
        has = np.isin(quality, _WITH_DATA).reshape(rows, side, cols, side).any(axis=(1, 3))
        for row, col in np.argwhere(has).tolist():
            yield PixelWindow(window.row + row * self._chunk, window.col + col * self._chunk, self._chunk, self._chunk)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the first `count` numbers, spread evenly, out of step with rows and columns (Weyl sequence)."""
    if count <= most:
        return list(range(count))
    stride = next(s for s in range(max(round(count * 0.618), 1), 2 * count) if math.gcd(s, count) == 1)
    return sorted(i * stride % count for i in range(most))


def _sample(
    read: PeriodPixels, chunks: Sequence[tuple[int, PixelWindow]]
) -> tuple[BandStatistics | None, tuple[ClearChunk, ...]]:
    """Statistics by band of evenly spread chunks, and the chunks clear enough to show."""
    chosen = [chunks[i] for i in _spread(len(chunks), MOST_SAMPLED)]
    if not chosen:
        return None, ()
    counts: NDArray[np.int64] = np.zeros((len(BANDS), VALUES), np.int64)
    places: list[ClearChunk] = []
    scale = read.scale(chosen[0][0])

    def pixels(chunk: tuple[int, PixelWindow]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        epsg, window = chunk
        return read(epsg, "reflectance", window), read(epsg, "quality", window)

    with ThreadPoolExecutor(_THREADS) as pool:
        for (epsg, window), (reflectance, quality) in zip(chosen, _in_turn(pool, pixels, chosen), strict=True):
            here = np.isin(quality, _WITH_DATA)
            for band in range(len(BANDS)):
                counts[band] += np.bincount(reflectance[band][here], minlength=VALUES)
            if np.isin(quality, (Quality.CLEAR, Quality.FILLED)).mean() >= _CLEAR_ENOUGH:
                places.append(ClearChunk(epsg, window, _contrast(reflectance, scale)))
    best = sorted(places, key=lambda place: (-place.contrast, place.epsg, place.window))
    return BandStatistics(len(chosen), counts, scale), tuple(best)


def _in_turn(pool: ThreadPoolExecutor, do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """As `pool.map`, but at most one result ahead per thread: results are large."""
    for start in range(0, len(items), _THREADS):
        yield from pool.map(do, items[start : start + _THREADS])


def _contrast(reflectance: NDArray[np.uint16], scale: float) -> float:
    brightness = np.minimum(reflectance[[BANDS.index(band) for band in RGB]].mean(axis=0) * scale, _BRIGHT)
    across, down = np.abs(np.diff(brightness, axis=1)).mean(), np.abs(np.diff(brightness, axis=0)).mean()
    return float(across + down) / 2
