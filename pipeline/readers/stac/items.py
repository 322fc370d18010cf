"""The items of a cube: one for each zone and period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

from shapely.geometry import mapping

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.readers.footprints import Footprint, box_of, footprint, ground_of
from difffusr.pipeline.readers.stac.balance import balance_lineage, balance_property
from difffusr.pipeline.readers.stac.picture import thumbnail
from difffusr.pipeline.readers.stac.places import Addresses
from difffusr.pipeline.readers.stac.words import (
    GEOJSON,
    JSON,
    PNG,
    STAC_VERSION,
    bands,
    classes_of,
    extensions_of,
    link_to_model,
    renders_of,
)

#: Types of variables whose numbers do not have 16 bits.
DATA_TYPES: Final = {"quality": "uint8", "looks": "uint8"}


def items_of(cube: Cube, name: str, places: Addresses) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The documents of all items, each with its picture, a PNG, zone by zone, period by period.

    Args:
        name: the collection's id.
        places: what the cube's addresses are.

    Raises:
        StoreError: the cube cannot be read.
    """
    for epsg in cube.zones:
        for label, (step, days) in sorted(cube.periods(epsg).items()):
            ground = ground_of(cube, epsg, step)
            item = _item(cube, name, epsg, label, days, footprint(cube, epsg, ground), places)
            yield item, thumbnail(cube, epsg, step, ground)


def properties_of(
    cube: Cube, lattice: Lattice, window: PixelWindow, days: tuple[date, date], balanced: Mapping[str, Any]
) -> dict[str, Any]:
    """What items of a cube, and of files exported from it, say of themselves: when, where, which pixels, how made.

    Args:
        balanced: see `balance_property`.
    """
    made = cube.made_with
    return {
        "datetime": None,
        "start_datetime": f"{days[0].isoformat()}T00:00:00Z",
        "end_datetime": f"{days[1].isoformat()}T23:59:59Z",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": lattice.ground_m(window),
        **projection_of(lattice, window),
        **({"proj:wkt2": lattice.known.to_wkt()} if lattice.code is None else {}),
        "proj:bbox": list(lattice.bounds(window)),
        "processing:level": "L3",
        "processing:lineage": (
            "Sentinel-2 Level-2A, super-resolved with DiffFuSR (arXiv 2506.11764), weights "
            f"{made.get('model', 'unknown')}, and blended{balance_lineage(balanced)}{_warped(cube, lattice)}"
        ),
        "processing:software": made.get("software", {}),
    }


def projection_of(lattice: Lattice, window: PixelWindow) -> dict[str, Any]:
    """Code, shape and transform of pixels, for an item or an asset."""
    left, _, _, top = lattice.bounds(window)
    return {
        "proj:code": lattice.code,
        "proj:shape": [window.height, window.width],
        "proj:transform": [lattice.pixel, 0.0, left, 0.0, -lattice.pixel, top],
    }


def bound_of(found: Footprint) -> dict[str, float | None]:
    """How true a footprint is."""
    return {"beyond_m": found.beyond_m, "short_m": found.short_m}


def _item(
    cube: Cube,
    name: str,
    epsg: int,
    label: str,
    days: tuple[date, date],
    found: Footprint,
    places: Addresses,
) -> dict[str, Any]:
    window, lattice = cube.window(epsg), cube.lattice(epsg)
    facts = facts_of(cube, epsg, days)
    balanced = balance_property(cube.made_with, facts)
    attributes = {variable: dict(cube.array(epsg, variable).attrs) for variable in cube.variables(epsg)}
    identity = f"{name}_{epsg}_{label}"
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions_of(
            "proj", "eo", "raster", "cube", "processing", "classification", "renders", "zarr", "xarray"
        ),
        "id": identity,
        "collection": name,
        "geometry": mapping(found.shape),
        "bbox": list(box_of(found.shape)),
        "properties": {
            "title": f"{label}, {lattice.name}",
            **properties_of(cube, lattice, window, days, balanced),
            "difffusr:balance": balanced,
            "difffusr:footprint": bound_of(found),
            "cube:dimensions": _dimensions(cube, epsg),
            "cube:variables": {variable: _variable(cube, epsg, variable) for variable in cube.variables(epsg)},
            "renders": renders_of({"reflectance": "zarr", "quality": "quality"}, BANDS, attributes["quality"]),
        },
        "assets": {
            "zarr": {
                **places.zarr(epsg),
                "title": f"the {'zone' if cube.of_crs(epsg) is None else 'CRS'}'s group, all periods",
                "roles": ["data", "reflectance"],
                "bands": bands(),
                **pixels_of("reflectance", attributes["reflectance"], lattice, window),
            },
            "quality": {
                **places.array(epsg, "quality"),
                "title": "what each pixel is made of, all periods",
                "roles": ["metadata", "data-mask"],
                **pixels_of("quality", attributes["quality"], lattice, window),
            },
            "thumbnail": {
                "href": f"./{identity}.png",
                "type": PNG,
                "title": "true colour",
                "roles": ["thumbnail"],
            },
        },
        "links": [
            # Every link has a title; in the table a link without one would get an empty one.
            *(
                {"rel": rel, "href": "./collection.json", "type": JSON, "title": cube.attributes["title"]}
                for rel in ("root", "parent", "collection")
            ),
            *({"rel": "derived_from", "type": GEOJSON, **scene} for scene in _links(cube, facts)),
            *({key: link[key] for key in ("rel", "href", "type", "title")} for link in link_to_model(cube)),
        ],
    }


