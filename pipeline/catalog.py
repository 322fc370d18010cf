"""STAC search → scenes: which products cover the area in the period, where each band's file lies, and what must be
added to its DN to get reflectance.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import logging
import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec
import pyproj
import shapely
from pystac.errors import STACError, STACTypeError
from pystac.utils import make_absolute_href
from pystac_client import Client, ItemSearch
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_attempt, wait_exponential

from kernels.bands import BANDS, GSD_M
from pipeline.config import RunConfig, area_geometry
from pipeline.errors import CatalogError

log = logging.getLogger("difffusr.catalog")

Item = dict[str, Any]


@dataclass(frozen=True)
class Asset:
    """One raster file of a scene.

    `href` is a URL or an absolute path. `offset_dn` is what to add to the stored DN so that reflectance is
    (DN + offset_dn) · scale: 0 or −1000 for a band, 0 for the SCL. `gsd_m` is the size of a pixel in metres (by
    `proj:transform` where the item has one). `shape` is (rows, columns); `transform` is (a, b, c, d, e, f) with
    x = a·column + b·row + c, y = d·column + e·row + f in metres of the scene's CRS.
    """

    href: str
    gsd_m: float
    offset_dn: int
    nodata: int
    shape: tuple[int, int] | None
    transform: tuple[float, float, float, float, float, float] | None
    driver: Literal["GTiff", "JP2OpenJPEG"]


@dataclass(frozen=True)
class Scene:
    """One L2A product of one MGRS tile.

    `datetime` is aware, UTC. `tile` has the form 05ABC. `epsg` is 326xx or 327xx. `cloud_cover` is in per cent, 100
    where the catalogue does not tell. `footprint` is in EPSG:4326, cut at 180° where it crosses. `assets` maps band
    names ("B02") to files; a scene from `find_scenes` has every band asked for. Reflectance is
    (DN + asset.offset_dn) · `scale`.
    """

    id: str
    collection: str
    datetime: dt.datetime
    tile: str
    epsg: int
    baseline: str
    cloud_cover: float
    provider: str
    footprint: BaseGeometry
    assets: Mapping[str, Asset] = field(hash=False)
    scl: Asset | None
    product_uri: str | None
    datatake: str | None
    created: str | None
    updated: str | None
    sequence: str | None
    scale: float = 1e-4

    def version_key(self) -> str:
        """What makes this very product: changes when it is reprocessed, updated, or its radiometry is read otherwise.
        64 hexadecimal digits, the same in every process."""
        offsets = {band: asset.offset_dn for band, asset in sorted(self.assets.items())}
        identity = [
            self.collection,
            self.id,
            self.product_uri,
            self.baseline,
            self.created,
            self.updated,
            self.sequence,
        ]
        return hashlib.sha256(json.dumps([identity, offsets, self.scale]).encode()).hexdigest()


def find_scenes(config: RunConfig, bands: Sequence[str] = BANDS) -> list[Scene]:
    """The scenes of the configured source that lie in area, period, collection and cloud limit, one per acquisition,
    ordered by (datetime, tile, id).

    A scene without one of `bands` is left out with a warning. Raises CatalogError when the source cannot be read, when
    nothing is found (saying what was searched and why items were dropped), when no scene has the bands, and when an
    item is not understood: radiometry is looked up, never guessed.
    """
    search = _Search.of(config)
    scenes: list[Scene] = []
    lacking: list[_MissingBandError] = []
    for item, base in search.unique(_items(search)):
        if reason := search.why_not(item):
            search.dropped[reason] += 1
            continue
        try:
            scenes.append(scene_from_item(item, base, remote=search.remote, bands=bands))
        except _MissingBandError as error:
            lacking.append(error)
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


def describe(scene: Scene) -> str:
    """A scene in one short line."""
    when = f"{scene.datetime:%Y-%m-%d %H:%M}"
    return f"{scene.id}: {scene.tile} {when} N{scene.baseline} {scene.cloud_cover:.0f} % cloud, {scene.provider}"


def _order(scene: Scene) -> tuple[dt.datetime, str, str]:
    return scene.datetime, scene.tile, scene.id


# ---- what is searched -----------------------------------------------------------------------------------------------


@dataclass
class _Search:
    """The question put to a catalogue, and the count of what came back."""

    kind: Literal["stac_api", "static_catalog", "items"]
    href: str
    collection: str | None
    start: dt.datetime
    end: dt.datetime  # exclusive
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
        return _is_remote(self.href)

    def unique(self, items: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, str]]:
        """Each item once, whatever number of pages or catalogues list it."""
        known: set[tuple[object, object]] = set()
        for item, base in items:
            key = (item.get("collection"), item.get("id"))
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
        if not self.start <= _datetime(item) < self.end:
            return "outside the period"
        if self.tiles is not None:
            if _tile(item) not in self.tiles:
                return "of other tiles"
        elif not self.area.intersects(_footprint(item)):
            return "outside the area"
        cloud = _cloud_cover(item)
        if cloud is not None and cloud > self.max_cloud:
            return f"above {self.max_cloud:g} % cloud"
        return None

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


def tile_footprint(tile: str) -> BaseGeometry:
    """The 109.8 km square of an MGRS tile ("48QUE") in EPSG:4326, with 60 m around, cut at 180°.

    The 100 km square follows from the letters (NGA.STND.0037): columns repeat every three zones, rows every 2000 km
    and start at F in even zones; the latitude band tells which repetition. Raises CatalogError for an id of no tile.
    """
    zone, latitude_band, column, row = int(tile[:2]), tile[2], tile[3], tile[4]
    columns = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3]
    rows = "ABCDEFGHJKLMNPQRSTUV"
    if column not in columns:
        raise CatalogError(f"tile {tile}: zone {zone} has no column {column}, only {columns}")
    east_m = 100_000 * (columns.index(column) + 1)
    row_m = 100_000 * ((rows.index(row) - (5 if zone % 2 == 0 else 0)) % 20)
    middle = -76 + 8 * "CDEFGHJKLMNPQRSTUVWX".index(latitude_band)
    to_degrees = pyproj.Transformer.from_crs(_tile_epsg(tile), "OGC:CRS84", always_xy=True)
    repetitions = [row_m + 2_000_000 * k for k in range(5)]
    latitudes = [to_degrees.transform(500_000, north_m + 50_000)[1] for north_m in repetitions]
    north_m = min(zip(latitudes, repetitions, strict=True), key=lambda pair: abs(pair[0] - middle))[1]
    square = box(east_m - 60, north_m - 9_860, east_m + 109_860, north_m + 100_100)
    return _cut_at_180(shapely.transform(shapely.segmentize(square, 10_000), to_degrees.transform, interleaved=False))


def _tile_epsg(tile: str) -> int:
    return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])


def _cut_at_180(geometry: BaseGeometry) -> BaseGeometry:
    """A footprint that runs over 180° (and so seems wider than half the globe) as two parts, one on either side."""
    west, _, east, _ = geometry.bounds
    if east - west <= 180 or geometry.geom_type != "Polygon":
        return geometry
    unrolled = shapely.make_valid(shapely.transform(geometry, lambda x, y: ((x % 360.0), y), interleaved=False))
    here = unrolled.intersection(box(0, -90, 180, 90))
    beyond = shapely.transform(
        unrolled.intersection(box(180, -90, 360, 90)), lambda x, y: (x - 360, y), interleaved=False
    )
    return shapely.union_all([here, beyond])


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
        what = f"answers with HTTP {status}" if status else f"cannot be reached: {_one_line(error)}"
        raise CatalogError(f"stac_api {search.name}: {what}{_NO_API if status in (404, 405) else ''}") from None
    except (
        STACError,
        STACTypeError,
        ClientTypeError,
        PystacClientWarning,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise CatalogError(f"stac_api {search.name}: its answer is no STAC: {_one_line(error)}{_NO_API}") from None
    except NotImplementedError:
        raise CatalogError(f"stac_api {search.name}: has no item search{_NO_API}") from None


_NO_API = "; a catalog.json goes under source.static_catalog, a file of items under source.items"


def _ask(search: _Search) -> list[ItemSearch]:
    """The question put to a STAC API: one search, or one on each side of 180°. Sent when iterated over."""
    with warnings.catch_warnings():
        # What pystac-client warns of is dealt with here or by the filter on what comes back.
        warnings.simplefilter("ignore", PystacClientWarning)
        client = Client.open(search.href, stac_io=_PatientIO(timeout=(10, 90)))
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
    if not _is_url(start) and os.path.isdir(start):
        start = os.path.join(start, "catalog.json")
    queue = deque([(start, "")])
    visited = {start}
    reader = _PatientIO(timeout=(10, 90))
    with ThreadPoolExecutor(8) as pool:
        while queue:
            place, parent = queue.popleft()
            document = _read_json(reader, place, parent)
            if document.get("type") in ("Feature", "FeatureCollection"):
                yield from _features(document, place)
                continue
            links = [link for link in document.get("links") or [] if link.get("rel") in ("child", "item")]
            wanted = search.collection in (None, document.get("id")) or document.get("type") != "Collection"
            targets = []
            for link in links:
                href = str(link.get("href"))
                if href.startswith("/") and _is_url(place):  # from the root of its host
                    href = urlunsplit((*urlsplit(place)[:2], href, "", ""))
                target = _resolve(href, place, search.remote, f"{bare_href(place)}: link")
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


def _from_item_file(search: _Search) -> Iterator[tuple[Item, str]]:
    """The items of a file that holds a FeatureCollection or a single item."""
    document = _read_json(_PatientIO(timeout=(10, 90)), search.href, "")
    if document.get("type") not in ("Feature", "FeatureCollection"):
        raise CatalogError(
            f"items {search.name}: found a {document.get('type', 'document without type')}, expected a STAC item "
            "collection (FeatureCollection); a catalog.json goes under source.static_catalog"
        )
    yield from _features(document, search.href)


def _features(document: Item, place: str) -> Iterator[tuple[Item, str]]:
    for item in document["features"] if document["type"] == "FeatureCollection" else [document]:
        yield item, place


class _PatientIO(StacApiIO):
    """Requests of a STAC client, repeated with growing pauses when the server is away, busy or broken."""

    def request(self, *args: Any, **kwargs: Any) -> str:
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(4),
            wait=wait_exponential(multiplier=0.5, max=8),
            before_sleep=before_sleep_log(log, logging.DEBUG),
            reraise=True,
        )
        return str(attempts(super().request, *args, **kwargs))


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, APIError):
        return False
    status = getattr(error, "status_code", None)
    return status in (None, 429, 500, 502, 503, 504)


def _read_json(reader: StacApiIO, place: str, parent: str) -> Item:
    """A JSON document at a path or URL; `parent` is the document that links to it, "" for the first."""
    named = f"{bare_href(place)} (linked from {bare_href(parent)})" if parent else bare_href(place)
    try:
        if urlsplit(place).scheme in ("http", "https"):
            text = reader.request(place)
        else:
            with fsspec.open(place, "rt", encoding="utf-8") as file:
                text = file.read()
        document = json.loads(text)
    except APIError as error:
        status = getattr(error, "status_code", None)
        raise CatalogError(f"{named}: cannot be read: {f'HTTP {status}' if status else _one_line(error)}") from None
    except (OSError, ImportError) as error:
        raise CatalogError(f"{named}: cannot be read: {getattr(error, 'strerror', None) or _one_line(error)}") from None
    except ValueError as error:
        raise CatalogError(f"{named}: is not JSON: {_one_line(error)}") from None
    if not isinstance(document, dict):
        raise CatalogError(f"{named}: is not a STAC document: found a {type(document).__name__}")
    return document


def _one_line(error: object) -> str:
    """An error's text in one line of bearable length, without the query strings of URLs in it."""
    text = re.sub(r"\?[^\s'\")]+", "", " ".join(str(error).split()))
    return text if len(text) <= 200 else text[:197] + "..."


