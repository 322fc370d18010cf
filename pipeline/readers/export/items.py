"""Exported files as STAC: an item for each place, period and tile, with an asset for each variable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from affine import Affine
from shapely.geometry import mapping

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Lattice
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.sources import array_of, is_spectral
from difffusr.pipeline.readers.export.writing import Cogs
from difffusr.pipeline.readers.footprints import Footprint, box_of, footprint_in
from difffusr.pipeline.readers.stac import (
    COG,
    JSON,
    SHA256,
    STAC_VERSION,
    balance_property,
    bands,
    bands_of_old,
    bound_of,
    extensions_of,
    pixels_of,
    properties_of,
    renders_of,
)

_ROLES: Final = {"reflectance": ["data", "reflectance"], "quality": ["metadata", "data-mask"]}


def asset_of(cube: Cube, export: Export, file: Path, state: str) -> dict[str, Any]:
    """What an item says of a file.

    Args:
        file: on this machine.
        state: see `state_of`.
    """
    array = array_of(cube, export)
    attributes = dict(array.attrs)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {
        "href": f"./{export.name}",
        "type": COG,
        "title": str(attributes.get("long_name", export.variable)),
        "roles": _ROLES.get(export.variable, ["metadata"]),
        **(
            {"bands": bands(), "eo:bands": bands_of_old()}
            if is_spectral(array)
            else {"bands": [{"name": export.variable}]}
        ),
        **pixels_of(export.variable, attributes, export.lattice, export.window),
        "file:size": file.stat().st_size,
        "file:checksum": f"{SHA256}{digest}",
        "difffusr:series": export.series,
        "difffusr:state": state,
    }


def ground_in(cogs: Cogs, export: Export) -> Footprint:
    """Where files have data."""
    lattice, window = export.lattice, export.window
    left, _, _, top = lattice.bounds(window)
    size = lattice.pixel * cogs.cell
    place: int | Lattice = export.lattice if export.of_crs is not None else export.epsg
    return footprint_in(cogs.seen, Affine(size, 0, left, 0, -size, top), lattice.box(window), place)


def item_of(
    cube: Cube, collection: str, export: Export, where: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The item of files of one place, period and tile.

    Args:
        collection: its id.
        export: one of them.
        where: `geometry`, `bbox` and `footprint` of the item, see `placed`.
        assets: by variable.
    """
    lattice, tile = export.lattice, export.tile
    balanced = balance_property(cube.made_with, list(cube.scenes_of(export.days).values()))
    told = properties_of(cube, lattice, export.window, export.days, balanced)
    if export.mosaic:
        told["processing:lineage"] += f"; warped into {lattice.name} from the UTM zones"
    quality = dict(cube.array(next(iter(cube.zones)), "quality").attrs)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions_of(
            "proj", "eo:bands", "raster", "processing", "classification", "renders", "file"
        ),
        "id": export.item,
        "collection": collection,
        "geometry": where["geometry"],
        "bbox": where["bbox"],
        "properties": {
            "title": f"{export.label}, {lattice.name}" + ("" if tile is None else f", {tile.name}"),
            **told,
            "difffusr:footprint": where["footprint"],
            "difffusr:tile": None if tile is None else tile.name,
            "renders": renders_of({name: name for name in assets}, BANDS, quality),
        },
        "assets": {name: dict(asset) for name, asset in sorted(assets.items(), reverse=True)},
        "links": [
            {"rel": rel, "href": "./collection.json", "type": JSON, "title": str(cube.attributes["title"])}
            for rel in ("root", "parent", "collection")
        ],
    }


def placed(found: Footprint) -> dict[str, Any]:
    """`geometry`, `bbox` and `footprint` of an item."""
    return {"geometry": mapping(found.shape), "bbox": list(box_of(found.shape)), "footprint": bound_of(found)}
