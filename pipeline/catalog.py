"""STAC search → scenes: which products cover the area in the period, one of each acquisition."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import math
import os
import re
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from botocore.exceptions import BotoCoreError
from pystac.errors import STACError, STACTypeError
from pystac_client import Client, ItemSearch
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry
from stac_geoparquet.arrow import stac_table_to_items
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from kernels.bands import BANDS
from pipeline.access import bare_href, is_remote, is_url, one_line, requester_pays, resolve
from pipeline.area import area_geometry
from pipeline.config import RunConfig, Source
from pipeline.errors import CatalogError
from pipeline.scene import (
    Asset,
    Item,
    MissingBandError,
    Scene,
    cloud_cover_of,
    datetime_of,
    describe,
    footprint_of,
    nodata_of,
    scene_from_item,
    snow_cover_of,
    sun_elevation_of,
    tile_footprint,
    tile_of,
)

__all__ = ["Asset", "Scene", "bare_href", "describe", "find_scenes", "scene_from_item", "tile_footprint"]

log = logging.getLogger("difffusr.catalog")

T = TypeVar("T")

#: Seconds without a byte after which a request for a document is given up, and one for a search, which takes its time.
_DOCUMENT_S, _SEARCH_S = 20.0, 45.0

#: How often a request is tried while what fails may pass, the first pause (then twice as long, with as much as that by
#: chance), when no further try begins, and how long a server may make wait for the next.
_ATTEMPTS, _FIRST_PAUSE_S, _PATIENCE_S, _LONGEST_PAUSE_S = 4, 0.5, 60.0, 30.0


def find_scenes(config: RunConfig, bands: Sequence[str] = BANDS) -> list[Scene]:
    """The scenes of the configured source that lie in area, period, collection and limits, one per acquisition,
    ordered by (datetime, tile, id).

    A scene without one of `bands` is left out with a warning. Raises CatalogError when the source cannot be read, when
    nothing is found (saying what was searched and why items were dropped), when no scene has the bands, and when an
    item is not understood: radiometry is looked up, never guessed.
    """
    search = _Search.of(config)
    scenes: list[Scene] = []
    lacking: list[MissingBandError] = []
    for item, base in search.unique(_items(search)):
        try:
            if reason := search.why_not(item):
                search.dropped[reason] += 1
                continue
            scenes.append(scene_from_item(item, base, remote=search.remote, bands=bands))
        except MissingBandError as error:
            lacking.append(error)
        except _MALFORMED as error:
            raise CatalogError(
                f"item {item['id']}: one of its fields is not what STAC says it is: {one_line(error)}; correct the "
                "item or leave it out"
            ) from None
    if lacking and not scenes:
        more = f" (and {len(lacking) - 1} more like it)" if len(lacking) > 1 else ""
        raise CatalogError(f"no scene has all bands: {lacking[0]}{more}")
    for missing in lacking:
        log.warning("left out: %s", missing)
    if not scenes:
        raise CatalogError(search.nothing_found())
    kept = _one_per_acquisition(scenes)
    log.info("%d scenes of %d items from %s", len(kept), search.seen, search.name)
    return sorted(kept, key=_order)


#: What fields of the wrong type make of the code that reads them.
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


def _order(scene: Scene) -> tuple[dt.datetime, str, str]:
    return scene.datetime, scene.tile, scene.id


# ---- what is searched -----------------------------------------------------------------------------------------------


class _Limit(NamedTuple):
    """A bound on a property of items, and what is said of those beyond it. Items without the property are kept."""

    value_of: Callable[[Item], float | None]
    sign: Literal[1, -1]  # −1: a lower bound
    bound: float
    reason: str

    def passed(self, item: Item) -> bool:
        """Whether the item lies beyond the bound."""
        value = self.value_of(item)
        return value is not None and self.sign * value > self.sign * self.bound


def _limits(source: Source) -> tuple[_Limit, ...]:
    cloud, nodata, snow = source.max_cloud_cover, source.max_nodata, source.max_snow_cover
    sun = source.min_sun_elevation
    return (
        _Limit(cloud_cover_of, 1, cloud, f"above {cloud:g} % cloud"),
        _Limit(nodata_of, 1, nodata, f"above {nodata:g} % nodata"),
        _Limit(snow_cover_of, 1, snow, f"above {snow:g} % snow"),
        _Limit(sun_elevation_of, -1, sun, f"below {sun:g}° of sun elevation"),
    )


@dataclass
class _Search:
    """The question put to a catalogue, and the count of what came back."""

    kind: Literal["stac_api", "static_catalog", "items"]
    href: str
    collection: str | None
    start: dt.datetime
    end: dt.datetime  # exclusive
    limits: tuple[_Limit, ...]
    max_cloud: float
    tiles: frozenset[str] | None
    area: BaseGeometry  # with tiles: generously around them, to narrow the question to a server
    seen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, config: RunConfig) -> _Search:
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
            # A degree around: catalogues of crops name tiles loosely, and the filter on tiles is exact.
            area=area if tiles is None else shapely.union_all([tile_footprint(t).buffer(1) for t in sorted(tiles)]),
        )

    @property
    def name(self) -> str:
        return bare_href(self.href)

    @property
    def remote(self) -> bool:
        """Whether the catalogue is written by another machine, which must not name files of this one."""
        return is_remote(self.href)

    def unique(self, items: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, str]]:
        """Each item once, whatever number of pages or catalogues list it."""
        known: set[tuple[object, object]] = set()
        for item, base in items:
            _check_form(item, base)
            key = (str(item.get("collection")), item["id"])
            if key not in known:
                known.add(key)
                self.seen += 1
                yield item, base

    def why_not(self, item: Item) -> str | None:
        """Why an item is not wanted, None if it is."""
        properties = item.get("properties") or {}
        collection = item.get("collection")
        if self.collection is not None and collection != self.collection:
            return f"in collection {collection!r}"
        level = properties.get("s2:product_type") or properties.get("product:type")
        if level is not None and str(level) != "S2MSI2A":
            return f"of type {level}"
        if not self.start <= datetime_of(item) < self.end:
            return "outside the period"
        if self.tiles is not None:
            if tile_of(item) not in self.tiles:
                return "of other tiles"
        elif not self.area.intersects(footprint_of(item)):
            return "outside the area"
        return next((limit.reason for limit in self.limits if limit.passed(item)), None)

    def nothing_found(self) -> str:
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
        )


def _check_form(item: Item, base: str) -> None:
    """Raise CatalogError unless an item has an id by which it can be known, and objects where STAC wants objects."""
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise CatalogError(f"{bare_href(base)}: an item is without id (found {name!r}); correct it or leave it out")
    if not name.isprintable() or {"/", "\\"} & set(name) or len(name) > 255:
        raise CatalogError(
            f"item {one_line(ascii(name))}: its id holds '/', '\\', a control character or more than 255 characters; "
            "correct it or leave it out"
        )
    for part in ("properties", "assets"):
        if not isinstance(item.get(part) or {}, dict):
            raise CatalogError(f"item {name}: its {part} are a {type(item[part]).__name__}, expected an object")
    for key, asset in (item.get("assets") or {}).items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            raise CatalogError(f"item {name}: asset {key}: has no href, or is no object; correct the item")


# ---- reading catalogues ---------------------------------------------------------------------------------------------


def _items(search: _Search) -> Iterator[tuple[Item, str]]:
    """Items with the place that their relative hrefs refer to. More than asked for may come: the caller filters."""
    if search.kind == "stac_api":
        return _from_api(search)
    if search.kind == "static_catalog":
        return _from_static_catalog(search)
    return _from_item_file(search)


def _from_api(search: _Search) -> Iterator[tuple[Item, str]]:
    """The items that a STAC API answers with, page by page."""
    try:
        for answer in _ask(search):
            for item in answer.items_as_dicts():
                links = item.get("links") or []
                own = [link.get("href") for link in links if link.get("rel") == "self"]
                yield item, str(own[0]) if own else search.href
    except APIError as error:
        status = getattr(error, "status_code", None)
        what = f"answers with HTTP {status}" if status else f"cannot be reached: {_no_answer(error)}"
        todo = "" if status else "; check source.stac_api, or try again later"
        todo = _NO_API if status in (404, 405) else todo
        raise CatalogError(f"stac_api {search.name}: {what}{todo}") from None
    except (
        STACError,
        STACTypeError,
        ClientTypeError,
        PystacClientWarning,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise CatalogError(f"stac_api {search.name}: its answer is no STAC: {one_line(error)}{_NO_API}") from None
    except NotImplementedError:
        raise CatalogError(f"stac_api {search.name}: has no item search{_NO_API}") from None


_NO_API = "; a catalog.json goes under source.static_catalog, a file of items under source.items"


def _ask(search: _Search) -> list[ItemSearch]:
    """The question put to a STAC API: one search, or one on each side of 180°. Sent when iterated over."""
    with warnings.catch_warnings():
        # What pystac-client warns of is dealt with here or by the filter on what comes back.
        warnings.simplefilter("ignore", PystacClientWarning)
        client = Client.open(search.href, stac_io=_PatientIO(_SEARCH_S))
        methods = {link.extra_fields.get("method", "GET") for link in client.get_links("search")}
        if not methods:
            raise NotImplementedError
        if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
            client.add_conforms_to("ITEM_SEARCH")  # some servers forget to say so: the answer will tell
        question: dict[str, Any] = {
            "method": "POST" if "POST" in methods else "GET",
            "datetime": f"{search.start:%Y-%m-%dT%H:%M:%SZ}/{search.end:%Y-%m-%dT%H:%M:%SZ}",
            "limit": 100,  # Earth Search answers with at most 6 MB, and its items take 28 kB each
        }
        if search.collection is not None:
            question["collections"] = [search.collection]
        if search.max_cloud < 100:
            if client.conforms_to(ConformanceClasses.QUERY):
                question["query"] = {"eo:cloud_cover": {"lte": search.max_cloud}}
            else:
                log.info("%s has no query extension: clouds are filtered here", search.name)
        return [client.search(intersects=mapping(part), **question) for part in _search_shapes(search.area)]


def _search_shapes(area: BaseGeometry) -> list[BaseGeometry]:
    """What to ask a server for: at most a few small polygons that contain the area, one on each side of 180°."""
    halves = [area.intersection(box(-180, -90, 0, 90)), area.intersection(box(0, -90, 180, 90))]
    split = area.bounds[0] <= -180 and area.bounds[2] >= 180
    shapes = []
    for part in halves if split else [area]:
        if not part.is_empty:
            width, height = part.bounds[2] - part.bounds[0], part.bounds[3] - part.bounds[1]
            tolerance = max(width, height) / 100
            # Grown by more than it is straightened: no item is lost.
            rough = part if len(shapely.get_coordinates(part)) <= 10 else part.buffer(tolerance).simplify(tolerance / 2)
            shapes.append(rough.intersection(box(-180, -90, 180, 90)))
    return shapes


def _from_static_catalog(search: _Search) -> Iterator[tuple[Item, str]]:
    """The items of a catalogue's tree of files. A link that leads nowhere is an error that names both its ends."""
    start = search.href
    if not is_url(start) and os.path.isdir(start):
        start = os.path.join(start, "catalog.json")
    queue = deque([(start, "")])
    visited = {start}
    reader = _PatientIO(_DOCUMENT_S)
    with ThreadPoolExecutor(8) as pool:
        while queue:
            place, parent = queue.popleft()
            document = _read_json(reader, place, parent)
            if document.get("type") in ("Feature", "FeatureCollection"):
                yield from _features(document, place)
                continue
            links = _links(document, place)
            wanted = search.collection in (None, document.get("id")) or document.get("type") != "Collection"
            targets = []
            for link in links:
                href = link["href"]
                if href.startswith("/") and is_url(place):  # from the root of its host
                    href = urlunsplit((*urlsplit(place)[:2], href, "", ""))
                target = resolve(href, place, search.remote, f"{bare_href(place)}: link")
                if link["rel"] == "child" and target not in visited:
                    visited.add(target)
                    queue.append((target, place))
                elif link["rel"] == "item" and wanted:
                    targets.append(target)
                elif link["rel"] == "item":
                    search.seen += 1
                    search.dropped[f"in collection {document.get('id')!r}"] += 1
            for k in range(0, len(targets), 64):
                batch = targets[k : k + 64]
                documents = pool.map(lambda target, place=place: _read_json(reader, target, place), batch)
                for target, item in zip(batch, documents, strict=True):
                    if document.get("type") == "Collection" and item.get("collection") is None:
                        item["collection"] = document.get("id")
                    yield item, target