# ---- places ---------------------------------------------------------------------------------------------------------

_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")


def bare_href(href: str) -> str:
    """An href without user, query string and fragment: what may be logged."""
    if not _is_url(href):
        return href
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_url(href: str) -> bool:
    return "://" in href


def _is_remote(href: str) -> bool:
    """Whether a document comes from another machine. A server on loopback is this machine."""
    if not _is_url(href) or href.startswith("file://"):
        return False
    host = urlsplit(href).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _resolve(href: str, base: str, remote: bool, what: str) -> str:
    """An href of a document at `base` as a URL or an absolute path.

    Raises CatalogError for a scheme that is not one of storage, and for a local file named by a remote catalogue.
    """
    if base.startswith("file://"):
        base = unquote(urlsplit(base).path)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+._-]*:", href)
    if href.startswith("/"):
        pass
    elif scheme is None:
        href = str(make_absolute_href(href, base, start_is_dir=False))
    elif href.lower().startswith("file:///"):
        href = unquote(urlsplit(href).path)
    elif urlsplit(href).scheme not in _SCHEMES or not urlsplit(href).netloc:
        raise CatalogError(f"{what}: href {bare_href(href)!r}: expected a path or one of {', '.join(_SCHEMES)}://")
    if remote and not _is_url(href):
        raise CatalogError(f"{what}: href {href!r} is a local file, which a remote catalogue may not name")
    return href


