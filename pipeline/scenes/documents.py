"""Items from a STAC API, a static catalogue, or a file of items."""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pystac.errors import STACError, STACTypeError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import bare_href, host_of, is_url, located, one_line, path_in
from difffusr.pipeline.scenes.answers import LARGEST_ANSWER, json_of
from difffusr.pipeline.scenes.fields import UNREAD
from difffusr.pipeline.scenes.item import Item
from difffusr.pipeline.scenes.pages import PageRequest, pages_of
from difffusr.pipeline.scenes.providers import resolve
from difffusr.pipeline.scenes.question import Search
from difffusr.pipeline.scenes.requests import DOCUMENT_S, SEARCH_S, PatientIO, RequestFailedError
from difffusr.pipeline.storage import place_of, store_failures

log = logging.getLogger("difffusr.catalog")


def items_of(search: Search) -> Iterator[tuple[Item, str]]:
    """Items, each with the path or URL that its relative hrefs refer to. May yield more than asked for: the caller
    filters."""
    if search.kind == "stac_api":
        return _from_api(search)
    if search.kind == "static_catalog":
        return _from_static_catalog(search)
    return _from_item_file(search)


def _from_api(search: Search) -> Iterator[tuple[Item, str]]:
    """The items of a STAC API, page by page."""
    try:
        reader = PatientIO(SEARCH_S)
        for question in _ask(search, reader):
            for items in pages_of(reader, question, search.name):
                for item in _objects(items, search):
                    yield item, _own_address(item, search.href)
    except RequestFailedError as error:
        status = error.status_code
        elsewhere = f" ({error.host})" if error.host != host_of(search.href) else ""
        what = f"answers with HTTP {status}{elsewhere}" if status else f"cannot be reached: {error}"
        todo = _NO_API if status in (404, 405) else "" if status else "; check source.stac_api, or try again later"
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
        raise CatalogError(
            f"stac_api {search.name}: its answer is not valid STAC: {one_line(error)}{_NO_API}"
        ) from None
    except NotImplementedError:
        raise CatalogError(f"stac_api {search.name}: has no item search{_NO_API}") from None


def _own_address(item: Item, asked: str) -> str:
    """Where an item of an API says that it lies; the API's address where it says nothing of use."""
    links = item.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "self":
            with suppress(ValueError):
                own = located(str(link.get("href") or ""), asked)
                return own if own.startswith(("http://", "https://")) else asked
    return asked


_NO_API = "; a catalog.json goes under source.static_catalog, a file of items under source.items"


def _ask(search: Search, reader: PatientIO) -> list[PageRequest]:
    """The searches of a STAC API: one, or one on each side of 180°."""
    with warnings.catch_warnings():
        # What pystac-client warns about is handled here or by the caller's filter.
        warnings.simplefilter("ignore", PystacClientWarning)
        client = Client.open(search.href, stac_io=reader)
        methods = {link.extra_fields.get("method", "GET") for link in client.get_links("search")}
        if not methods:
            raise NotImplementedError
        if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
            client.add_conforms_to("ITEM_SEARCH")  # some servers do not declare it
        question: dict[str, Any] = {
            "method": "POST" if "POST" in methods else "GET",
            "datetime": f"{search.start:%Y-%m-%dT%H:%M:%SZ}/{search.end:%Y-%m-%dT%H:%M:%SZ}",
            "limit": 100,  # Earth Search answers with at most 6 MB, and its items have 28 kB each
        }
        if search.collection is not None:
            question["collections"] = [search.collection]
        if search.max_cloud < 100:
            if client.conforms_to(ConformanceClasses.QUERY):
                question["query"] = {"eo:cloud_cover": {"lte": search.max_cloud}}
            else:
                log.info("%s has no query extension: clouds are filtered here", search.name)
        searches = [client.search(intersects=mapping(part), **question) for part in _search_shapes(search.area)]
    return [
        PageRequest.of(str(one.method), located(str(one.url), search.href), one.get_parameters()) for one in searches
    ]


