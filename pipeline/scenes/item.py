"""A STAC item as a scene: where each band's file is, when and where it was taken, and what identifies it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo import cut_at_180, tile_epsg
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line, path_in
from difffusr.pipeline.scenes.providers import asset_names, offset_flags, provider_name, resolve
from difffusr.pipeline.scenes.radiometry import Stored, offset_dn

Item = dict[str, Any]


@dataclass(frozen=True)
class Asset:
    """One raster file of a scene.

    `href` is a URL or an absolute path. `offset_dn` is what to add to the stored DN so that reflectance is
    (DN + offset_dn) · scale: 0 or −1000 for a band, 0 for the SCL. `gsd_m` is the size of a pixel in metres (from
    `proj:transform` where the item has it). `shape` is (rows, columns); `transform` is (a, b, c, d, e, f) with
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
    where the catalogue does not say. `footprint` is in EPSG:4326, cut at 180° where it crosses. `assets` maps band
    names ("B02") to files; a scene from `find_scenes` has all bands asked for. Reflectance is
    (DN + asset.offset_dn) · `scale`. `datastrip` is when the part of the pass that it is from began, as ESA names it;
    `nodata` the per cent of the tile without data. Both are None where the catalogue does not say.
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
    datastrip: str | None = None
    nodata: float | None = None

    def version_key(self) -> str:
        """Identifies this version of the product: changes when it is reprocessed, updated, or gets other offsets. 64
        hexadecimal digits, the same in every process."""
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


#: Asset keys: `B02`, `blue`, `scl`, with an optional resolution (`B02_10m`) and Earth Search's mark of originals.
_KEY = re.compile(r"(?P<name>[a-z0-9]+)(?:_(?P<gsd>\d\d)m)?(?P<original>-jp2)?", re.IGNORECASE)

#: Metres of a pixel of each band's native file.
_NATIVE_M = {**GSD_M, "SCL": 20}

_PRODUCT = re.compile(
    r"(?P<platform>S2[A-D])_MSIL2A_(?P<start>\d{8}T\d{6})(?:_N(?P<baseline>\d{4}))?_R\d{3}_T(?P<tile>\d\d[A-Z]{3})_"
)


class MissingBandError(CatalogError):
    """An item has no file of a band that the run needs."""


def scene_from_item(item: Item, base: str, *, remote: bool = False, bands: Sequence[str] = BANDS) -> Scene:
    """A STAC item as a scene.

    `base` is the URL or path that relative hrefs refer to; `remote` says that the item is from another machine and so
    must not name local files. Raises CatalogError, naming the item, where something is missing or unknown.
    """
    item_id, properties = _id(item), item.get("properties") or {}
    product = _product_name(item)
    named = _PRODUCT.match(product or "")
    tile = tile_of(item)
    baseline = _baseline(item)
    collection = str(item.get("collection") or "")
    files = {key: value for key, value in (item.get("assets") or {}).items() if _driver(value) is not None}
    found = _native_files(files)
    missing = [band for band in bands if band not in found]
    if missing:
        raise MissingBandError(
            f"item {item_id}: no file of {', '.join(missing)} at native resolution "
            f"among the assets {', '.join(item.get('assets') or {}) or 'none'}"
        )
    assets: dict[str, Asset] = {}
    for band in bands:
        key = found[band]
        href = resolve(str(files[key]["href"]), base, remote, f"item {item_id}: asset {key}")
        offset = offset_dn(_stored(item, key, href, baseline))
        assets[band] = _asset(item_id, key, files[key], href, offset, GSD_M[band])
    scl_key = found.get("SCL")
    scl = None
    if scl_key is not None:
        href = resolve(str(files[scl_key]["href"]), base, remote, f"item {item_id}: asset {scl_key}")
        scl = _asset(item_id, scl_key, files[scl_key], href, 0, 20)
    return Scene(
        id=item_id,
        collection=collection,
        datetime=datetime_of(item),
        tile=tile,
        epsg=_epsg(item, tile),
        baseline=baseline,
        cloud_cover=100.0 if (cloud := cloud_cover_of(item)) is None else cloud,
        provider=_provider(asset.href for asset in assets.values()),
        footprint=footprint_of(item),
        assets=assets,
        scl=scl,
        product_uri=product,
        datatake=f"{named['platform']}_{named['start']}" if named else None,
        created=_timestamp(properties.get("created")),
        updated=_timestamp(properties.get("updated")),
        sequence=_text(properties.get("s2:sequence", properties.get("sentinel:sequence"))),
        datastrip=_datastrip(item),
        nodata=nodata_of(item),
    )


