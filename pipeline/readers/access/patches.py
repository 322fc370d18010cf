"""Patches of a cube to learn from: whole chunks, or parts of them, of enough clear ground, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo import territory
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.access.facts import CubeFacts, scaled
from difffusr.pipeline.readers.access.windows import Block, Wanted

#: Shards whose patches are shuffled together: 512 patches of 256 pixels.
_TOGETHER = 8

#: Quality of pixels that count as ground.
USABLE = ("clear", "filled")


@dataclass(frozen=True)
class Shard:
    """A shard that somebody has written: zone, period, row and column from the zone's upper left corner."""

    zone: int
    period: str
    row: int
    col: int


@dataclass(frozen=True)
class Patch:
    """A square of a shard.

    Attributes:
        shard: where it lies.
        row, col: of its upper left pixel, from the zone's upper left corner.
        quality: (size, size) uint8.
    """

    shard: Shard
    row: int
    col: int
    quality: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PatchReader:
    """Which patches of a cube there are, and what they hold.

    Attributes:
        cube: to read.
        size: side of a patch in pixels: of whole chunks within a shard, or a part of a chunk.
        bands, periods: names and labels.
        usable: names of qualities that count as ground.
        least: share of a patch's pixels that must be of one of those.
        area: in EPSG:4326, that the middle of a patch lies in; None for everywhere.
        fill: what stands for no data.
        variables: what a patch has besides its quality.
    """

    cube: CubeFacts
    size: int
    bands: tuple[str, ...]
    periods: tuple[str, ...]
    variables: tuple[str, ...]
    usable: tuple[str, ...] = USABLE
    least: float = 0.9
    area: BaseGeometry | None = None
    fill: float = 0.0

    @classmethod
    def of(
        cls,
        cube: CubeFacts | str,
        size: int = 256,
        bands: str | Sequence[str] | None = None,
        periods: str | Sequence[str] | None = None,
        usable: Sequence[str] = USABLE,
        least: float = 0.9,
        area: BaseGeometry | None = None,
        fill: float = 0.0,
        labels: Sequence[str] = (),
    ) -> PatchReader:
        """Checked, see `CubePatches`."""
        opened = CubeFacts.at(cube) if isinstance(cube, str) else cube
        known = [flag.name.lower() for flag in Quality if flag]
        if lacking := [name for name in usable if name not in known]:
            raise ConfigError(f"quality: there is no {lacking[0]!r}; there are {', '.join(known)}")
        if not 0 <= least <= 1:
            raise ConfigError(f"least: found {least:g}, expected a share between 0 and 1")
        for zone in opened.zones:
            chunk, shard = opened.windows.chunk_px(zone)[0], opened.windows.shard_px(zone)[0]
            if size < 1 or (chunk % size and (size % chunk or shard % size)):
                raise ConfigError(
                    f"size: found {size}, expected a divisor of the chunks' {chunk} pixels, or a multiple of them that "
                    f"divides the shards' {shard}"
                )
        if lacking := [name for name in labels if name not in opened.variables]:
            raise ConfigError(f"labels: {opened.url} has no {lacking[0]!r}; it has {', '.join(opened.variables)}")
        spectral = [name for name in opened.variables if name.startswith("reflectance")]
        variables = *spectral, *(name for name in labels if name not in (*spectral, "quality"))
        return cls(
            opened, size, opened.known_bands(bands), opened.known_periods(periods), variables, tuple(usable), least,
            area, fill,
        )  # fmt: skip

    @cached_property
    def shards(self) -> list[Shard]:
        """All that somebody has written: in the order of zones, periods and places."""
        return [Shard(*place) for zone in self.cube.zones for place in self.cube.written(zone, self.periods)]

    def in_order(self, seed: int | None, epoch: int, part: int, parts: int) -> Iterator[Patch]:
        """The patches of `in_groups`, one after the other."""
        return chain.from_iterable(self.in_groups(seed, epoch, part, parts))

    def in_groups(self, seed: int | None, epoch: int, part: int, parts: int) -> Iterator[list[Patch]]:
        """The patches of every `parts`-th shard, from number `part` on, those of a few shards together.

        Args:
            seed: of the order, together with the epoch; None for the cube's own order.
        """
        places = np.arange(len(self.shards))
        if seed is not None:
            np.random.default_rng([seed, epoch]).shuffle(places)
        mine = places[part::parts]
        within = None if seed is None else np.random.default_rng([seed, epoch, part])
        for start in range(0, len(mine), _TOGETHER):
            patches = [patch for at in mine[start : start + _TOGETHER] for patch in self.patches(self.shards[at])]
            if within is not None:
                patches = [patches[at] for at in within.permutation(len(patches))]
            yield patches

    def patches(self, shard: Shard) -> list[Patch]:
        """Those of a shard that have enough ground, row by row.

        Raises:
            StoreError: the store refuses.
        """
        side, step = self.cube.windows.shard_px(shard.zone)[0], self.cube.step(shard.zone, shard.period)
        assert step is not None
        height, width = self.cube.windows.shape(shard.zone)
        top, left = shard.row * side, shard.col * side
        rows, cols = slice(top, min(top + side, height)), slice(left, min(left + side, width))
        held: list[NDArray[np.uint8]] = []
        wanted = Wanted(shard.zone, "quality", step, Block(rows, cols))
        self.cube.windows.read_all([wanted], lambda _, values: held.append(values))
        count = (rows.stop - top) // self.size, (cols.stop - left) // self.size
        size = self.size
        squares = held[0][: count[0] * size, : count[1] * size].reshape(count[0], size, count[1], size)
        is_ground = np.zeros(256, np.uint8)
        is_ground[[Quality[name.upper()] for name in self.usable]] = 1
        share = is_ground[squares].sum(axis=(1, 3), dtype=np.uint32) / size**2
        down, right = np.nonzero((share >= self.least) & (share > 0))
        at_rows, at_cols = top + down * size, left + right * size
        shown = self._shown(shard.zone, at_rows, at_cols)
        return [
            Patch(shard, int(row), int(col), squares[r, :, c])
            for r, c, row, col in zip(down[shown], right[shown], at_rows[shown], at_cols[shown], strict=True)
        ]

    def _shown(self, zone: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the middles of patches lie in the area, and in the zone's own territory: what two zones show is
        learned from once."""
        lattice, whole, half = self.cube.lattice(zone), self.cube.cube.window(zone), self.size / 2
        x = (whole.col + cols + half) * lattice.pixel
        y = lattice.origin - (whole.row + rows + half) * lattice.pixel
        lon, lat = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True).transform(x, y)
        lon = (np.asarray(lon) + 180.0) % 360.0 - 180.0
        shown = np.ones(len(rows), bool)
        for ground in (None if self.cube.cube.in_one_crs else territory(zone), self.area):
            if ground is not None:
                shown &= shapely.intersects_xy(ground, lon, lat)
        return shown

    def read(self, patches: Sequence[Patch]) -> list[dict[str, Any]]:
        """What patches hold, all at a time.

        Returns:
            For each: `reflectance` (bands, size, size) float32 (and `reflectance_std` where the cube has it), `fill`
            where there is no data; `quality` uint8 and the wanted labels (size, size); `zone`, `period`, and `x`, `y`
            of its upper left corner in the zone's CRS.

        Raises:
            StoreError: the store refuses, or a chunk is damaged.
        """
        return [self.in_units(patch, values) for patch, values in self.stored(patches)]

    def stored(self, patches: Sequence[Patch]) -> list[tuple[Patch, dict[str, NDArray[Any]]]]:
        """The stored numbers of patches, by variable, all read at a time."""
        wanted, size = [], self.size
        for patch in patches:
            step = self.cube.step(patch.shard.zone, patch.shard.period)
            assert step is not None
            block = Block(slice(patch.row, patch.row + size), slice(patch.col, patch.col + size))
            wanted += [Wanted(patch.shard.zone, name, step, block) for name in self.variables]
        held: list[dict[str, NDArray[Any]]] = [{} for _ in patches]

        def take(number: int, values: NDArray[Any]) -> None:
            held[number // len(self.variables)][wanted[number].name] = values

        self.cube.windows.read_all(wanted, take)
        return list(zip(patches, held, strict=True))

    def in_units(self, patch: Patch, values: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """What `read` gives of a patch, from its stored numbers."""
        zone = patch.shard.zone
        lattice, whole = self.cube.lattice(zone), self.cube.cube.window(zone)
        return {
            **{name: self._in_unit(zone, name, values[name]) for name in self.variables},
            "quality": patch.quality,
            "zone": zone,
            "period": patch.shard.period,
            "x": (whole.col + patch.col) * lattice.pixel,
            "y": lattice.origin - (whole.row + patch.row) * lattice.pixel,
        }

    def _in_unit(self, zone: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if values.ndim == 2:
            return values
        scale, fill = self._scales[zone, name]
        if len(self.bands) < len(values):
            values = values[self._bands]
        found = scaled(values, scale, None)
        if (fill, self.fill) != (0, 0.0):
            found[values == fill] = self.fill
        return found

    @cached_property
    def _bands(self) -> list[int]:
        return [self.cube.bands.index(name) for name in self.bands]

    @cached_property
    def _scales(self) -> dict[tuple[int, str], tuple[float, int]]:
        found = {}
        for zone in self.cube.zones:
            for name in self.variables:
                attributes: Any = dict(self.cube.cube.array(zone, name).attrs)
                if "scale_factor" in attributes:
                    found[zone, name] = float(attributes["scale_factor"]), int(attributes["_FillValue"])
        return found
