"""What to search a catalogue for, and which of its items match."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config import RunConfig, SourceSection
from difffusr.pipeline.geo import area_geometry, tile_footprint
from difffusr.pipeline.ground.urls import bare_href, is_remote
from difffusr.pipeline.scenes.fields import (
    Item,
    cloud_cover_of,
    datetime_of,
    footprint_of,
    nodata_of,
    snow_cover_of,
    sun_elevation_of,
    tile_of,
)
from difffusr.pipeline.scenes.left_out import ItemError, LeftOut, shown_name
from difffusr.pipeline.scenes.level import other_level


class _Limit(NamedTuple):
    """A bound on a property of items, and the reason for dropping those beyond it. Items without it are kept."""

    value_of: Callable[[Item], float | None]
    sign: Literal[1, -1]  # −1: a lower bound
    bound: float
    reason: str

    def passed(self, item: Item) -> bool:
        """Whether the item lies beyond the bound."""
        value = self.value_of(item)
        return value is not None and self.sign * value > self.sign * self.bound


def _limits(source: SourceSection) -> tuple[_Limit, ...]:
    cloud, nodata, snow = source.max_cloud_cover, source.max_nodata, source.max_snow_cover
    sun = source.min_sun_elevation
    return (
        _Limit(cloud_cover_of, 1, cloud, f"above {cloud:g} % cloud"),
        _Limit(nodata_of, 1, nodata, f"above {nodata:g} % nodata"),
        _Limit(snow_cover_of, 1, snow, f"above {snow:g} % snow"),
        _Limit(sun_elevation_of, -1, sun, f"below {sun:g}° of sun elevation"),
    )


@dataclass
class Search:
    """What to search a catalogue for, and counts of the items that came back."""

    kind: Literal["stac_api", "static_catalog", "items"]
    href: str
    collection: str | None
    start: dt.datetime
    end: dt.datetime  # exclusive
    limits: tuple[_Limit, ...]
    max_cloud: float
    tiles: frozenset[str] | None
    area: BaseGeometry  # with tiles: generously around them, to narrow a server's search
    seen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    _known: set[tuple[str, str]] = field(default_factory=set)
    _odd: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, config: RunConfig) -> Search:
        """The search of a configuration."""
        source = config.source
        area = area_geometry(config)
        tiles = frozenset(area) if isinstance(area, list) else None
        first = dt.datetime.combine(config.period.start, dt.time(), dt.UTC)
        after = dt.datetime.combine(config.period.end + dt.timedelta(days=1), dt.time(), dt.UTC)
        kind: Literal["stac_api", "static_catalog", "items"] = (
            "stac_api" if source.stac_api else "static_catalog" if source.static_catalog else "items"
        )
        return cls(
            kind=kind,
            href=str(getattr(source, kind)),
            collection=source.collection,
            start=first,
            end=after,
            limits=_limits(source),
            max_cloud=source.max_cloud_cover,
            tiles=tiles,
            # A degree around: catalogues of crops name tiles loosely, and `why_not` is exact.
            area=area if tiles is None else shapely.union_all([tile_footprint(t).buffer(1) for t in sorted(tiles)]),
        )

    @property
    def name(self) -> str:
        """The catalogue's address, as it may be shown."""
        return bare_href(self.href)

    @property
    def remote(self) -> bool:
        """Whether the catalogue is on another machine, and so must not name files of this one."""
        return is_remote(self.href)

    def unique(self, items: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, str]]:
        """Each item once, however many pages or catalogues list it. One that is left out by `leave_out` comes again if
        it is listed again: another copy may be whole."""
        for item, base in items:
            key = _key_of(item)
            if key not in self._known:
                self._known.add(key)
                self.seen += key not in self._odd
                yield item, base

    def leave_out(self, item: Item, error: ItemError, base: str) -> None:
        """Count an item with which something is wrong; one without id is named by its document's address."""
        key = _key_of(item)
        self._known.discard(key)
        if key not in self._odd:
            self._odd.add(key)
            name = item.get("id") if isinstance(item, dict) else None
            if not isinstance(name, str) or not name:
                error = ItemError(f"{bare_href(base)}: {error}", error.reason)
            self.left_out.add(name, error)

    def why_not(self, item: Item) -> str | None:
        """Why an item is not wanted, None if it is. Raises ItemError where something is wrong with it."""
        collection = item.get("collection")
        if self.collection is not None and collection != self.collection:
            return f"in collection {shown_name(collection)!r}"
        if not self.start <= datetime_of(item) < self.end:
            return "outside the period"
        tile = tile_of(item)
        if self.tiles is not None:
            if tile not in self.tiles:
                return "of other tiles"
        elif not self.area.intersects(footprint_of(item)):
            return "outside the area"
        limit = next((limit.reason for limit in self.limits if limit.passed(item)), None)
        return limit or other_level(item)

    def nothing_found(self) -> str:
        """The message for a search without results: what was searched, and why items were dropped."""
        if self.tiles is not None:
            where = "tiles " + ", ".join(sorted(self.tiles)[:8]) + (" …" if len(self.tiles) > 8 else "")
        else:
            west, south, east, north = self.area.bounds
            where = f"area {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f}"
        last = (self.end - dt.timedelta(days=1)).date()
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return (
            f"no scene found: {self.kind} {self.name}, collection {self.collection or 'any'}, period "
            f"{self.start.date()} to {last}, {where}: {self.seen} items seen{': ' if reasons else ''}{reasons}"
            f"{'; ' + self.left_out.table() if self.left_out.count else ''}"
        )


def _key_of(item: Item) -> tuple[str, str]:
    """What two copies of an item have in common."""
    if not isinstance(item, dict):
        return "", repr(item)
    name = item.get("id")
    return repr(item.get("collection")), name if isinstance(name, str) and name else repr(item)