def _links(document: Item, place: str) -> list[Item]:
    """The links of a catalogue or collection that lead on."""
    links = document.get("links") or []
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise CatalogError(f"{bare_href(place)}: its links are no list of objects; check the address")
    onward = [link for link in links if link.get("rel") in ("child", "item")]
    if not all(isinstance(link.get("href"), str) and link["href"] for link in onward):
        raise CatalogError(f"{bare_href(place)}: one of its links has no href; correct the catalogue")
    return onward


def _from_item_file(search: _Search) -> Iterator[tuple[Item, str]]:
    """The items of a file that holds a FeatureCollection, a single item, or a table of items (stac-geoparquet)."""
    if urlsplit(search.href).path.lower().endswith(".parquet"):
        for item in _read_parquet(search.href):
            yield item, search.href
        return
    document = _read_json(_PatientIO(_DOCUMENT_S), search.href, "")
    if document.get("type") not in ("Feature", "FeatureCollection"):
        raise CatalogError(
            f"items {search.name}: found a {document.get('type', 'document without type')}, expected a STAC item "
            "collection (FeatureCollection); a catalog.json goes under source.static_catalog"
        )
    yield from _features(document, search.href)


#: What pyarrow and stac-geoparquet raise for what is no table of items.
_NO_TABLE = (pa.ArrowException, LookupError, TypeError, ValueError, AttributeError, AssertionError)


