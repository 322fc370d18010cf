"""What a published cube has of which places and periods, and its arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from xarray.backends import ZarrStore
from zarr.core.sync import sync

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube import Cube, chunk_index
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.ground.errors import ConfigError, CoverageError
from difffusr.pipeline.readers.access.lazy import lazy_variable
from difffusr.pipeline.readers.access.windows import Windows
from difffusr.pipeline.readers.footprints import footprint, ground_of
from difffusr.pipeline.storage import Storage, store_failures

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

#: What to do about a place that nobody has written: an error, or values that stand for nothing.
Missing = Literal["raise", "nan"]

#: Degrees from the middle of a UTM zone beyond which it shows no ground.
ZONE_REACH_DEG = 18.0


@dataclass(frozen=True, eq=False)
class CubeFacts:
    """A published cube: what it has of which places and periods. It may be pickled, and stays in its state.

    Attributes:
        cube: its groups and attributes.
    """

    cube: Cube

    @classmethod
    def at(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Self:
        """See `open_cube`."""
        return cls(Cube(Storage(url, dict(storage_options or {}))))

    @property
    def url(self) -> str:
        """Where it is."""
        return self.cube.storage.url

    @property
    def zones(self) -> tuple[int, ...]:
        """EPSG codes of its UTM zones, ascending; of a cube of one CRS that CRS's number alone."""
        return tuple(sorted(self.cube.zones))

    @cached_property
    def periods(self) -> dict[str, tuple[date, date]]:
        """First and last day of each period of any zone, by label, the earliest first."""
        found = {label: days for epsg in self.zones for label, (_, days) in self.cube.periods(epsg).items()}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands, in the order that they have in `reflectance`."""
        return BANDS

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """The variables that every zone has: reflectance, quality, source, in some cubes reflectance_std or looks."""
        shared = set.intersection(*(set(self.cube.variables(epsg)) for epsg in self.zones))
        return tuple(sorted(shared))

    @cached_property
    def windows(self) -> Windows:
        """Its pixels."""
        return Windows(self.cube)

    def lattice(self, zone: int) -> Lattice:
        """CRS, origin and size of a zone's pixels."""
        return self.cube.lattice(zone)

    def scenes(self, period: str | None = None) -> dict[int, dict[str, Any]]:
        """Facts of scenes (id, datetime, …) by the number that `source` has: of a period, or of all.

        Raises:
            ConfigError: the cube has no such period.
            StoreError: the store refuses.
        """
        if period is None:
            return {number: dict(facts) for number, facts in self.cube.scenes.items()}
        days = self.periods[self.known_periods(period)[0]]
        return {number: dict(facts) for number, facts in self.cube.scenes_of(days).items()}

    def known_periods(self, asked: str | Sequence[str] | None) -> tuple[str, ...]:
        """Labels of periods; None for all.

        Raises:
            ConfigError: the cube has no such period.
        """
        labels = tuple(self.periods) if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
        for label in labels:
            if label not in self.periods:
                raise ConfigError(f"period: {self.url} has no {label!r}; it has {', '.join(self.periods)}")
        if not labels:
            raise ConfigError(f"period: none given; {self.url} has {', '.join(self.periods)}")
        return labels

    def known_bands(self, asked: str | Sequence[str] | None) -> tuple[str, ...]:
        """Names of bands; None for all.

        Raises:
            ConfigError: there is no such band.
        """
        names = BANDS if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
        if lacking := [name for name in names if name not in BANDS]:
            raise ConfigError(f"bands: there is no {lacking[0]!r}; there are {', '.join(BANDS)}")
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"bands: found {', '.join(names) or 'none'}, expected each wanted band once")
        return names

    def step(self, zone: int, period: str) -> int | None:
        """Position of a period on a zone's time axis; None where the zone does not have it."""
        found = self.cube.periods(zone).get(period)
        return None if found is None else found[0]

    def dataset(self, zone: int, level: int = 0, missing: Missing = "raise") -> xr.Dataset:
        """A level of a zone, read when it is asked for: reflectance as float32, NaN where there is no data.

        Where `xarray.open_zarr` gives float64, as the scale is a Python number, and NaN for what nobody has written,
        this gives float32 and raises `CoverageError` (`missing="nan"`: NaN, and 0 for labels).

        Args:
            zone: one of `zones`.
            level: 0 for 2.5 m, each further one twice as coarse.

        Returns:
            (time, band, y, x) and (time, y, x); x and y are centres of pixels in the zone's CRS. `.chunk()` makes Dask
            arrays of them, a shard a chunk.

        Raises:
            ConfigError: the cube has no such zone or level.
            StoreError, CoverageError: later, when pixels are read.
        """
        check_missing(missing)
        if zone not in self.cube.zones:
            raise ConfigError(f"zone: {self.url} has no {zone}; it has {', '.join(map(str, self.zones))}")
        if not 0 <= level <= self.cube.overviews(zone):
            raise ConfigError(f"level: zone {zone} has no {level}; it has 0 to {self.cube.overviews(zone)}")
        stored = xr.open_dataset(
            ZarrStore(self.cube.group(zone, level), mode="r"), mask_and_scale=False, decode_coords="all", chunks=None
        )
        lazy = {
            name: self._lazy(zone, str(name), level, stored[name], missing)
            for name in stored.data_vars
            if stored[name].dims[-2:] == ("y", "x")
        }
        return stored.assign(lazy)

    def _lazy(self, zone: int, name: str, level: int, stored: xr.DataArray, missing: Missing) -> xr.Variable:
        attributes = {key: value for key, value in stored.attrs.items() if key not in ("scale_factor", "_FillValue")}
        scale, fill = stored.attrs.get("scale_factor"), stored.attrs.get("_FillValue")

        def read(others: Sequence[NDArray[np.int64]], rows: slice, cols: slice) -> NDArray[Any]:
            window = PixelWindow(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
            steps = [self.windows.read(zone, name, int(step), window, level) for step in others[0]]
            if missing == "raise":
                for step in others[0]:
                    self._check_written(zone, int(step), window, level)
            values = np.stack(steps)
            if values.ndim == 4:
                values = values[:, others[1]]
            return values if scale is None else scaled(values, float(scale), fill)

        return lazy_variable(
            [str(dim) for dim in stored.dims],
            stored.shape,
            stored.dtype if scale is None else np.float32,
            read,
            attributes,
            self.windows.shard_px(zone, level)[0],
        )

    def _check_written(self, zone: int, step: int, window: PixelWindow, level: int) -> None:
        high, wide = self.windows.shard_px(zone, level)
        bottom, right = -(-window.row_stop // high), -(-window.col_stop // wide)
        rows, cols = np.mgrid[window.row // high : bottom, window.col // wide : right].reshape(2, -1)
        lacking = np.flatnonzero(self.windows.unwritten(zone, step, rows, cols, level))
        if len(lacking):
            first = lacking[0]
            raise CoverageError(
                f"{self.url}: nobody has written {len(lacking)} of {len(rows)} shards of zone {zone}, level {level}, "
                f"in {self._label(zone, step)}, such as row {rows[first]}, column {cols[first]}; `coverage()` has what "
                'there is, missing="nan" reads the rest as no data'
            )

    def _label(self, zone: int, step: int) -> str:
        return next(label for label, (place, _) in self.cube.periods(zone).items() if place == step)

    def coverage(self, periods: str | Sequence[str] | None = None) -> GeoDataFrame:
        """What has been written: the shards of 2.5 m of each zone and period that are in the store.

        Lists the store; where it does not let, as many that are open to everybody, asks for each shard. Within a
        written shard, `quality` 0 says where there is no data.

        Returns:
            A row for each: zone, period, row and col in shards from the zone's upper left corner, geometry (EPSG:4326).

        Raises:
            ConfigError: the cube has no such period.
            StoreError: the store refuses.
        """
        import geopandas
        import pandas as pd
        from pyproj import Transformer

        from difffusr.pipeline.geo import cut_at_180

        labels = self.known_periods(periods)
        found = pd.DataFrame(
            [row for zone in self.zones for row in self.written(zone, labels)],
            columns=["zone", "period", "row", "col"],
        )
        shapes = np.empty(len(found), object)
        for zone in self.zones:
            here = np.flatnonzero(found["zone"] == zone)
            if not len(here):
                continue
            lattice, whole, side = self.lattice(zone), self.cube.window(zone), self.windows.shard_px(zone)[0]
            rows, cols = (
                found[name].to_numpy()[here] * side + at for name, at in (("row", whole.row), ("col", whole.col))
            )
            left, top = cols * lattice.pixel, lattice.origin - rows * lattice.pixel
            boxes = shapely.segmentize(
                shapely.box(left, top - side * lattice.pixel, left + side * lattice.pixel, top),
                side * lattice.pixel / 4,
            )
            to_degrees = Transformer.from_crs(lattice.crs, "EPSG:4326", always_xy=True)
            for at, shape in zip(here, boxes, strict=True):
                shapes[at] = cut_at_180(shapely.transform(shape, to_degrees.transform, interleaved=False))
        return geopandas.GeoDataFrame(found, geometry=shapes, crs="EPSG:4326")

    def footprint(self, periods: str | Sequence[str] | None = None) -> BaseGeometry:
        """Where there are data, in EPSG:4326: polygons that hold all of it, and reach some pixels of an overview of a
        thousand pixels a side beyond.

        Args:
            periods: of any of these; all by default.

        Raises:
            ConfigError: the cube has no such period.
            StoreError: the store refuses.
        """
        steps = [
            (zone, step)
            for zone in self.zones
            for label in self.known_periods(periods)
            if (step := self.step(zone, label)) is not None
        ]
        return shapely.union_all(
            [footprint(self.cube, zone, ground_of(self.cube, zone, step)).shape for zone, step in steps]
        )

    def written(self, zone: int, labels: Sequence[str]) -> Iterator[tuple[int, str, int, int]]:
        """As `coverage`, of a zone, without the shapes."""
        steps = {step: label for label in labels if (step := self.step(zone, label)) is not None}
        if not steps:
            return
        listed = self._listed(zone)
        if listed:
            yield from ((zone, steps[step], row, col) for step, row, col in listed if step in steps)
            return
        shard, (height, width) = self.windows.shard_px(zone), self.windows.shape(zone)
        rows, cols = (axis.ravel() for axis in np.mgrid[: -(-height // shard[0]), : -(-width // shard[1])])
        for step, label in steps.items():
            there = ~self.windows.unwritten(zone, step, rows, cols)
            yield from ((zone, label, int(row), int(col)) for row, col in zip(rows[there], cols[there], strict=True))

    def _listed(self, zone: int) -> list[tuple[int, int, int]]:
        """Step, row and column of a zone's shards, by a list of the store; none where it gives none, as many that are
        open to everybody do."""
        array, revision = self.cube.array(zone, "quality"), self.cube.lineage(zone)[-1]
        prefix = f"{array.path}/"

        async def every() -> list[str]:
            return [key async for key in array.store.list_prefix(prefix)]

        try:
            keys = sync(every())
        except store_failures(NotImplementedError):
            return []
        found = (chunk_index(revision, key.removeprefix(prefix)) for key in keys)
        return sorted((place[0], place[1], place[2]) for place in found if place is not None)

    def __repr__(self) -> str:
        zones, periods = ", ".join(map(str, self.zones)), ", ".join(self.periods)
        return f"{type(self).__name__}({self.url!r}: zones {zones}; periods {periods})"


def check_missing(missing: str) -> None:
    """Raises ConfigError if it is no `Missing`."""
    if missing not in ("raise", "nan"):
        raise ConfigError(f"missing: found {missing!r}, expected 'raise' or 'nan'")


def scaled(values: NDArray[Any], scale: float, fill: int | None) -> NDArray[np.float32]:
    """Stored numbers in their unit; NaN for what stands for no data."""
    found = values.astype(np.float32)
    found *= np.float32(scale)
    if fill is not None:
        found[values == fill] = np.nan
    return found