def _id(item: Item) -> str:
    return str(item.get("id") or "without id")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _timestamp(value: object) -> str | None:
    """A product's time in one spelling: catalogues write .4Z, .400Z and .400000Z for the same moment."""
    try:
        when = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return _text(value)
    return (when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)).isoformat()


def datetime_of(item: Item) -> dt.datetime:
    """When the scene was taken, aware, UTC. Raises CatalogError."""
    properties = item.get("properties") or {}
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        value = dt.datetime.fromisoformat(str(text))
    except ValueError:
        found = "missing" if text is None else repr(text)
        raise CatalogError(f"item {_id(item)}: its datetime is {found}, expected one of RFC 3339; correct it") from None
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def cloud_cover_of(item: Item) -> float | None:
    """Per cent of the scene's valid pixels under cloud, None where the item does not say; so below."""
    return _number(item, "eo:cloud_cover")


def nodata_of(item: Item) -> float | None:
    """Per cent of the tile without data."""
    statistics = (item.get("properties") or {}).get("statistics")  # CDSE
    more = _first_number([statistics.get("nodata")]) if isinstance(statistics, dict) else None
    value = _number(item, "s2:nodata_pixel_percentage")
    return more if value is None else value


def snow_cover_of(item: Item) -> float | None:
    """Per cent of the scene's valid pixels under snow or ice."""
    return _number(item, "s2:snow_ice_percentage", "eo:snow_cover")


def sun_elevation_of(item: Item) -> float | None:
    """Degrees of the sun above the horizon."""
    elevation, zenith = _number(item, "view:sun_elevation"), _number(item, "s2:mean_solar_zenith")
    return 90 - zenith if elevation is None and zenith is not None else elevation


def _number(item: Item, *names: str) -> float | None:
    """The first of these properties that is a number."""
    properties = item.get("properties") or {}
    return _first_number(properties.get(name) for name in names)


def _first_number(values: Iterable[object]) -> float | None:
    return next((float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)), None)


#: What shapely raises for malformed coordinates.
_NO_GEOMETRY = (ShapelyError, AttributeError, LookupError, TypeError, ValueError)


def footprint_of(item: Item) -> BaseGeometry:
    """The item's polygon, valid, in EPSG:4326, cut at 180°. Raises CatalogError."""
    if item.get("geometry") is None:
        raise CatalogError(f"item {_id(item)}: its geometry cannot be read: it has none; correct it")
    try:
        geometry = shape(item["geometry"])
    except _NO_GEOMETRY as error:
        raise CatalogError(f"item {_id(item)}: its geometry cannot be read: {one_line(error)}; correct it") from None
    if geometry.is_empty or geometry.geom_type not in ("Polygon", "MultiPolygon"):
        raise CatalogError(
            f"item {_id(item)}: its geometry is empty or not a polygon ({geometry.geom_type}); correct it"
        )
    return shapely.make_valid(cut_at_180(shapely.force_2d(geometry)))


def _product_name(item: Item) -> str | None:
    """The name of the SAFE product: of a property, else the item's id if it is one."""
    properties = item.get("properties") or {}
    for key in ("s2:product_uri", "sentinel:product_id", "s2:product_title"):
        if properties.get(key):
            return str(properties[key])
    return _id(item) if _PRODUCT.match(_id(item)) else None


def _datastrip(item: Item) -> str | None:
    """When the sensing of the product's datastrip began: one reprocessed is the same ground."""
    found = re.search(r"_S(\d{8}T\d{6})(?:_|$)", str((item.get("properties") or {}).get("s2:datastrip_id") or ""))
    return found[1] if found else None


def tile_of(item: Item) -> str:
    """The MGRS tile, "05ABC", from the grid, Sentinel-2 or MGRS extension, else from the id. Raises CatalogError."""
    properties = item.get("properties") or {}
    texts = [str(properties.get("grid:code", "")).removeprefix("MGRS-"), str(properties.get("s2:mgrs_tile", ""))]
    for prefix in ("mgrs", "sentinel"):
        parts = [properties.get(f"{prefix}:{part}") for part in ("utm_zone", "latitude_band", "grid_square")]
        texts.append("".join(str(part) for part in parts) if None not in parts else "")
    texts += [part.removeprefix("T") for part in _id(item).split("_")]
    for text in texts:
        if match := re.fullmatch(r"(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])", text):
            return f"{int(match[1]):02d}{match[2]}"
    raise CatalogError(
        f"item {_id(item)}: no MGRS tile in grid:code, s2:mgrs_tile, mgrs:* or the id; is it Sentinel-2?"
    )


