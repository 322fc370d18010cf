"""What an item says about itself, read with care: any field may be missing or of any type."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config import tile_id
from difffusr.pipeline.geo import cut_at_180, tile_footprint
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes.left_out import ItemError, shown_name

Item = dict[str, Any]

#: What code that reads an item raises for fields of the wrong type, or of values beyond all bounds.
MALFORMED = (
    AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError, ShapelyError,
)  # fmt: skip


def name_of(item: Item) -> str:
    """The item's id, as it may be shown."""
    return shown_name(item.get("id"))


#: Stands in an item whose document cannot be read, and says why.
UNREAD = "difffusr:unread"


def check_form(item: Item) -> None:
    """Raise ItemError unless an item was read, has a usable id, and objects where STAC has objects."""
    if UNREAD in item:
        raise ItemError(str(item[UNREAD]), "whose document cannot be read")
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise ItemError(f"an item has no id (found {name!r:.60}); correct it or leave it out", "without id")
    if not name.isprintable() or {"/", "\\"} & set(name) or len(name) > 255:
        raise ItemError(
            f"item {one_line(ascii(name), 100)}: its id holds '/', '\\', a control character or more than 255 "
            "characters; correct it or leave it out",
            "with an id that cannot be a name",
        )
    for part in ("properties", "assets"):
        if not isinstance(item.get(part) or {}, dict):
            raise ItemError(
                f"item {name}: its {part} are a {type(item[part]).__name__}, expected an object; correct it",
                "not valid STAC",
            )


def properties_of(item: Item) -> Mapping[str, Any]:
    """The item's properties, empty where it has none."""
    found = item.get("properties")
    return found if isinstance(found, dict) else {}


def text_of(value: object) -> str | None:
    """A value as text that files can hold, None where there is none."""
    return None if value is None else str(value).encode(errors="replace").decode()


def number_in(value: object, low: float = -math.inf, high: float = math.inf) -> float | None:
    """A value as a number, None where it is not a finite one from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and low <= number <= high else None


# ---- when -----------------------------------------------------------------------------------------------------------


def datetime_of(item: Item) -> dt.datetime:
    """When the scene was taken, aware, UTC. Raises ItemError."""
    properties = properties_of(item)
    text = properties.get("datetime") or properties.get("start_datetime")
    found = _utc(text)
    if found is None:
        what = "missing" if text is None else shown_name(text)
        raise ItemError(
            f"item {name_of(item)}: its datetime is {what}, expected one of RFC 3339; correct it", "without a datetime"
        )
    return found


def timestamp_of(value: object) -> str | None:
    """A product's time in one spelling: catalogues write .4Z, .400Z and .400000Z for the same moment."""
    found = _utc(value)
    return text_of(value) if found is None else found.isoformat()


def _utc(value: object) -> dt.datetime | None:
    try:
        when = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
        if when is None or when.tzinfo is not None:
            return when and when.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # no date; beyond the years 1 to 9999 in UTC
        return None
    return when.replace(tzinfo=dt.UTC)


# ---- how much of it is of use ---------------------------------------------------------------------------------------


def cloud_cover_of(item: Item) -> float | None:
    """Per cent of the scene's valid pixels under cloud, None where the item does not say; so below."""
    return _first_number(item, "eo:cloud_cover")


def nodata_of(item: Item) -> float | None:
    """Per cent of the tile without data."""
    value = _first_number(item, "s2:nodata_pixel_percentage")
    statistics = properties_of(item).get("statistics")  # CDSE
    return number_in(statistics.get("nodata"), 0, 100) if value is None and isinstance(statistics, dict) else value


def snow_cover_of(item: Item) -> float | None:
    """Per cent of the scene's valid pixels under snow or ice."""
    return _first_number(item, "s2:snow_ice_percentage", "eo:snow_cover")


def sun_elevation_of(item: Item) -> float | None:
    """Degrees of the sun above the horizon."""
    elevation = _first_number(item, "view:sun_elevation", low=-90, high=90)
    zenith = _first_number(item, "s2:mean_solar_zenith", low=0, high=180)
    return 90 - zenith if elevation is None and zenith is not None else elevation


def _first_number(item: Item, *names: str, low: float = 0, high: float = 100) -> float | None:
    """The first of these properties that is a number within bounds."""
    values = (number_in(properties_of(item).get(name), low, high) for name in names)
    return next((value for value in values if value is not None), None)


# ---- where ----------------------------------------------------------------------------------------------------------


#: Corners of an item's footprint that are read at most: those of Sentinel-2 have up to a few hundred.
MOST_CORNERS = 10_000


