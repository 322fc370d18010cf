"""A STAC item as a scene: where each band's file is, when and where it was taken, and what identifies it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo import tile_epsg
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.scenes.angles import MeanAngles, granule_metadata, mean_angles
from difffusr.pipeline.scenes.correction import Correction
from difffusr.pipeline.scenes.fields import (
    PRODUCT,
    cloud_cover_of,
    datastrip_of,
    datetime_of,
    name_of,
    nodata_of,
    number_in,
    placed_footprint,
    product_name,
    properties_of,
    text_of,
    tile_of,
    timestamp_of,
)
from difffusr.pipeline.scenes.fields import Item as Item
from difffusr.pipeline.scenes.hints import (
    NATIVE_M,
    bounds_in_zone,
    driver_of,
    native_files,
    place_of,
    raster_number,
    raster_values,
)
from difffusr.pipeline.scenes.left_out import ItemError, MissingBandError, shown_name
from difffusr.pipeline.scenes.level import check_level_of_file
from difffusr.pipeline.scenes.providers import offset_flags, provider_name, resolve
from difffusr.pipeline.scenes.radiometry import Stored, offset_dn


@dataclass(frozen=True)
class Asset:
    """One raster file of a scene.

    `href` is a URL or an absolute path. `offset_dn` is what to add to the stored DN so that reflectance is
    (DN + offset_dn) · scale: 0 or −1000 for a band, 0 for the SCL. `gsd_m` is the size of a pixel in metres. `shape`
    is (rows, columns); `transform` is (a, b, c, d, e, f) with x = a·column + b·row + c, y = d·column + e·row + f in
    metres of the scene's CRS; both are None where the item does not say or is not believed: the file decides. `scale`
    is the raster scale that the item declares.
    """

    href: str
    gsd_m: float
    offset_dn: int
    nodata: int
    shape: tuple[int, int] | None
    transform: tuple[float, float, float, float, float, float] | None
    driver: Literal["GTiff", "JP2OpenJPEG"]
    scale: float | None = None


@dataclass(frozen=True)
class Scene:
    """One L2A product of one MGRS tile.

    `datetime` is aware, UTC. `tile` has the form 05ABC. `epsg` is 326xx or 327xx. `cloud_cover` is in per cent, 100
    where the catalogue does not say. `footprint` is in EPSG:4326, cut at 180° where it crosses. `assets` maps band
    names ("B02") to files; a scene from `find_scenes` has all bands asked for. Reflectance is
    (DN + asset.offset_dn) · `scale`. `datastrip` is when the part of the pass that it is from began, as ESA names it;
    `nodata` the per cent of the tile without data. `granule` is the address of the granule's metadata (MTD_TL.xml),
    `angles` are the mean ones that the item states. All four are None where the catalogue does not say. `correction` is
    what is done to the DN so that the scenes of a run agree, None for nothing. `cloud` is the product's own cloud
    probability in per cent, None where there is none.
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
    granule: str | None = None
    angles: MeanAngles | None = None
    correction: Correction | None = field(default=None, hash=False)
    cloud: Asset | None = None

    def file(self, band: str) -> Asset:
        """The file of a band, of the scene classification ("SCL") or of the cloud probability ("CLD"). Raises KeyError
        where the scene has none."""
        found = {"SCL": self.scl, "CLD": self.cloud}.get(band) or self.assets.get(band)
        if found is None:
            raise KeyError(f"{self.id} has no {band}")
        return found

    @property
    def acquisition(self) -> str:
        """The same for all scenes of one pass of one satellite, which show the same ground alike."""
        return self.datatake or f"{self.datetime:%Y%m%d}"

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

    def pixels_key(self) -> str:
        """As `version_key`, but changes with the correction as well: identifies the DN that a chip is made of."""
        if self.correction is None:
            return self.version_key()
        return hashlib.sha256(f"{self.version_key()} {self.correction.key()}".encode()).hexdigest()


