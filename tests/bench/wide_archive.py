"""An archive as wide as a country or a continent, to plan over: every tile of the MGRS grid that the area touches, each
on several dates, with scene classifications to look at. Its bands are named but not there.

Clouds are made once and shared: a tile's files are copies of a few classifications of 5490 × 5490 pixels with the
tile's own position, and its dates take them by turns.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.shutil import copy as copy_raster
from shapely.geometry import box, mapping
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.geo.zones import territory, zones_over
from difffusr.pipeline.ground.errors import CatalogError

#: Germany's border by its best known corners (degrees): within a few kilometres, which is all a plan's size needs.
GERMANY = shapely.Polygon(
    [
        (8.6, 54.9), (9.4, 54.8), (10.0, 54.5), (11.0, 54.4), (11.2, 54.0), (12.5, 54.5), (13.4, 54.7), (14.2, 53.9),
        (14.4, 53.2), (14.1, 52.8), (14.7, 52.1), (14.6, 51.6), (15.0, 51.1), (14.3, 51.0), (12.9, 50.4), (12.1, 50.3),
        (12.5, 49.7), (13.8, 48.8), (12.8, 48.2), (13.0, 47.5), (12.2, 47.6), (11.0, 47.4), (10.2, 47.3), (9.6, 47.5),
        (8.6, 47.7), (7.6, 47.6), (7.6, 48.1), (8.2, 49.0), (6.4, 49.5), (6.1, 50.1), (6.0, 51.0), (6.1, 51.9),
        (7.0, 52.2), (7.1, 53.3), (7.0, 53.7), (8.5, 53.9), (8.8, 54.3),
    ]
)  # fmt: skip

_PATTERNS = 6
_FIRST = dt.datetime(2023, 6, 1, 10, 20, tzinfo=dt.UTC)
_SIZE = 5490
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


def write_archive(folder: Path, area: BaseGeometry, dates: int, patterns_a_tile: int = _PATTERNS) -> Path:
    """Write an archive over an area in EPSG:4326; returns its item collection.

    Args:
        dates: acquisitions of every tile, three days apart from 1 June 2023.
        patterns_a_tile: how many files a tile has; more dates than these share them.
    """
    patterns = [_write_pattern(folder / f"pattern-{number}.tif", number) for number in range(_PATTERNS)]
    items = []
    for tile in tiles_over(area):
        turn = sum(map(ord, tile))
        count = min(patterns_a_tile, dates)
        files = [_place(patterns[(number + turn) % _PATTERNS], folder, tile, number) for number in range(count)]
        items += [_item(tile, _FIRST + dt.timedelta(3 * date), files[date % count]) for date in range(dates)]
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def tiles_over(area: BaseGeometry) -> list[str]:
    """The MGRS tiles that show some of an area in their own zone's territory."""
    found = []
    for epsg in zones_over(area):
        for band in _BANDS:
            south = -80 + 8 * _BANDS.index(band)
            part = area.intersection(territory(epsg)).intersection(box(-180, south, 180, south + 8))
            shapely.prepare(part)
            tiles = [f"{epsg % 100:02d}{band}{square}" for square in _squares(epsg % 100)] if part.area else []
            for tile in tiles:
                footprint = _footprint(tile)
                if footprint and south <= footprint.centroid.y < south + 8 and part.intersects(footprint):
                    found.append(tile)
    return sorted(found)


def _squares(zone: int) -> list[str]:
    """Letters of the 100 km squares of a zone: column and row (NGA.STND.0037)."""
    columns = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3]
    return [column + row for column in columns for row in "ABCDEFGHJKLMNPQRSTUV"]


@cache
def _footprint(tile: str) -> BaseGeometry | None:
    try:
        return tile_footprint(tile)
    except CatalogError:
        return None


def _write_pattern(path: Path, number: int) -> Path:
    """A classification: vegetation under clouds and their shadows, as sums of smooth waves cut at a height."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:_SIZE:10, 0:_SIZE:10] / _SIZE
    field = np.zeros(x.shape)
    for octave in range(1, 7):
        for _ in range(4):
            fx, fy = rng.normal(0, 2.0**octave, 2)
            field += rng.normal() / 2**octave * np.sin(2 * np.pi * (fx * x + fy * y) + rng.uniform(0, 6.28))
    field = field.repeat(10, axis=0).repeat(10, axis=1)[:_SIZE, :_SIZE]
    cut = np.quantile(field, 1 - (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)[number % 6])
    classes = np.where(field > cut, 9, np.where(field > cut - 0.05, 3, 4)).astype(np.uint8)
    options = {"driver": "GTiff", "height": _SIZE, "width": _SIZE, "count": 1, "dtype": "uint8", "nodata": 0}
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(plain, "w", crs="EPSG:32632", transform=_transform(399_960, 5_300_040), **options) as file:
        file.write(classes, 1)
    copy_raster(plain, path, driver="COG", compress="DEFLATE", blocksize=512, overview_resampling="nearest")
    plain.unlink()
    return path


def _place(pattern: Path, folder: Path, tile: str, number: int) -> dict[str, Any]:
    """A copy of a classification where a tile lies: path, and position of its corner in metres."""
    epsg = (32600 if tile[2] >= "N" else 32700) + int(tile[:2])
    left, top = _corner(tile, epsg)
    path = folder / f"{tile}-{number}.tif"
    shutil.copyfile(pattern, path)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.crs, file.transform = f"EPSG:{epsg}", _transform(left, top)
    return {"path": path, "epsg": epsg, "left": left, "top": top}


def _corner(tile: str, epsg: int) -> tuple[int, int]:
    """Left and top of a tile: 40 m outside its 100 km square, on the 60 m lattice."""
    to_zone = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
    footprint = shapely.transform(tile_footprint(tile), to_zone.transform, interleaved=False)
    left, _, _, top = footprint.bounds
    return round(left / 1000) * 1000 // 60 * 60, -(-(round(top / 1000) * 1000) // 60) * 60


def _transform(left: float, top: float) -> rasterio.Affine:
    return rasterio.Affine(20, 0, left, 0, -20, top)


def _item(tile: str, when: dt.datetime, scl: dict[str, Any]) -> dict[str, Any]:
    product = f"S2A_MSIL2A_{when:%Y%m%dT%H%M%S}_N0509_R065_T{tile}_{when:%Y%m%dT%H%M%S}.SAFE"
    assets = {
        band: {
            "href": f"./{tile}-{when:%Y%m%d}/{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "proj:shape": [109_800 // GSD_M[band]] * 2,
            "proj:transform": [GSD_M[band], 0, scl["left"], 0, -GSD_M[band], scl["top"]],
            "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
        }
        for band in BANDS
    }
    assets["scl"] = {
        "href": str(scl["path"]),
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "proj:shape": [_SIZE, _SIZE],
        "proj:transform": [20, 0, scl["left"], 0, -20, scl["top"]],
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"S2A_{tile}_{when:%Y%m%d}_0_L2A",
        "collection": "sentinel-2-l2a",
        "geometry": mapping(tile_footprint(tile)),
        "properties": {
            "datetime": when.isoformat(),
            "grid:code": f"MGRS-{tile}",
            "proj:epsg": scl["epsg"],
            "s2:product_uri": product,
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
            "eo:cloud_cover": 30.0,
        },
        "links": [],
        "assets": assets,
    }