def pixels_of(variable: str, attributes: Mapping[str, Any], lattice: Lattice, window: PixelWindow) -> dict[str, Any]:
    """What an asset says of its pixels: where they lie, their type, scale, and what stands for no data.

    Args:
        attributes: of the cube's variable.
    """
    classes = {"classification:classes": classes_of(attributes)} if "flag_values" in attributes else {}
    scaled = {"raster:scale": attributes["scale_factor"], "raster:offset": 0.0} if "scale_factor" in attributes else {}
    return {
        "data_type": DATA_TYPES.get(variable, "uint16"),
        "nodata": int(attributes.get("_FillValue", 0)),
        "raster:spatial_resolution": lattice.ground_m(window),
        **scaled,
        **classes,
        **projection_of(lattice, window),
    }


def _dimensions(cube: Cube, epsg: int) -> dict[str, Any]:
    window, lattice = cube.window(epsg), cube.lattice(epsg)
    left, _, _, top = lattice.bounds(window)
    return {
        "time": {
            "type": "temporal",
            "values": [f"{start.isoformat()}T00:00:00Z" for _, (start, _) in sorted(cube.periods(epsg).values())],
        },
        "band": {"type": "bands", "values": list(BANDS)},
        "y": _axis("y", lattice, top - lattice.pixel * (window.height - 0.5), top - lattice.pixel * 0.5),
        "x": _axis("x", lattice, left + lattice.pixel * 0.5, left + lattice.pixel * (window.width - 0.5)),
    }


def facts_of(cube: Cube, epsg: int, days: tuple[date, date]) -> list[Mapping[str, Any]]:
    """Facts of the scenes of a zone and period, by id; in a cube of one CRS those of all zones that it is made of."""
    found, derived = [], cube.of_crs(epsg) is not None
    for facts in cube.scenes.values():
        tile, day = str(facts.get("tile", "")), str(facts.get("datetime", ""))[:10]
        of_zone = tile[:2].isdigit() and epsg == (32600 if tile[2:3] >= "N" else 32700) + int(tile[:2])
        if (of_zone or derived) and days[0].isoformat() <= day <= days[1].isoformat():
            found.append(facts)
    return sorted(found, key=lambda facts: str(facts["id"]))


def _links(cube: Cube, scenes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Links to scenes; empty unless their catalogue is an API."""
    api = cube.made_with.get("config", {}).get("source", {}).get("stac_api")
    if not api:
        return []
    items = [(facts["collection"], facts["id"]) for facts in scenes]
    return [
        {"href": f"{str(api).rstrip('/')}/collections/{collection}/items/{name}", "title": name}
        for collection, name in items
    ]


def _axis(axis: str, lattice: Lattice, first: float, last: float) -> dict[str, Any]:
    """The dimension along an axis, from the middle of its first pixel to that of its last."""
    has_code = lattice.crs.startswith("EPSG:")
    return {
        "type": "spatial", "axis": axis, "extent": [first, last], "step": lattice.pixel,
        "reference_system": lattice.number if has_code else lattice.known.to_wkt(),
    }  # fmt: skip


def _warped(cube: Cube, lattice: Lattice) -> str:
    """What the lineage says of a cube that is made of another; "" of others."""
    source = cube.derived_from
    return "" if source is None else f"; warped into {lattice.name} from the UTM zones of {bare_href(source)}"


def _variable(cube: Cube, epsg: int, name: str) -> dict[str, Any]:
    array = cube.array(epsg, name)
    names = ["time", "band", "y", "x"] if array.ndim == 4 else ["time", "y", "x"]
    unit = {"unit": "1"} if array.ndim == 4 else {}
    return {"type": "data", "description": array.attrs["long_name"], "dimensions": names, **unit}
