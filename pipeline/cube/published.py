"""A published cube, opened by its URL alone and described by its own metadata."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cached_property
from typing import Any

import zarr

from difffusr.pipeline.config import PeriodSection
from difffusr.pipeline.cube.described import (
    check_arrays,
    check_levels,
    check_root,
    check_scenes,
    check_zone,
    understood,
)
from difffusr.pipeline.cube.layout import BASE_LEVEL, lattice_of, periods_of
from difffusr.pipeline.cube.scenes import SceneTable
from difffusr.pipeline.cube.store import root_of, store_of
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage

#: Requests to the store at a time.
_REQUESTS = 16


class Cube:
    """A published cube, as its readers see it.

    Raises:
        StoreError: there is no cube, or the store cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        store = store_of(storage)
        document = store.group("")
        attributes = (document or {}).get("attributes", {})
        if not isinstance(attributes, dict) or "difffusr:zones" not in attributes:
            what = "holds no cube" if document is None else "is a Zarr store, but not a cube of this kind"
            raise StoreError(f"{storage.url}: {what}; give the URL that store.url names in the run's configuration")
        self.storage, self.attributes = storage, attributes
        check_root(attributes, storage)
        self.zones: dict[int, zarr.Group] = {}
        with understood(storage):
            self._root = root_of(store)
            for epsg in attributes["difffusr:zones"]:
                self.zones[epsg] = self.group(epsg)
                check_zone(self.zones[epsg].attrs, storage, epsg)
                check_levels(self.of_zone(epsg), storage, epsg)
                for level in range(1 + self.overviews(epsg)):
                    check_arrays(self.group(epsg, level), storage, epsg, level)

    def group(self, epsg: int, level: int = 0) -> zarr.Group:
        """A level of a zone."""
        group = self._root[f"{epsg}/{level}"]
        assert isinstance(group, zarr.Group)
        return group

    def of_zone(self, epsg: int) -> Mapping[str, Any]:
        """The attributes of a zone's own group, such as the list of its levels."""
        return dict(self._root[str(epsg)].attrs)

    def window(self, epsg: int) -> PixelWindow:
        """What a zone's arrays cover, in absolute 2.5 m pixels."""
        return PixelWindow(*self._attribute(epsg, "difffusr:window"))

    def of_crs(self, epsg: int) -> Lattice | None:
        """The pixels of a cube of one CRS; None of a UTM zone."""
        return lattice_of(self.zones[epsg].attrs)

    def lattice(self, epsg: int) -> Lattice:
        """A zone's pixels."""
        return self.of_crs(epsg) or Lattice.of_zone(epsg)

    def grid_px(self, epsg: int) -> tuple[int, int]:
        """Side of a zone's shards, and of their chunks."""
        shard, chunk = self._attribute(epsg, "difffusr:grid")
        return int(shard), int(chunk)

    def lineage(self, epsg: int) -> tuple[int, ...]:
        """The revisions that led to what readers see of a zone."""
        told: Any = dict(self.zones[epsg].attrs).get("difffusr:lineage", [0])
        return tuple(int(revision) for revision in told)

    def collar_m(self, epsg: int) -> float | None:
        """How far beyond its border a zone shows the ground, in metres; None in cubes that do not say."""
        told: Any = dict(self.zones[epsg].attrs).get("difffusr:collar_m")
        return None if told is None else float(told)

    def periods(self, epsg: int) -> dict[str, tuple[int, tuple[date, date]]]:
        """Position on the zone's time axis, first and last day of each period, by label."""
        found = {}
        for step, (start, end) in enumerate(periods_of(self.zones[epsg].attrs)):
            period = PeriodSection(start=start, end=end)
            found[period.label] = step, (period.start, period.end)
        return found

    def variables(self, epsg: int) -> list[str]:
        """The variables that have pixels."""
        return sorted(name for name, array in self.zones[epsg].arrays() if array.ndim > 2)

    def overviews(self, epsg: int) -> int:
        """Number of a zone's levels above 2.5 m."""
        attributes: Mapping[str, Any] = self.zones[epsg].attrs
        return int(attributes.get("difffusr:overviews", 0))

    @property
    def in_one_crs(self) -> bool:
        """Whether it is made of another cube's zones, in one CRS."""
        return any(self.of_crs(epsg) for epsg in self.zones)

    @property
    def derived_from(self) -> str | None:
        """The cube of UTM zones that a cube of one CRS is made of; None of others."""
        told: Any = self._provenance.get("derived_from") or {}
        return str(told["cube"]) if told.get("cube") else None

    @property
    def made_with(self) -> dict[str, Any]:
        """The provenance with the configuration of the latest run that made pixels from scenes: in a cube of one CRS
        that of the cube that it is made of."""
        told: Any = self._provenance.get("derived_from")
        return self._provenance if told is None else {**self._provenance, "config": told.get("config") or {}}

    @property
    def _provenance(self) -> dict[str, Any]:
        return dict(self.attributes.get("difffusr:provenance") or {})

    @cached_property
    def scenes(self) -> Mapping[int, Mapping[str, Any]]:
        """Facts of every scene that a `source` pixel can refer to, by number: a request for each period.

        Raises:
            StoreError: the store refuses, or a page of them is damaged.
        """

        table = SceneTable.of(self.attributes)
        with ThreadPoolExecutor(_REQUESTS, "scenes") as pool:
            pages = dict(zip(table.pages.values(), pool.map(self._page, table.pages.values()), strict=True))
        return table.facts(pages.__getitem__)

    def scenes_of(self, period: tuple[date, date]) -> Mapping[int, Mapping[str, Any]]:
        """As `scenes`, of those that pixels of a period can be of."""
        return SceneTable.of(self.attributes).facts(self._page, period)

    def _page(self, path: str) -> Mapping[int, Mapping[str, Any]]:
        with understood(self.storage):
            page = self._root[path]
            assert isinstance(page, zarr.Array)
            text = str(page[()])
        return check_scenes(text, f"{self.storage.url}/{path}")

    def array(self, epsg: int, name: str, level: int = 0) -> zarr.Array[Any]:
        """A variable, (time, band, y, x) or (time, y, x)."""
        array = self._root[f"{epsg}/{level}/{name}"]
        assert isinstance(array, zarr.Array)
        return array

    def _attribute(self, epsg: int, name: str) -> Any:
        return self.zones[epsg].attrs[name]


