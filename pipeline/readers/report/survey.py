"""What a published cube holds, looked at with bounded effort: quality by shard, reflectance by band, places to show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, RGB
from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.cube.layout import BASE_LEVEL
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.report.statistics import VALUES, BandStatistics
from difffusr.pipeline.storage.objects import STORE_FAILURES

T = TypeVar("T")

R = TypeVar("R")

#: Inner chunks of `quality` and `source` that are read of a period; of a larger one some of every shard.
MOST_CHUNKS = 8192

#: Inner chunks of `reflectance` that are read of a period.
MOST_SAMPLED = 128

#: Quality flags of pixels that hold a reflectance.
_WITH_DATA = tuple(flag for flag in Quality if flag not in (Quality.NO_DATA, Quality.FAILED))

#: Share of clear pixels below which a chunk is no place to show, and reflectance above which brightness says nothing:
#: unmasked cloud is not what a picture is for.
_CLEAR_ENOUGH, _BRIGHT = 0.97, 0.5

#: Threads that read.
_THREADS = 4


@dataclass(frozen=True)
class Cell:
    """A shard, or a square of shards, and what was found in it.

    Attributes:
        epsg: its zone.
        window: the ground, in absolute 2.5 m pixels.
        shards: how many.
        flags: pixels looked at by flag, in the order of `Quality`.
        scene: number of the scene that most of them show; 0 where there is none.
    """

    epsg: int
    window: PixelWindow
    shards: int
    flags: tuple[int, ...]
    scene: int

    @property
    def looked_at(self) -> int:
        """Pixels."""
        return sum(self.flags)

    @property
    def with_data(self) -> int:
        """Pixels that hold a reflectance, of those looked at."""
        return sum(self.flags[flag] for flag in _WITH_DATA)

    def share(self, *flags: Quality) -> float:
        """Share of these flags among the pixels looked at."""
        return sum(self.flags[flag] for flag in flags) / max(self.looked_at, 1)


@dataclass(frozen=True)
class Spot:
    """An inner chunk that is clear and has much to see.

    Attributes:
        epsg: its zone.
        window: in absolute 2.5 m pixels.
        contrast: mean absolute step of brightness between neighbouring pixels, reflectance.
    """

    epsg: int
    window: PixelWindow
    contrast: float


@dataclass(frozen=True, eq=False)
class Survey:
    """What one period holds.

    Attributes:
        cells: those that hold anything, or were planned; by zone, row and column.
        seen_m: metres of a pixel of the level that they were looked at in.
        scenes: pixels looked at by number of their scene.
        bands: None where no pixel holds a reflectance.
        places: the best first.
    """

    cells: tuple[Cell, ...]
    seen_m: float
    scenes: dict[int, int]
    bands: BandStatistics | None
    places: tuple[Spot, ...]

    @property
    def flags(self) -> dict[Quality, float]:
        """Share of each flag among the pixels looked at."""
        total = sum(cell.looked_at for cell in self.cells)
        return {flag: sum(cell.flags[flag] for cell in self.cells) / max(total, 1) for flag in Quality}


def look_over(cube: Cube, label: str, most_cells: int, planned: Sequence[tuple[int, ShardIndex]] | None) -> Survey:
    """Look a period over.

    Small periods are read whole in `quality` and `source`. Of larger ones an overview is read, if the cube has one, or
    some inner chunks of every cell. `reflectance` is sampled by whole inner chunks at 2.5 m, never in an overview:
    means hide zeros and values above 1.

    Args:
        label: the period's.
        most_cells: of the survey; where there are more shards squares of them are looked at.
        planned: zone and place of the period's shards; None where that is not known.

    Raises:
        StoreError: the cube cannot be read.
    """
    cells, side = _cells(cube, label, most_cells, planned)
    level = _level(cube, sum(map(len, cells.values())))
    zones = {epsg: _Zone(cube, epsg, label, level) for epsg in sorted({epsg for epsg, _, _ in cells})}
    each = max(MOST_CHUNKS // max(len(cells), 1), 1)
    found: list[Cell] = []
    chunks: list[tuple[int, PixelWindow]] = []
    scenes: Counter[int] = Counter()

    def look(key: tuple[int, int, int]) -> _Look:
        return zones[key[0]].look(cells[key], each)

    with ThreadPoolExecutor(_THREADS) as pool:
        for (epsg, row, col), seen in zip(cells, _in_turn(pool, look, list(cells)), strict=True):
            if planned is not None or seen.flags[1:].any():
                window = PixelWindow(row * side, col * side, side, side)
                flags = tuple(seen.flags[: len(Quality)].tolist())
                most = min(seen.scenes, key=lambda number: (-seen.scenes[number], number), default=0)
                found.append(Cell(epsg, window, len(cells[epsg, row, col]), flags, most))
                scenes.update(seen.scenes)
                chunks += [(epsg, place) for place in seen.chunks]
    bands, places = _sample(Reader(cube, label), chunks)
    return Survey(tuple(found), 2.5 * level[0], dict(sorted(scenes.items())), bands, places)


class Reader:
    """Windows of one period of a cube: (bands, h, w) or (h, w), as stored; the fill value beyond the cube."""

    def __init__(self, cube: Cube, label: str) -> None:
        self._steps = {epsg: cube.periods(epsg)[label][0] for epsg in cube.zones if label in cube.periods(epsg)}
        self._whole = {epsg: cube.window(epsg) for epsg in self._steps}
        self._arrays = {(epsg, name): cube.array(epsg, name) for epsg in self._steps for name in cube.variables(epsg)}

    def __call__(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """Read a window of a variable."""
        return _padded(self._arrays[epsg, name], self._steps[epsg], window, self._whole[epsg])

    def scale(self, epsg: int) -> float:
        """Reflectance of the stored number 1."""
        return float(str(self._arrays[epsg, "reflectance"].attrs["scale_factor"]))


def shard_px(cube: Cube, epsg: int) -> int:
    """Side of a zone's shards in 2.5 m pixels."""
    array = cube.array(epsg, "quality")
    return int((array.shards or array.chunks)[-1])