def _search_shapes(area: BaseGeometry) -> list[BaseGeometry]:
    """Simple polygons that contain the area, to search for: one, or one on each side of 180°."""
    halves = [area.intersection(box(-180, -90, 0, 90)), area.intersection(box(0, -90, 180, 90))]
    split = area.bounds[0] <= -180 and area.bounds[2] >= 180
    shapes = []
    for part in halves if split else [area]:
        if not part.is_empty:
            width, height = part.bounds[2] - part.bounds[0], part.bounds[3] - part.bounds[1]
            tolerance = max(width, height) / 100
            # Grown by more than it is simplified, so that no item is lost.
            simple = len(shapely.get_coordinates(part)) <= 10
            rough = part if simple else part.simplify(tolerance / 4).buffer(tolerance).simplify(tolerance / 2)
            shapes.append(rough.intersection(box(-180, -90, 180, 90)))
    return shapes


#: Catalogues of a tree that are read at most: one a day and tile, for ten tiles over five years.
MOST_CATALOGS = 20_000


def _from_static_catalog(search: Search) -> Iterator[tuple[Item, str]]:
    """The items of a catalogue's tree of files. A broken link to a catalogue is an error that names both ends; what is
    yielded for a broken link to an item says under `UNREAD` what is wrong."""
    start = search.href
    if not is_url(start) and os.path.isdir(start):
        start = os.path.join(start, "catalog.json")
    queue = deque([(start, "")])
    visited = {start}
    reader = PatientIO(DOCUMENT_S)
    with ThreadPoolExecutor(8) as pool:
        while queue:
            place, parent = queue.popleft()
            document = _read_json(reader, place, parent)
            if len(visited) > MOST_CATALOGS:
                raise CatalogError(
                    f"static_catalog {search.name}: links to more than {MOST_CATALOGS:,} catalogues, the last in "
                    f"{bare_href(place)}: not read further; give a part of it as source.static_catalog"
                )
            if document.get("type") in ("Feature", "FeatureCollection"):
                yield from _features(document, place, search)
                continue
            links = _links(document, place)
            wanted = search.collection in (None, document.get("id")) or document.get("type") != "Collection"
            targets = []
            for link in links:
                target = resolve(link["href"], place, search.remote, f"{bare_href(place)}: link")
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
                documents = pool.map(lambda target, place=place: _read_item(reader, target, place), batch)
                for target, item in zip(batch, documents, strict=True):
                    if document.get("type") == "Collection" and item.get("collection") is None:
                        item["collection"] = document.get("id")
                    yield item, target


def _read_item(reader: PatientIO, place: str, parent: str) -> Item:
    try:
        return _read_json(reader, place, parent)
    except CatalogError as error:
        return {"id": path_in(place).rpartition("/")[2], UNREAD: str(error)}


def _links(document: Item, place: str) -> list[Item]:
    """The links of a catalogue or collection to children and items."""
    links = document.get("links") or []
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise CatalogError(f"{bare_href(place)}: its links are not a list of objects; check the address")
    onward = [link for link in links if link.get("rel") in ("child", "item")]
    if not all(isinstance(link.get("href"), str) and link["href"] for link in onward):
        raise CatalogError(f"{bare_href(place)}: one of its links has no href; correct the catalogue")
    return onward


def _from_item_file(search: Search) -> Iterator[tuple[Item, str]]:
    """The items of a file: a FeatureCollection, a single item, or a table of items (stac-geoparquet)."""
    if path_in(search.href).lower().endswith(".parquet"):
        for item in _read_parquet(search.href):
            yield item, search.href
        return
    document = _read_json(PatientIO(DOCUMENT_S), search.href, "")
    if document.get("type") not in ("Feature", "FeatureCollection"):
        raise CatalogError(
            f"items {search.name}: found a {document.get('type', 'document without type')}, expected a STAC item "
            "collection (FeatureCollection); a catalog.json goes under source.static_catalog"
        )
    yield from _features(document, search.href, search)