def _bucket(href: str) -> str | None:
    """The bucket or storage account that a URL points into."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    if parts.scheme in ("s3", "gs", "gcs"):
        return host
    if match := re.fullmatch(r"(.+?)\.s3[.-].*amazonaws\.com|([^.]+)\.blob\.core\.windows\.net", host):
        return match[1] or match[2]
    if re.fullmatch(r"s3[.-].*amazonaws\.com|eodata\..+", host):
        return "eodata" if host.startswith("eodata.") else parts.path.split("/")[1]
    return None


# ---- one item → one scene -------------------------------------------------------------------------------------------

_COMMON_NAMES = {
    "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06",
    "rededge3": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "swir16": "B11", "swir22": "B12",
}  # fmt: skip

#: Asset keys: `B02`, `blue`, `scl` with an optional resolution (`B02_10m`) and the mark of Earth Search's originals.
_KEY = re.compile(r"(?P<name>[a-z0-9]+)(?:_(?P<gsd>\d\d)m)?(?P<original>-jp2)?", re.IGNORECASE)
_PRODUCT = re.compile(
    r"(?P<platform>S2[A-D])_MSIL2A_(?P<start>\d{8}T\d{6})(?:_N(?P<baseline>\d{4}))?_R\d{3}_T(?P<tile>\d\d[A-Z]{3})_"
)


class _MissingBandError(CatalogError):
    """An item lacks the file of a band that the run needs."""


def scene_from_item(item: Item, base: str, *, remote: bool = False, bands: Sequence[str] = BANDS) -> Scene:
    """A STAC item as a scene.

    `base` is the URL or path that relative hrefs refer to; `remote` says that the item was written by another machine,
    and so may not name local files. Raises CatalogError, naming the item, where something is missing or unknown.
    """
    item_id, properties = _id(item), item.get("properties") or {}
    product = _product_name(item)
    named = _PRODUCT.match(product or "")
    tile = _tile(item)
    baseline = _baseline(item)
    collection = str(item.get("collection") or "")
    files = {key: value for key, value in (item.get("assets") or {}).items() if _driver(value) is not None}
    found = {band: _pick(files, band, GSD_M[band]) for band in bands}
    missing = [band for band, key in found.items() if key is None]
    if missing:
        raise _MissingBandError(
            f"item {item_id}: no file of {', '.join(missing)} at native resolution "
            f"among the assets {', '.join(item.get('assets') or {}) or 'none'}"
        )
    assets: dict[str, Asset] = {}
    for band, key in found.items():
        assert key is not None
        href = _resolve(str(files[key]["href"]), base, remote, f"item {item_id}: asset {key}")
        offset = _offset_dn(item, key, href, baseline)
        assets[band] = _asset(item_id, key, files[key], href, offset, GSD_M[band])
    scl_key = _pick(files, "SCL", 20)
    scl = None
    if scl_key is not None:
        href = _resolve(str(files[scl_key]["href"]), base, remote, f"item {item_id}: asset {scl_key}")
        scl = _asset(item_id, scl_key, files[scl_key], href, 0, 20)
    return Scene(
        id=item_id,
        collection=collection,
        datetime=_datetime(item),
        tile=tile,
        epsg=_epsg(item, tile),
        baseline=baseline,
        cloud_cover=100.0 if (cloud := _cloud_cover(item)) is None else cloud,
        provider=_provider(item, [asset.href for asset in assets.values()]),
        footprint=_footprint(item),
        assets=assets,
        scl=scl,
        product_uri=product,
        datatake=f"{named['platform']}_{named['start']}" if named else None,
        created=properties.get("created"),
        updated=properties.get("updated"),
        sequence=_text(properties.get("s2:sequence", properties.get("sentinel:sequence"))),
    )


def _id(item: Item) -> str:
    return str(item.get("id") or "without id")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _datetime(item: Item) -> dt.datetime:
    properties = item.get("properties") or {}
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        value = dt.datetime.fromisoformat(str(text))
    except ValueError:
        raise CatalogError(f"item {_id(item)}: its datetime is {text!r}, expected one of RFC 3339") from None
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def _cloud_cover(item: Item) -> float | None:
    value = (item.get("properties") or {}).get("eo:cloud_cover")
    return float(value) if isinstance(value, int | float) else None


def _footprint(item: Item) -> BaseGeometry:
    try:
        geometry = shape(item["geometry"])
    except Exception as error:  # shapely raises many kinds for malformed coordinates
        raise CatalogError(f"item {_id(item)}: its geometry cannot be read: {_one_line(error)}") from None
    if geometry.is_empty or geometry.geom_type not in ("Polygon", "MultiPolygon"):
        raise CatalogError(f"item {_id(item)}: its geometry is an empty or no polygon ({geometry.geom_type})")
    return shapely.make_valid(_cut_at_180(shapely.force_2d(geometry)))


def _product_name(item: Item) -> str | None:
    """The name of the SAFE product, the item's id where it is one."""
    properties = item.get("properties") or {}
    for key in ("s2:product_uri", "sentinel:product_id", "s2:product_title"):
        if properties.get(key):
            return str(properties[key])
    return _id(item) if _PRODUCT.match(_id(item)) else None