#: An overview: how many 2.5 m pixels one of its pixels spans, and the name of its group.
_Level = tuple[int, str]


def _cells(
    cube: Cube, label: str, most: int, planned: Sequence[tuple[int, ShardIndex]] | None
) -> tuple[dict[tuple[int, int, int], list[ShardIndex]], int]:
    """Shards by (zone, row, col) of the square that holds them, in order, and the side of a square in pixels."""
    every = sorted(_shards(cube, label) if planned is None else planned)
    size, side = shard_px(cube, next(iter(cube.zones))), 1
    while len({(epsg, shard.row // side, shard.col // side) for epsg, shard in every}) > most:
        side *= 2
    out: dict[tuple[int, int, int], list[ShardIndex]] = {}
    for epsg, shard in every:
        out.setdefault((epsg, shard.row // side, shard.col // side), []).append(shard)
    return dict(sorted(out.items())), side * size


def _shards(cube: Cube, label: str) -> Iterator[tuple[int, ShardIndex]]:
    """All places that a shard of a period can have."""
    for epsg in cube.zones:
        if label in cube.periods(epsg):
            window, size = cube.window(epsg), shard_px(cube, epsg)
            for row in range(window.row // size, window.row_stop // size):
                for col in range(window.col // size, window.col_stop // size):
                    yield epsg, ShardIndex(row, col)


def _level(cube: Cube, shards: int) -> _Level:
    """The finest level of which all of so many shards may be read; 2.5 m where there is no such one."""
    epsg = next(iter(cube.zones))
    array = cube.array(epsg, "quality")
    chunks = shards * (shard_px(cube, epsg) // array.chunks[-1]) ** 2
    coarser = sorted(set.intersection(*(set(_levels(cube, zone)) for zone in cube.zones)))
    enough = [level for level in coarser if chunks <= MOST_CHUNKS * level[0] ** 2]
    return enough[0] if enough else (1, BASE_LEVEL)


def _levels(cube: Cube, epsg: int) -> list[_Level]:
    """The levels of a zone, by its `multiscales`, whose pixels span whole ones of 2.5 m and divide an inner chunk."""
    document = metadata(cube.storage, f"{epsg}/zarr.json") or {}
    layout = document.get("attributes", {}).get("multiscales", {}).get("layout", [])
    chunk = cube.array(epsg, "quality").chunks[-1]
    factors = {str(entry["asset"]): float(entry["spatial:transform"][0]) / 2.5 for entry in layout}
    return [(int(f), name) for name, f in factors.items() if f == int(f) and chunk % int(f) == 0] or [(1, BASE_LEVEL)]


@dataclass(frozen=True, eq=False)
class _Look:
    """What a cell holds: pixels by flag (256,), pixels by number of their scene, and its inner chunks with data."""

    flags: NDArray[np.int64]
    scenes: Counter[int]
    chunks: list[PixelWindow]


class _Zone:
    """Labels of one zone in one period, at one level."""

    def __init__(self, cube: Cube, epsg: int, label: str, level: _Level) -> None:
        self._factor, name = level
        group = zarr.open_group(open_store(cube.storage), path=f"{epsg}/{name}", mode="r")
        self._quality, self._source = group["quality"], group["source"]
        self._step = cube.periods(epsg)[label][0]
        self._whole = PixelWindow(*(edge // self._factor for edge in cube.window(epsg)))
        self._shard, self._chunk = shard_px(cube, epsg), cube.array(epsg, "quality").chunks[-1]

    def look(self, shards: Sequence[ShardIndex], most: int) -> _Look:
        """Read some shards, or so many of their inner chunks."""
        look = _Look(np.zeros(256, np.int64), Counter(), [])
        for place in self._places(shards, most):
            quality, source = (self._read(array, place) for array in (self._quality, self._source))
            look.flags[:] += np.bincount(quality.ravel(), minlength=256)
            pixels = np.bincount(source.ravel())
            look.scenes.update({number: int(pixels[number]) for number in np.flatnonzero(pixels).tolist() if number})
            look.chunks.extend(self._with_data(quality, place))
        return look

    def _places(self, shards: Sequence[ShardIndex], most: int) -> Iterator[PixelWindow]:
        """Whole shards where that is not too much, else inner chunks that are spread evenly over all of them."""
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
        return _padded(array, self._step, PixelWindow(*(edge // self._factor for edge in window)), self._whole)

    def _with_data(self, quality: NDArray[np.uint8], window: PixelWindow) -> Iterator[PixelWindow]:
        side = self._chunk // self._factor
        rows, cols = quality.shape[0] // side, quality.shape[1] // side
        has = np.isin(quality, _WITH_DATA).reshape(rows, side, cols, side).any(axis=(1, 3))
        for row, col in np.argwhere(has).tolist():
            yield PixelWindow(window.row + row * self._chunk, window.col + col * self._chunk, self._chunk, self._chunk)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the first numbers, evenly spread and never in step with rows or columns (a Weyl sequence)."""
    if count <= most:
        return list(range(count))
    stride = next(s for s in range(max(round(count * 0.618), 1), 2 * count) if math.gcd(s, count) == 1)
    return sorted(i * stride % count for i in range(most))


def _padded(array: Any, step: int, window: PixelWindow, whole: PixelWindow) -> NDArray[Any]:
    """A window of an array that covers `whole`; its fill value beyond."""
    row, col = window.row - whole.row, window.col - whole.col
    r0, r1 = max(row, 0), min(row + window.height, whole.height)
    c0, c1 = max(col, 0), min(col + window.width, whole.width)
    lead = array.shape[1:-2]
    if r0 >= r1 or c0 >= c1:
        return np.full((*lead, window.height, window.width), array.fill_value, array.dtype)
    try:
        inside = np.asarray(array[(step, ..., slice(r0, r1), slice(c0, c1))])
    except (*STORE_FAILURES, RuntimeError) as error:  # the last one: of a codec
        raise StoreError(
            f"{array.store_path}: cannot be read ({first_line(error)}); `difffusr verify` names damaged shards"
        ) from None
    missing = [*[(0, 0)] * len(lead), (r0 - row, row + window.height - r1), (c0 - col, col + window.width - c1)]
    return np.pad(inside, missing, constant_values=array.fill_value)


def _sample(read: Reader, chunks: Sequence[tuple[int, PixelWindow]]) -> tuple[BandStatistics | None, tuple[Spot, ...]]:
    """Figures by band of some of the chunks, evenly spread, and those that are worth showing."""
    chosen = [chunks[i] for i in _spread(len(chunks), MOST_SAMPLED)]
    if not chosen:
        return None, ()
    counts: NDArray[np.int64] = np.zeros((len(BANDS), VALUES), np.int64)
    places: list[Spot] = []
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
                places.append(Spot(epsg, window, _contrast(reflectance, scale)))
    best = sorted(places, key=lambda place: (-place.contrast, place.epsg, place.window))
    return BandStatistics(len(chosen), counts, scale), tuple(best)


def _in_turn(pool: ThreadPoolExecutor, do: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """As `pool.map`, but never further ahead than there are threads: results are large."""
    for start in range(0, len(items), _THREADS):
        yield from pool.map(do, items[start : start + _THREADS])


def _contrast(reflectance: NDArray[np.uint16], scale: float) -> float:
    brightness = np.minimum(reflectance[[BANDS.index(band) for band in RGB]].mean(axis=0) * scale, _BRIGHT)
    across, down = np.abs(np.diff(brightness, axis=1)).mean(), np.abs(np.diff(brightness, axis=0)).mean()
    return float(across + down) / 2
