"""Real STAC items of every provider, and configurations that search them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from beside import SHARED
from shapely.geometry import mapping

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.globe import tile_epsg, tile_footprint
from difffusr.pipeline.geo.zones import to_zone

ITEMS = SHARED / "data" / "stac_items"
ARCHIVE = SHARED / "data" / "archive"

needs_items = pytest.mark.skipif(not ITEMS.is_dir(), reason=f"the real STAC items are not at {ITEMS}")

#: Items of Earth Search, of its Collection 1 and of Planetary Computer.
ES = "earthsearch_v1_sentinel-2-l2a_S2A_31UDQ"
ES_C1 = "earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV"
PC = "planetarycomputer_S2B_T06VVN"


def config(area: dict[str, Any] | None = None, days: str = "2015-06-23/2030-12-31", **source: Any) -> RunConfig:
    """A configuration that asks a source for an area, the world unless given, in a period "first/last day"."""
    start, end = days.split("/")
    return RunConfig.model_validate(
        {
            "name": "test",
            "area": area or {"bbox": [-180, -90, 180, 90]},
            "period": {"start": start, "end": end},
            "source": source,
            "store": {"url": "/nowhere/cube.zarr"},
        }
    )


def item(name: str, index: int = 0) -> dict[str, Any]:
    """The item of the file whose name begins so; of a collection the one at a place."""
    document = json.loads(next(ITEMS.glob(f"{name}*")).read_text())
    found = document["features"][index] if document["type"] == "FeatureCollection" else document
    assert isinstance(found, dict)
    return found


def every_item() -> list[dict[str, Any]]:
    """The items of all files."""
    documents = [json.loads(file.read_text()) for file in sorted(ITEMS.iterdir())]
    return [one for d in documents for one in (d["features"] if d["type"] == "FeatureCollection" else [d])]


def collection_file(folder: Path, items: list[dict[str, Any]]) -> str:
    """The path of a new file of these items."""
    file = folder / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(file)


#: Asset keys of Earth Search, by band.
KEYS = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip


def made_item(day: int = 1, tile: str = "32TNT", baseline: str = "05.09", **properties: Any) -> dict[str, Any]:
    """An item as Earth Search has it, of a day in June 2023; its files do not exist."""
    item_id = f"S2A_{tile}_202306{day:02d}_0_L2A"
    zone = tile_epsg(tile)
    left, _, _, top = to_zone(tile_footprint(tile), zone).bounds
    corner = [round(left) + 60, 20 * round(top / 20) - 60]

    def asset(name: str, gsd: int) -> dict[str, Any]:
        return {
            "href": f"/data/{item_id}/{name}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "gsd": gsd,
            "proj:transform": [gsd, 0, corner[0], 0, -gsd, corner[1]],
            "proj:shape": [109_800 // gsd] * 2,
        }

    time = f"202306{day:02d}T102031"
    said = {
        "datetime": f"2023-06-{day:02d}T10:20:31Z",
        "eo:cloud_cover": 10.0,
        "grid:code": f"MGRS-{tile}",
        "proj:code": f"EPSG:{zone}",
        "s2:processing_baseline": baseline,
        "s2:product_uri": f"S2A_MSIL2A_{time}_N{baseline.replace('.', '')}_R065_T{tile}_{time}.SAFE",
        "earthsearch:boa_offset_applied": True,
        **properties,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": json.loads(json.dumps(mapping(tile_footprint(tile)))),
        "properties": {key: value for key, value in said.items() if value is not DROP},
        "assets": {**{key: asset(band, GSD_M[band]) for band, key in KEYS.items()}, "scl": asset("SCL", 20)},
        "links": [],
    }


#: A property of `made_item` that is to be absent.
DROP = object()