def scene_from_item(
    item: Item,
    base: str,
    *,
    remote: bool = False,
    bands: Sequence[str] = BANDS,
    doubt: Callable[[str], None] = lambda _: None,
) -> Scene:
    """A STAC item as a scene.

    `base` is the URL or path that relative hrefs refer to; `remote` says that the item is from another machine and so
    must not name local files. `doubt` is told of each file whose place in the item is implausible and so ignored.
    Raises ItemError, naming the item, where something is missing, unknown or contradicts itself.
    """
    item_id, properties = name_of(item), properties_of(item)
    product = product_name(item)
    named = PRODUCT.match(product or "")
    tile = tile_of(item)
    reader = _FileReader(item, base, remote, baseline_of(item), doubt)
    missing = [band for band in bands if band not in reader.keys]
    if missing:
        there = item.get("assets") or {}
        names = [shown_name(key) + ("" if _has_href(asset) else " (without href)") for key, asset in there.items()]
        raise MissingBandError(
            f"item {item_id}: no file of {', '.join(missing)} at native resolution among the assets "
            f"{one_line(', '.join(names), 1000) or 'none'}"
        )
    epsg = _epsg(item, tile, [reader.keys[band] for band in (*bands, "SCL") if band in reader.keys])
    footprint = placed_footprint(item, tile)
    ground = bounds_in_zone(footprint, epsg)
    assets = {band: reader.asset(band, ground) for band in bands}
    scl = reader.asset("SCL", ground) if "SCL" in reader.keys else None
    probability = None
    if "CLD" in reader.keys:
        with suppress(ItemError):  # what few ask for must not cost a scene
            probability = reader.asset("CLD", ground)
    return Scene(
        id=item_id,
        collection=text_of(item.get("collection")) or "",
        datetime=datetime_of(item),
        tile=tile,
        epsg=epsg,
        baseline=reader.baseline,
        cloud_cover=100.0 if (cloud := cloud_cover_of(item)) is None else cloud,
        provider=_provider(asset.href for asset in assets.values()),
        footprint=footprint,
        assets=assets,
        scl=scl,
        product_uri=product,
        datatake=f"{named['platform']}_{named['start']}" if named else None,
        created=timestamp_of(properties.get("created")),
        updated=timestamp_of(properties.get("updated")),
        sequence=text_of(properties.get("s2:sequence", properties.get("sentinel:sequence"))),
        datastrip=datastrip_of(item),
        nodata=nodata_of(item),
        granule=reader.granule(),
        angles=mean_angles(properties),
        cloud=probability,
    )


def _has_href(asset: object) -> bool:
    return isinstance(asset, dict) and isinstance(asset.get("href"), str) and bool(asset["href"])


def _epsg(item: Item, tile: str, keys: Iterable[str]) -> int:
    """EPSG code of the tile's zone. Raises ItemError where the projection of the item or of these assets differs."""
    codes: set[str] = set()
    for place in (properties_of(item), *(item["assets"][key] for key in keys)):
        for value in (place.get("proj:code"), place.get("proj:epsg")):
            if value is not None:
                number = number_in(value)
                text = str(value) if number is None or number != int(number) else str(int(number))
                codes.add(text.strip().upper().removeprefix("EPSG:"))
    zone = tile_epsg(tile)
    if codes - {str(zone)}:
        raise ItemError(
            f"item {name_of(item)}: its CRS is EPSG:{one_line(', '.join(sorted(codes)))}, but tile {tile} lies in "
            f"EPSG:{zone}; correct it",
            "with a CRS that is not its tile's",
        )
    return zone


_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")


def baseline_of(item: Item) -> str:
    """The processing baseline, "05.09", from the item's properties, else from the product's name. Raises ItemError
    where it is unknown, or where one says that DN have the offset of baseline 04.00 and another that they have not."""
    stated = {
        key: value
        for key, value in ((key, properties_of(item).get(key)) for key in _BASELINES)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{2}\.[0-9]{2}", value)
    }
    named = PRODUCT.match(product_name(item) or "")
    if named and named["baseline"]:
        stated["product name"] = f"{named['baseline'][:2]}.{named['baseline'][2:]}"
    if not stated:
        raise ItemError(
            f"item {name_of(item)}: its processing baseline is unknown: looked for {', '.join(_BASELINES)} and a "
            "product name with N…; add it to the item or leave the item out",
            "of unknown baseline",
        )
    eras = [_era(value) for value in stated.values()]
    if {"old", "new"} <= set(eras) or (eras[0] == "unknown" and "old" in eras):
        told = ", ".join(f"{key} {value}" for key, value in stated.items())
        raise ItemError(
            f"item {name_of(item)}: its processing baselines contradict each other: {told}; correct it",
            "with contradicting baselines",
        )
    return next(iter(stated.values()))