def held_collar_m(storage: Storage) -> float | None:
    """How far beyond their borders the zones of a cube show the ground, in metres: 0 in a cube that does not say, None
    where there is no cube.

    Raises:
        StoreError: the store refuses, or the root is damaged.
    """
    store = store_of(storage)
    zones = ((store.group("") or {}).get("attributes") or {}).get("difffusr:zones") or []
    told = [(store.group(f"{epsg}/{BASE_LEVEL}") or {}).get("attributes") or {} for epsg in zones]
    return min((float(zone.get("difffusr:collar_m", 0)) for zone in told), default=None)


def period_labels(storage: Storage) -> dict[str, tuple[date, date]]:
    """First and last day of each period of any zone, by label, from the root alone.

    Raises:
        StoreError: it is not that of a cube.
    """
    store = store_of(storage)
    root = (store.group("") or {}).get("attributes", {})
    check_root(root, storage)
    found: dict[str, tuple[date, date]] = {}
    for epsg in root["difffusr:zones"]:
        zone = (store.group(f"{epsg}/{BASE_LEVEL}") or {}).get("attributes", {})
        check_zone(zone, storage, epsg)
        periods = [PeriodSection(start=start, end=end) for start, end in periods_of(zone)]
        found |= {period.label: (period.start, period.end) for period in periods}
    return found