def _tile(item: Item) -> str:
    """The MGRS tile, "05ABC", by the grid, Sentinel-2 or MGRS extension, else by the id."""
    properties = item.get("properties") or {}
    texts = [str(properties.get("grid:code", "")).removeprefix("MGRS-"), str(properties.get("s2:mgrs_tile", ""))]
    for prefix in ("mgrs", "sentinel"):
        parts = [properties.get(f"{prefix}:{part}") for part in ("utm_zone", "latitude_band", "grid_square")]
        texts.append("".join(str(part) for part in parts) if None not in parts else "")
    texts += [part.removeprefix("T") for part in _id(item).split("_")]
    for text in texts:
        if match := re.fullmatch(r"(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])", text):
            return f"{int(match[1]):02d}{match[2]}"
    raise CatalogError(f"item {_id(item)}: no MGRS tile in grid:code, s2:mgrs_tile, mgrs:* or the id")


def _epsg(item: Item, tile: str) -> int:
    """The CRS of the pixels by the projection extension of item or assets; always the zone of the tile."""
    codes: set[str] = set()
    for place in [item.get("properties") or {}, *(item.get("assets") or {}).values()]:
        for key in ("proj:code", "proj:epsg"):
            if place.get(key) is not None:
                codes.add(str(place[key]).upper().removeprefix("EPSG:"))
    zone = _tile_epsg(tile)
    if codes - {str(zone)}:
        found = ", ".join(sorted(codes))
        raise CatalogError(f"item {_id(item)}: its CRS is EPSG:{found}, but tile {tile} lies in EPSG:{zone}")
    return zone


