"""The collection of a cube's items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.readers.footprints import box_around
from difffusr.pipeline.readers.stac.words import (
    GEOJSON,
    JSON,
    LEGAL_NOTICE,
    PARQUET,
    PROVIDERS,
    STAC_VERSION,
    bands,
    extensions_of,
)

#: With more items the collection's extent says no longer where each of them lies.
_MOST_BOXES: Final = 1000


def collection_of(
    cube: Cube,
    name: str,
    items: Sequence[dict[str, Any]],
    assets: Mapping[str, Any],
    what: str,
    links: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document of a collection of items in the same folder.

    Args:
        items: at least one.
        assets: of the collection, besides the table of its items.
        what: how the cube is divided.
        links: more of them.
    """
    boxes = [list(box) for box in dict.fromkeys(tuple(item["bbox"]) for item in items)]
    whole = list(box_around(tuple(item["bbox"]) for item in items))
    starts = [item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["end_datetime"] for item in items]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions_of("zarr") if "zarr" in assets else [],
        "id": name,
        "title": cube.attributes["title"],
        "description": (
            f"{cube.attributes['title']}. {cube.attributes['source']}. {what}."
        ),
        "keywords": ["Sentinel-2", "super-resolution", "surface reflectance", "Zarr"],
        "license": "other",
        "providers": PROVIDERS,
        "extent": {
            "spatial": {"bbox": [whole, *boxes] if 1 < len(boxes) <= _MOST_BOXES else [whole]},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "summaries": {
            "constellation": ["sentinel-2"],
            "instruments": ["msi"],
            "gsd": sorted({item["properties"]["gsd"] for item in items}),
            **_summary("proj:code", items),
            **_summary("proj:wkt2", items),
            "bands": bands(),
        },
        "assets": {
            **assets,
            "items": {
                "href": "./items.parquet", "type": PARQUET, "title": "all items as stac-geoparquet",
                "roles": ["stac-items"],
            },
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": JSON},
            {"rel": "license", "href": LEGAL_NOTICE, "type": "application/pdf", "title": "Sentinel data legal notice"},
            *({"rel": "item", "href": f"./{item['id']}.json", "type": GEOJSON} for item in items),
            *links,
        ],
    }  # fmt: skip


def groups_of(cube: Cube) -> str:
    """How a cube is divided."""
    if cube.in_one_crs:
        return f"One Zarr group, in {cube.lattice(next(iter(cube.zones))).name}, one step of time for each period"
    return "One Zarr group for each UTM zone, one step of time for each period"


def _summary(name: str, items: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The values of a property that items have; empty if none has it."""
    found = {item["properties"].get(name) for item in items} - {None}
    return {name: sorted(found)} if found else {}