def _read_parquet(place: str) -> Iterator[Item]:
    """The items of a stac-geoparquet file, as they were before they became rows."""
    named = f"items {bare_href(place)}"
    data = _fetch(_PatientIO(_DOCUMENT_S), place, named)
    try:
        table = pq.read_table(io.BytesIO(data))
    except (OSError, *_NO_TABLE) as error:
        raise CatalogError(f"{named}: is not a Parquet file: {one_line(error)}") from None
    lacking = {"id", "geometry", "assets"} - set(table.column_names)
    if lacking:
        raise CatalogError(f"{named}: is not stac-geoparquet: it has no column {', '.join(sorted(lacking))}")
    # Not needed here, and the reader of such tables stumbles over items that lack it.
    table = table.drop_columns([name for name in table.column_names if name == "proj:geometry"])
    try:
        for item in stac_table_to_items(table):
            yield _without_nulls(item)
    except _NO_TABLE as error:
        raise CatalogError(f"{named}: is not stac-geoparquet: {one_line(error)}") from None


def _without_nulls(value: Any) -> Any:
    """A row's value without what only the other rows have: null fields and assets, and NaN in their place."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if not _is_null(inner)}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _features(document: Item, place: str) -> Iterator[tuple[Item, str]]:
    items = document.get("features") if document["type"] == "FeatureCollection" else [document]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CatalogError(f"{bare_href(place)}: its features are no list of items")
    items.reverse()
    while items:  # let go of what has been looked at: large collections take gigabytes
        yield items.pop(), place


class _PatientIO(StacApiIO):
    """Requests of a STAC client, repeated with growing pauses when the server is away, busy, broken or silent."""

    def __init__(self, silence_s: float) -> None:
        # Retries of the HTTP library would multiply with those here.
        super().__init__(timeout=(10, silence_s), max_retries=None)
        self.session.hooks["response"].append(_pause_as_told)

    def request(self, *args: Any, **kwargs: Any) -> str:
        return str(self._patiently(super().request, *args, **kwargs))

    def fetch(self, href: str) -> bytes:
        """The bytes at a URL. Raises APIError."""
        return bytes(self._patiently(self._get, href))

    def _get(self, href: str) -> bytes:
        try:
            response = self.session.get(href, timeout=self.timeout)
        except OSError as error:
            raise APIError(str(error)) from None
        if not response.ok:
            raise APIError.from_response(response)
        return bytes(response.content)

    def _patiently(self, request: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(_PATIENCE_S),
            wait=wait_exponential_jitter(multiplier=_FIRST_PAUSE_S, max=8, jitter=_FIRST_PAUSE_S),
            before_sleep=before_sleep_log(log, logging.DEBUG),
            reraise=True,
        )
        return attempts(request, *args, **kwargs)


def _pause_as_told(response: Any, **_: Any) -> None:
    """Wait as long as a busy server asks for, within reason."""
    asked = response.headers.get("Retry-After", "")
    if response.status_code in (429, 503) and asked.isdigit():
        time.sleep(min(float(asked), _LONGEST_PAUSE_S))


#: The kernel of what the HTTP library says of a request without an answer.
_WHY = re.compile(
    r"(?:\[Errno -?\d+\] |Failed to resolve |Connection aborted|Connection broken|IncompleteRead"
    r"|certificate verify failed|Read timed out|Connection to \S+ timed out)[^\"'\n)]*\)?"
)


def _no_answer(error: APIError) -> str:
    found = _WHY.search(one_line(error, 1000))
    return found[0] if found else one_line(error)


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, APIError):
        return False
    status = getattr(error, "status_code", None)
    return status in (None, 408, 429, 500, 502, 503, 504)


def _read_json(reader: _PatientIO, place: str, parent: str) -> Item:
    """A JSON document at a path or URL; `parent` is the document that links to it, "" for the first."""
    named = f"{bare_href(place)} (linked from {bare_href(parent)})" if parent else bare_href(place)
    data = _fetch(reader, place, named)
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        kind = "is a web page, not JSON" if data.lstrip()[:1] == b"<" else f"is not JSON: {one_line(error)}"
        raise CatalogError(f"{named}: {kind}; check the address") from None
    if not isinstance(document, dict):
        raise CatalogError(f"{named}: is not a STAC document: found a {type(document).__name__}; check the address")
    return document


def _fetch(reader: _PatientIO, place: str, named: str) -> bytes:
    """The bytes at a path or URL; CatalogError, beginning with `named`, where there are none."""
    try:
        if urlsplit(place).scheme in ("http", "https"):
            return reader.fetch(place)
        with fsspec.open(place, "rb") as file:
            return bytes(file.read())
    except APIError as error:
        status = getattr(error, "status_code", None)
        what = f"HTTP {status}" if status else _no_answer(error)
    except (OSError, ImportError, BotoCoreError, ValueError) as error:
        what = getattr(error, "strerror", None) or one_line(error)
    raise CatalogError(f"{named}: cannot be read: {what}; check the path or address, or try again later")


# ---- one scene per acquisition --------------------------------------------------------------------------------------


def _one_per_acquisition(scenes: Iterable[Scene]) -> list[Scene]:
    """Of each acquisition of a tile the best product; the rest is logged with the reason.

    Two halves of a tile that came down at different stations are no duplicates: they hardly overlap.
    """
    kept: defaultdict[tuple[str, int], list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=_rank, reverse=True):
        day = scene.datetime.toordinal()
        # Providers disagree by minutes on when a scene was taken, so look beyond midnight as well.
        near = (other for d in (day - 1, day, day + 1) for other in kept.get((scene.tile, d), ()))
        better = next((other for other in near if _same_acquisition(scene, other)), None)
        if better is None:
            kept[scene.tile, day].append(scene)
        else:
            log.info(
                "left out: %s: same acquisition as %s, which %s", describe(scene), better.id, _advantage(better, scene)
            )
    return [scene for some in kept.values() for scene in some]


class _Rank(NamedTuple):
    """What makes one product of an acquisition better than another, in order."""

    files: int
    baseline: str
    cogs: int
    free: bool
    updated: str
    name: tuple[str, str]  # so that the order of the catalogue does not matter


def _rank(scene: Scene) -> _Rank:
    assets = scene.assets.values()
    return _Rank(
        files=len(assets) + (scene.scl is not None),
        baseline=scene.baseline,
        cogs=sum(asset.driver == "GTiff" for asset in assets),
        free=not any(requester_pays(asset.href) for asset in assets),
        updated=scene.updated or "",
        name=(scene.collection, scene.id),
    )


def _advantage(better: Scene, worse: Scene) -> str:
    """Why one product is taken rather than the other, to follow "which"."""
    reasons = (
        "has more bands",
        f"has the newer baseline {better.baseline}",
        "is cheaper to read (COG)",
        "is cheaper to read (not requester pays)",
        f"was updated later ({better.updated})",
        f"is as good and comes from {better.collection or 'no collection'}",
    )
    differs = [one != other for one, other in zip(_rank(better), _rank(worse), strict=True)]
    return reasons[differs.index(True) if True in differs else -1]


def _same_acquisition(one: Scene, other: Scene) -> bool:
    if one.id == other.id:
        return True
    if one.datatake and other.datatake:
        same = one.datatake == other.datatake
    else:
        same = abs(one.datetime - other.datetime) <= dt.timedelta(minutes=1)
    if not same:
        return False
    smaller = min(one.footprint.area, other.footprint.area)
    return bool(one.footprint.intersection(other.footprint).area > 0.5 * smaller)