def _era(baseline: str) -> str:
    """Whether products of a baseline are of before or after DN got their offset; "unknown" for others."""
    return "unknown" if not "01" <= baseline[:2] <= "05" else "new" if baseline >= "04.00" else "old"


def _provider(hrefs: Iterable[str]) -> str:
    """The name of who serves most of the files."""
    places = Counter(map(provider_name, hrefs))
    return places.most_common(1)[0][0] if places else "other"


class _FileReader:
    """Reads the assets of one item. `keys` are those of native files, by band; see `scene_from_item`."""

    def __init__(self, item: Item, base: str, remote: bool, baseline: str, doubt: Callable[[str], None]) -> None:
        self.item, self.base, self.remote, self.baseline, self.doubt = item, base, remote, baseline, doubt
        self.keys = native_files(item.get("assets") or {})

    def asset(self, band: str, ground: tuple[float, float, float, float]) -> Asset:
        """The file of a band, "SCL" or "CLD"; `ground` as in `place_of`. Raises ItemError."""
        key = self.keys[band]
        what, said = f"item {name_of(self.item)}: asset {shown_name(key)}", self.item["assets"][key]
        href = self._href(said["href"], what)
        offset, scale = (0, None) if band in ("SCL", "CLD") else self._values(key, what, href)
        place = place_of(said, NATIVE_M[band], ground)
        if place.implausible and band != "CLD":
            self.doubt(what)
        driver, nodata = driver_of(said), [number_in(value, 0, 65535) for value in raster_values(said, "nodata")[:1]]
        assert driver is not None
        return Asset(
            href=href,
            gsd_m=place.gsd_m,
            offset_dn=offset,
            nodata=int(nodata[0] or 0) if nodata else 0,
            shape=place.shape,
            transform=place.transform,
            driver=driver,
            scale=scale,
        )

    def granule(self) -> str | None:
        """The address of the granule's metadata; None where none is known that can be used."""
        key = granule_metadata(self.item.get("assets") or {})
        if key is not None:
            try:
                return self._href(
                    self.item["assets"][key]["href"], f"item {name_of(self.item)}: asset {shown_name(key)}"
                )
            except ItemError:
                return None
        # In a product's folder the metadata lie beside its pixels.
        folder, inside, _ = self._href(self.item["assets"][self.keys["B02"]]["href"], "").partition("/IMG_DATA/")
        return f"{folder}/MTD_TL.xml" if inside else None

    def _href(self, href: str, what: str) -> str:
        try:
            found = resolve(href, self.base, self.remote, what)
        except (CatalogError, ValueError) as error:
            text = str(error) if isinstance(error, CatalogError) else f"{what}: its href is no address; correct it"
            raise ItemError(text, "with an address that cannot be used") from None
        if not found.isprintable():
            raise ItemError(
                f"{what}: its href holds control characters; correct it", "with an address that cannot be used"
            )
        check_level_of_file(what, found)
        return found

    def _values(self, key: str, what: str, href: str) -> tuple[int, float | None]:
        """What to add to the band's DN, and the scale that the item declares."""
        said, properties = self.item["assets"][key], properties_of(self.item)
        scale = raster_number(what, said, "scale")
        if scale is not None and abs(scale - 1e-4) > 1e-9:
            raise ItemError(
                f"{what}: its raster scale is {scale:g}, expected 0.0001; leave it out", "with another raster scale"
            )
        flags = {properties[name] for name in offset_flags() if isinstance(properties.get(name), bool)}
        if len(flags) > 1:
            raise ItemError(
                f"{what}: {' and '.join(offset_flags())} contradict each other; correct the item", "radiometry unknown"
            )
        stored = Stored(
            name=what,
            href=href,
            driver=str(driver_of(said)),
            collection=str(self.item.get("collection") or ""),
            baseline=self.baseline,
            flag=flags.pop() if flags else None,
            declared=raster_number(what, said, "offset"),
        )
        return offset_dn(stored), scale


def describe(scene: Scene) -> str:
    """A scene in one short line."""
    when = f"{scene.datetime:%Y-%m-%d %H:%M}"
    return f"{scene.id}: {scene.tile} {when} N{scene.baseline} {scene.cloud_cover:.0f} % cloud, {scene.provider}"