#: What pyarrow and stac-geoparquet raise where a file is not a table of items.
_NO_TABLE = (pa.ArrowException, LookupError, TypeError, ValueError, AttributeError, AssertionError)


def _read_parquet(place: str) -> Iterator[Item]:
    """The items of a stac-geoparquet file, as they were before they became rows."""
    from stac_geoparquet.arrow import stac_table_to_items  # imports geopandas

    named = f"items {bare_href(place)}"
    data = fetched(PatientIO(DOCUMENT_S), place, named)
    try:
        table = pq.read_table(io.BytesIO(data))
    except (OSError, *_NO_TABLE) as error:
        raise CatalogError(f"{named}: is not a Parquet file: {one_line(error)}") from None
    lacking = {"id", "geometry", "assets"} - set(table.column_names)
    if lacking:
        raise CatalogError(f"{named}: is not stac-geoparquet: it has no column {', '.join(sorted(lacking))}")
    # Not needed here, and stac-geoparquet fails where an item lacks it.
    table = table.drop_columns([name for name in table.column_names if name == "proj:geometry"])
    try:
        for item in stac_table_to_items(table):
            yield _without_nulls(item)
    except _NO_TABLE as error:
        raise CatalogError(f"{named}: is not stac-geoparquet: {one_line(error)}") from None


def _without_nulls(value: Any) -> Any:
    """A row's value without the fields and assets that only other rows have: null or NaN here."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if not _is_null(inner)}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _features(document: Item, place: str, search: Search) -> Iterator[tuple[Item, str]]:
    items = document.get("features") if document["type"] == "FeatureCollection" else [document]
    if not isinstance(items, list) or (items and not any(isinstance(item, dict) for item in items)):
        raise CatalogError(f"{bare_href(place)}: its features are not a list of items")
    for item in _objects(items, search):
        yield item, place


def _objects(items: list[Any], search: Search) -> Iterator[Item]:
    """The items of a list, which is empty afterwards; what is no object is counted."""
    items.reverse()
    while items:  # free what has been used: large collections take gigabytes
        item = items.pop()
        if isinstance(item, dict):
            yield item
        else:
            search.seen += 1
            search.dropped["that are no objects"] += 1


def _read_json(reader: PatientIO, place: str, parent: str) -> Item:
    """The JSON document at a path or URL; `parent` is the document that links to it, "" for the first."""
    named = f"{bare_href(place)} (linked from {bare_href(parent)})" if parent else bare_href(place)
    data = fetched(reader, place, named)
    try:
        document = json_of(data)  # with a byte order mark or without
    except (ValueError, RecursionError) as error:
        kind = "is a web page, not JSON" if data.lstrip()[:1] == b"<" else f"is not JSON: {one_line(error)}"
        raise CatalogError(f"{named}: {kind}; check the address") from None
    if not isinstance(document, dict):
        raise CatalogError(f"{named}: is not a STAC document: found a {type(document).__name__}; check the address")
    return document


def fetched(reader: PatientIO, place: str, named: str, options: Mapping[str, Any] | None = None) -> bytes:
    """The bytes at a path or URL. Raises CatalogError, whose text begins with `named`. `options` are fsspec's."""
    try:
        if place.startswith(("http://", "https://")):
            return reader.fetch(place)
        fs, path = place_of(place, options)
        if is_url(place) and (size := fs.size(path)) is not None and size > LARGEST_ANSWER:
            raise ValueError(f"it has {size / 1e6:,.0f} MB, at most {LARGEST_ANSWER >> 20} are read")
        return bytes(fs.cat_file(path))
    except RequestFailedError as error:
        elsewhere = f" ({error.host})" if error.host != host_of(place) else ""
        what = f"HTTP {error.status_code}{elsewhere}" if error.status_code else str(error)
    except store_failures() as error:
        what = getattr(error, "strerror", None) or one_line(error)
    raise CatalogError(f"{named}: cannot be read: {what}; check the path or address, or try again later")
