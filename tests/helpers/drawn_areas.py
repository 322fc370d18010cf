"""Areas drawn in files, as a configuration asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyproj
import pytest
import shapely
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.area import area_geometry
from difffusr.pipeline.ground.errors import ConfigError

FIJI = MultiPolygon([box(177, -20, 180, -15), box(-180, -20, -177, -15)])


def config_of(folder: Path, **area: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "area",
            "area": area,
            "period": {"start": "2023-06-01", "end": "2023-06-30"},
            "source": {"items": "items.json"},
            "store": {"url": "cube.zarr"},
        },
        context={"folder": folder},
    )


def area_of(folder: Path, **area: Any) -> BaseGeometry:
    """The area, which is always valid, flat, and within the world."""
    geometry = area_geometry(config_of(folder, **area))
    assert not isinstance(geometry, list)
    assert geometry.geom_type in ("Polygon", "MultiPolygon")
    assert geometry.is_valid
    assert not geometry.is_empty
    assert not geometry.has_z
    assert box(-180, -90, 180, 90).covers(geometry)
    return geometry


def refused(folder: Path, **area: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        area_geometry(config_of(folder, **area))
    assert "\n" not in str(caught.value)
    key = "geojson" if "geojson" in area else "file"
    assert str(caught.value).startswith(f"area.{key}: {folder / area[key]}: ")
    return str(caught.value).removeprefix(f"area.{key}: {folder / area[key]}: ")


def geojson(folder: Path, content: Any) -> str:
    (folder / "area.geojson").write_text(content if isinstance(content, str) else json.dumps(content))
    return "area.geojson"


def on_sheet(geometry: BaseGeometry, crs: Any) -> BaseGeometry:
    """A geometry in degrees, longitudes past 180 allowed, as drawn on a map sheet, vertex by vertex."""
    to_sheet = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    return shapely.transform(geometry, to_sheet.transform, interleaved=False)


def file_of(folder: Path, geometry: BaseGeometry | list[BaseGeometry], crs: Any, name: str = "area.gpkg") -> str:
    shapes = geometry if isinstance(geometry, list) else [geometry]
    gpd.GeoDataFrame({"number": range(len(shapes))}, geometry=shapes, crs=crs).to_file(folder / name)
    return name


def share_not_common(one: BaseGeometry, other: BaseGeometry) -> float:
    return one.symmetric_difference(other).area / one.area