def _baseline(item: Item) -> str:
    """The processing baseline, "05.09", by the item's properties, else by the product's name."""
    properties = item.get("properties") or {}
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    for key in keys:
        if re.fullmatch(r"\d\d\.\d\d", str(properties.get(key, ""))):
            return str(properties[key])
    named = _PRODUCT.match(_product_name(item) or "")
    if named and named["baseline"]:
        return f"{named['baseline'][:2]}.{named['baseline'][2:]}"
    raise CatalogError(
        f"item {_id(item)}: its processing baseline is unknown: looked for {', '.join(keys)} and a product name with N…"
    )


def _provider(item: Item, hrefs: Sequence[str]) -> str:
    """Who serves most of the files: a word for people, and for whoever must sign requests."""
    names = {
        "sentinel-cogs": "earth-search",
        "sentinel-s2-l2a": "earth-search",
        "e84-earth-search-sentinel-data": "earth-search",
        "sentinel2l2a01": "planetary-computer",
        "eodata": "cdse",
    }
    places = Counter(names.get(_bucket(href) or "", "local" if not _is_url(href) else "other") for href in hrefs)
    return places.most_common(1)[0][0] if places else "other"


def _driver(asset: Mapping[str, Any]) -> Literal["GTiff", "JP2OpenJPEG"] | None:
    """GDAL's driver by media type, else by the name's end; None for what is no raster file."""
    media = str(asset.get("type") or "").lower()
    end = urlsplit(str(asset.get("href") or "")).path.lower().rpartition(".")[2]
    if media.startswith("image/jp2") or (not media and end == "jp2"):
        return "JP2OpenJPEG"
    if media.startswith(("image/tiff", "image/vnd.stac.geotiff")) or (not media and end in ("tif", "tiff")):
        return "GTiff"
    return None


