"""The collection of a cube's items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.readers.footprints import box_around
from difffusr.pipeline.readers.stac.places import Addresses
from difffusr.pipeline.readers.stac.words import (
    GEOJSON,
    JSON,
    LEGAL_NOTICE,
    PARQUET,
    PROVIDERS,
    STAC_VERSION,
    bands,
    extensions_of,
    link_to_model,
)


def collection_of(cube: Cube, name: str, items: Sequence[dict[str, Any]], places: Addresses) -> dict[str, Any]:
    """The collection's document.

    Args:
        items: those of `items_of`.
        places: what the cube's addresses are.
    """
    boxes = [list(box) for box in dict.fromkeys(tuple(item["bbox"]) for item in items)]
    whole = list(box_around(tuple(item["bbox"]) for item in items))
    starts = [item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["end_datetime"] for item in items]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions_of("zarr"),
        "id": name,
        "title": cube.attributes["title"],
        "description": (
            f"{cube.attributes['title']}. {cube.attributes['source']}. {_groups(cube)}, one step of time for each "
            "period."
        ),
        "keywords": ["Sentinel-2", "super-resolution", "surface reflectance", "Zarr"],
        "license": "other",
        "providers": PROVIDERS,
        "extent": {
            "spatial": {"bbox": [whole, *boxes] if len(boxes) > 1 else [whole]},
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
            "zarr": {**places.store(), "title": "the whole cube", "roles": ["data"]},
            "items": {
                "href": "./items.parquet", "type": PARQUET, "title": "all items as stac-geoparquet",
                "roles": ["stac-items"],
            },
            "thumbnail": {**items[-1]["assets"]["thumbnail"], "title": f"true colour, {items[-1]['properties']['title']}"},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": JSON},
            {"rel": "license", "href": LEGAL_NOTICE, "type": "application/pdf", "title": "Sentinel data legal notice"},
            *({"rel": "item", "href": f"./{item['id']}.json", "type": GEOJSON} for item in items),
            *link_to_model(cube),
        ],
    }  # fmt: skip


def _groups(cube: Cube) -> str:
    """How the cube is divided."""
    if cube.in_one_crs:
        return f"One Zarr group, in {cube.lattice(next(iter(cube.zones))).name}"
    return "One Zarr group for each UTM zone"


def _summary(name: str, items: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The values of a property that items have; empty if none has it."""
    found = {item["properties"].get(name) for item in items} - {None}
    return {name: sorted(found)} if found else {}