def footprint_of(item: Item) -> BaseGeometry:
    """The item's polygon, valid, in EPSG:4326, cut at 180° wherever its longitudes are written. Raises ItemError."""
    problem: object = "it has none"
    if item.get("geometry") is not None:
        try:
            return _polygon(shape(item["geometry"]))
        except MALFORMED as error:
            problem = error
    raise ItemError(
        f"item {name_of(item)}: its geometry cannot be read: {one_line(problem)}; correct it", "without a footprint"
    )


def _polygon(geometry: BaseGeometry) -> BaseGeometry:
    """A geometry as valid polygons within ±180. Raises ValueError where it covers no ground."""
    if geometry.is_empty or geometry.geom_type not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"it is empty or not a polygon ({geometry.geom_type})")
    if (corners := shapely.get_num_coordinates(geometry)) > MOST_CORNERS:
        raise ValueError(f"it has {corners:,} corners, at most {MOST_CORNERS:,} are read")
    west, south, east, north = geometry.bounds
    if not (west >= -720 and east <= 720 and south >= -90 and north <= 90):  # also true where they are not finite
        raise ValueError("its coordinates are not longitudes and latitudes")
    whole = shapely.make_valid(cut_at_180(shapely.force_2d(geometry)))
    if whole.area == 0:
        raise ValueError("it covers no ground")
    return whole


def placed_footprint(item: Item, tile: str) -> BaseGeometry:
    """The item's footprint, what lies within a degree or so of its tile. Raises ItemError where that is nothing."""
    footprint, near = footprint_of(item), _around(tile)
    if near.covers(footprint):
        return footprint
    inside = footprint.intersection(near)
    if inside.area == 0:
        west, south, east, north = footprint.bounds
        raise ItemError(
            f"item {name_of(item)}: its footprint ({west:.2f}, {south:.2f} to {east:.2f}, {north:.2f}) is not where "
            f"tile {tile} is; correct it",
            "with a footprint outside its tile",
        )
    return shapely.make_valid(inside)


@lru_cache(maxsize=4096)
def _around(tile: str) -> BaseGeometry:
    """A tile and a degree around: catalogues of crops name tiles loosely."""
    grown = tile_footprint(tile).buffer(1)
    both = [shapely.transform(grown, lambda x, y, turn=turn: (x + turn, y), interleaved=False) for turn in (-360, 360)]
    near = shapely.union_all([grown, *both]).intersection(shapely.box(-180, -90, 180, 90))
    shapely.prepare(near)
    return near


def tile_of(item: Item) -> str:
    """The MGRS tile, "05ABC", from the grid, Sentinel-2 or MGRS extension, else from the id. Raises ItemError."""
    properties = properties_of(item)
    texts = [str(properties.get("grid:code", "")).removeprefix("MGRS-"), str(properties.get("s2:mgrs_tile", ""))]
    for prefix in ("mgrs", "sentinel"):
        parts = [properties.get(f"{prefix}:{part}") for part in ("utm_zone", "latitude_band", "grid_square")]
        texts.append("".join(str(part) for part in parts) if None not in parts else "")
    stated = list(dict.fromkeys(_tiles(texts)))
    if len(stated) > 1:
        raise ItemError(
            f"item {name_of(item)}: its properties name the tiles {', '.join(stated)}; correct it",
            "with contradicting tiles",
        )
    found = stated or list(_tiles(name_of(item).split("_")))
    if not found:
        raise ItemError(
            f"item {name_of(item)}: no MGRS tile in grid:code, s2:mgrs_tile, mgrs:* or the id; is it Sentinel-2?",
            "without an MGRS tile",
        )
    return found[0]


def _tiles(texts: Iterable[str]) -> Iterator[str]:
    """Those of some texts that are the id of a tile."""
    for text in texts:
        if re.fullmatch(r"T?[0-9]{1,2}[A-Z]{3}", text):
            try:
                yield tile_id(text)
            except ValueError:
                continue


# ---- which product --------------------------------------------------------------------------------------------------

#: The name of a product of level 2A.
PRODUCT = re.compile(
    r"(?P<platform>S2[A-D])_MSIL2A_(?P<start>[0-9]{8}T[0-9]{6})(?:_N(?P<baseline>[0-9]{4}))?_R[0-9]{3}_T"
    r"(?P<tile>[0-9]{2}[A-Z]{3})_"
)


def product_name(item: Item) -> str | None:
    """The name of the SAFE product: of a property, else the item's id if it is one."""
    properties = properties_of(item)
    for key in ("s2:product_uri", "sentinel:product_id", "s2:product_title"):
        if properties.get(key):
            return text_of(properties[key])
    return name_of(item) if PRODUCT.match(name_of(item)) else None


def datastrip_of(item: Item) -> str | None:
    """When the sensing of the product's datastrip began: one reprocessed is the same ground."""
    found = re.search(r"_S([0-9]{8}T[0-9]{6})(?:_|$)", str(properties_of(item).get("s2:datastrip_id") or ""))
    return found[1] if found else None