def _raster_field(asset: Mapping[str, Any], name: str) -> Any:
    """A field of the raster extension: v2 on the asset or its bands, v1 in raster:bands."""
    places = [asset, *(asset.get("bands") or [])[:1]]
    for place in places:
        for key in (f"raster:{name}", *((name,) if name == "nodata" else ())):
            if place.get(key) is not None:
                return place[key]
    return next((band.get(name) for band in (asset.get("raster:bands") or [])[:1]), None)


def _transform(asset: Mapping[str, Any]) -> tuple[float, float, float, float, float, float] | None:
    values = asset.get("proj:transform")
    if not values or len(values) < 6:
        return None
    a, b, c, d, e, f = (float(value) for value in values[:6])
    return a, b, c, d, e, f


def _declared_gsd(key: str, asset: Mapping[str, Any]) -> float | None:
    """The resolution that an asset claims, in metres: by its key, else gsd, else the raster or projection extension."""
    match = _KEY.fullmatch(key)
    if match and match["gsd"]:
        return float(match["gsd"])
    transform = _transform(asset)
    claims = (asset.get("gsd"), _raster_field(asset, "spatial_resolution"), transform[0] if transform else None)
    return next((float(claim) for claim in claims if claim is not None), None)


def _pick(files: Mapping[str, Mapping[str, Any]], band: str, gsd_m: int) -> str | None:
    """The key of the asset that holds a band (or the SCL) at its native resolution, a COG before a JP2."""
    keys = []
    for key, asset in files.items():
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        name = match["name"]
        if _COMMON_NAMES.get(name.lower(), name.upper()) == band and _declared_gsd(key, asset) in (gsd_m, None):
            keys.append(key)
    return min(keys, key=lambda key: (_driver(files[key]) != "GTiff", key), default=None)


def _asset(item_id: str, key: str, asset: Mapping[str, Any], href: str, offset_dn: int, native_m: int) -> Asset:
    scale = _raster_field(asset, "scale")
    if scale is not None and abs(float(scale) - 1e-4) > 1e-9 and "scl" not in key.lower():
        raise CatalogError(f"item {item_id}: asset {key}: its raster scale is {scale}, expected 0.0001")
    transform = _transform(asset)
    size = asset.get("proj:shape")
    nodata = _raster_field(asset, "nodata")
    driver = _driver(asset)
    assert driver is not None
    return Asset(
        href=href,
        gsd_m=abs(transform[0]) if transform else float(_declared_gsd(key, asset) or native_m),
        offset_dn=offset_dn,
        nodata=int(nodata) if isinstance(nodata, int | float) else 0,
        shape=(int(size[0]), int(size[1])) if size else None,
        transform=transform,
        driver=driver,
    )