def _epsg(item: Item, tile: str) -> int:
    """EPSG code of the tile's zone. Raises CatalogError where the projection extension of item or assets differs."""
    codes: set[str] = set()
    for place in [item.get("properties") or {}, *(item.get("assets") or {}).values()]:
        for key in ("proj:code", "proj:epsg"):
            if place.get(key) is not None:
                codes.add(str(place[key]).upper().removeprefix("EPSG:"))
    zone = tile_epsg(tile)
    if codes - {str(zone)}:
        found = ", ".join(sorted(codes))
        raise CatalogError(
            f"item {_id(item)}: its CRS is EPSG:{found}, but tile {tile} lies in EPSG:{zone}; correct it"
        )
    return zone


def _baseline(item: Item) -> str:
    """The processing baseline, "05.09", from the item's properties, else from the product's name."""
    properties = item.get("properties") or {}
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    for key in keys:
        if re.fullmatch(r"\d\d\.\d\d", str(properties.get(key, ""))):
            return str(properties[key])
    named = _PRODUCT.match(_product_name(item) or "")
    if named and named["baseline"]:
        return f"{named['baseline'][:2]}.{named['baseline'][2:]}"
    raise CatalogError(
        f"item {_id(item)}: its processing baseline is unknown: looked for {', '.join(keys)} and a product name with "
        "N…; add it to the item or leave the item out"
    )


def _provider(hrefs: Iterable[str]) -> str:
    """The name of who serves most of the files."""
    places = Counter(map(provider_name, hrefs))
    return places.most_common(1)[0][0] if places else "other"


def _driver(asset: Mapping[str, Any]) -> Literal["GTiff", "JP2OpenJPEG"] | None:
    """GDAL's driver by media type, else by suffix; None for other files."""
    media = str(asset.get("type") or "").lower()
    if media.startswith("image/jp2"):
        return "JP2OpenJPEG"
    if media.startswith(("image/tiff", "image/vnd.stac.geotiff")):
        return "GTiff"
    end = "" if media else path_in(str(asset.get("href") or "")).lower().rpartition(".")[2]
    return "JP2OpenJPEG" if end == "jp2" else "GTiff" if end in ("tif", "tiff") else None


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
    """An asset's resolution in metres: by its key, else gsd, else the raster or projection extension."""
    if (gsd := _parts(key)[1]) is not None:
        return gsd
    transform = _transform(asset)
    claims = (asset.get("gsd"), _raster_field(asset, "spatial_resolution"), transform[0] if transform else None)
    return next((float(claim) for claim in claims if claim is not None), None)


def _native_files(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By band, and SCL, the key of its asset at native resolution, a COG rather than a JP2."""
    names = asset_names()
    found: dict[str, list[str]] = {}
    for key, asset in files.items():
        name = _parts(key)[0]
        band = names.get(key.lower()) or names.get(name.lower(), name.upper())
        if band in _NATIVE_M and _declared_gsd(key, asset) in (_NATIVE_M[band], None):
            found.setdefault(band, []).append(key)
    return {band: min(keys, key=lambda key: (_driver(files[key]) != "GTiff", key)) for band, keys in found.items()}


@lru_cache(maxsize=1024)  # catalogues of many thousand items use few keys
def _parts(key: str) -> tuple[str, float | None]:
    """The name in an asset's key, "" where it has none, and the metres in it."""
    match = _KEY.fullmatch(key)
    return (match["name"], float(match["gsd"]) if match["gsd"] else None) if match else ("", None)


def _stored(item: Item, key: str, href: str, baseline: str) -> Stored:
    """What an item says about an asset that matters for its DN."""
    asset, properties = item["assets"][key], item.get("properties") or {}
    return Stored(
        name=f"item {_id(item)}: asset {key}",
        href=href,
        driver=str(_driver(asset)),
        collection=str(item.get("collection") or ""),
        baseline=baseline,
        flag=next((properties[name] for name in offset_flags() if isinstance(properties.get(name), bool)), None),
        declared=_raster_field(asset, "offset"),
    )


def _asset(item_id: str, key: str, asset: Mapping[str, Any], href: str, offset_dn: int, native_m: int) -> Asset:
    scale = _raster_field(asset, "scale")
    if scale is not None and abs(float(scale) - 1e-4) > 1e-9 and "scl" not in key.lower():
        raise CatalogError(f"item {item_id}: asset {key}: its raster scale is {scale}, expected 0.0001; leave it out")
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


def describe(scene: Scene) -> str:
    """A scene in one short line."""
    when = f"{scene.datetime:%Y-%m-%d %H:%M}"
    return f"{scene.id}: {scene.tile} {when} N{scene.baseline} {scene.cloud_cover:.0f} % cloud, {scene.provider}"