# ---- radiometry -----------------------------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """Where a file lies, and what that says of its DN from baseline 04.00 on.

    `pixels` is "as produced" (ESA's offset of +1000 is in the DN, so −1000 is to be added) or "by flag" (the item's
    boa_offset_applied tells whether the host has removed it). `declared` is what becomes of the item's raster offset:
    "ignored" (it is known to be wrong there), "checked" (an error if it is there and not −0.1), "needed" (it must be).
    """

    bucket: str | None  # None: any other place
    collection: str  # regular expression
    driver: str | None
    pixels: Literal["as produced", "by flag"]
    declared: Literal["ignored", "checked", "needed"]


#: The first rule that fits is taken; where none does, radiometry is unknown.
#: - Earth Search's converter to COGs removes the offset and says so in boa_offset_applied, but copies the product's
#:   raster offset (−0.1) to COGs and originals alike. Its Collection-1 collection does not remove it.
#: - Planetary Computer (COGs) and CDSE (JP2) keep the products' DN.
#: - Copies elsewhere: COGs in the manner of Earth Search by its flag, and JP2, which nobody encodes anew, as produced.
_RADIOMETRY = (
    _Rule("sentinel-cogs", r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),
    _Rule("sentinel-s2-l2a", r".*", "JP2OpenJPEG", "as produced", "ignored"),
    _Rule("e84-earth-search-sentinel-data", r"sentinel-2-c1-l2a", "GTiff", "as produced", "checked"),
    _Rule("sentinel2l2a01", r"sentinel-2-l2a", "GTiff", "as produced", "checked"),
    _Rule("eodata", r"sentinel-2-.*l2a.*", "JP2OpenJPEG", "as produced", "checked"),
    _Rule(None, r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),
    _Rule(None, r"sentinel-2-c1-l2a", "GTiff", "as produced", "needed"),
    _Rule(None, r"sentinel-(2|2-c1|s2)-l2a", "JP2OpenJPEG", "as produced", "ignored"),
)

#: A file in the folders of a SAFE product (stactools describes such): DN as produced.
_SAFE_FILE = re.compile(r".*/IMG_DATA/R\d0m/[^/]+_B\w\w_\d0m\.(tif|jp2)")
_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


def _offset_dn(item: Item, key: str, href: str, baseline: str) -> int:
    """What to add to an asset's DN so that it is reflectance × 10 000: 0 or −1000.

    ESA adds 1000 to the DN of products from processing baseline 04.00 (25 January 2022) on, and to older acquisitions
    reprocessed since; baselines from 06.00 on are not known yet. Raises CatalogError where nothing says for sure.
    """
    major = int(baseline[:2])
    if major < 4:
        return 0
    asset = item["assets"][key]
    bucket, collection = _bucket(href), str(item.get("collection") or "")
    properties = item.get("properties") or {}
    flag = next((properties[name] for name in _FLAGS if isinstance(properties.get(name), bool)), None)
    declared = _raster_field(asset, "offset")
    rule = _rule(bucket, collection, _driver(asset), href)
    looked_at = (
        f"item {_id(item)}: asset {key} ({bare_href(href)}): radiometry unknown: bucket {bucket or 'none known'}, "
        f"collection {collection or 'none'}, baseline {baseline}, boa_offset_applied "
        f"{'absent' if flag is None else str(flag).lower()}, raster offset {'absent' if declared is None else declared}"
    )
    if major > 5 or rule is None:
        raise CatalogError(looked_at)
    if rule.pixels == "by flag":
        if flag is None:
            raise CatalogError(looked_at)
        return 0 if flag else -1000
    if rule.declared != "ignored" and (
        rule.declared == "needed" if declared is None else abs(float(declared) + 0.1) > 1e-6
    ):
        raise CatalogError(f"{looked_at}, expected a raster offset of -0.1")
    return -1000


def _rule(bucket: str | None, collection: str, driver: str | None, href: str) -> _Rule | None:
    place = bucket if bucket in {rule.bucket for rule in _RADIOMETRY} else None
    if place is None and _SAFE_FILE.fullmatch(urlsplit(href).path):
        declared: Literal["checked", "needed"] = "checked" if driver == "JP2OpenJPEG" else "needed"
        return _Rule(None, r".*", driver, "as produced", declared)
    fits = (
        rule
        for rule in _RADIOMETRY
        if rule.bucket == place and rule.driver == driver and re.fullmatch(rule.collection, collection)
    )
    return next(fits, None)


# ---- one scene per acquisition --------------------------------------------------------------------------------------


def _one_per_acquisition(scenes: Iterable[Scene]) -> list[Scene]:
    """Of each acquisition of a tile the newest baseline, then the one with an SCL, then the last updated; the rest is
    logged. Two halves of a tile that came down at different stations are no duplicates: they hardly overlap."""
    kept: dict[str, list[Scene]] = {}
    for scene in sorted(scenes, key=_rank, reverse=True):
        tile = kept.setdefault(scene.tile, [])
        better = next((other for other in tile if _same_acquisition(scene, other)), None)
        if better is None:
            tile.append(scene)
        else:
            log.info("left out: %s: same acquisition as %s", describe(scene), describe(better))
    return [scene for tile in kept.values() for scene in tile]


def _rank(scene: Scene) -> tuple[str, bool, int, str, str, str]:
    return (
        scene.baseline,
        scene.scl is not None,
        len(scene.assets),
        scene.updated or "",
        scene.collection,
        scene.id,
    )


def _same_acquisition(one: Scene, other: Scene) -> bool:
    if one.id == other.id:
        return True
    if one.datatake and other.datatake:
        same = one.datatake == other.datatake
    else:
        same = abs(one.datetime - other.datetime) <= dt.timedelta(minutes=1)
    smaller = min(one.footprint.area, other.footprint.area)
    return same and one.footprint.intersection(other.footprint).area > 0.5 * smaller
