"""A published cube as STAC: a collection, an item for each zone and period, all items as one stac-geoparquet, and an
item for the model that made them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M, SCALE, WAVELENGTH_NM
from difffusr.pipeline.cube import BASE_LEVEL, Cube
from difffusr.pipeline.geo import Lattice
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.readers.footprints import box_around, box_of, footprint, shape_of
from difffusr.pipeline.readers.stac_balance import balance_lineage, balance_property
from difffusr.pipeline.storage import Storage

STAC_VERSION = "1.1.0"

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]

_MODEL_EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]

#: How a multihash begins that is a sha256 (multicodec 0x12, 32 bytes).
_SHA256 = "1220"

#: Media types: the one that STAC catalogues use for Zarr, and those of STAC's own documents.
_ZARR, _GEOJSON, _JSON, _PARQUET = (
    "application/vnd.zarr; version=3", "application/geo+json", "application/json", "application/vnd.apache.parquet",
)  # fmt: skip

_LEGAL_NOTICE = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"

#: The common names of Sentinel-2's bands in the EO extension.
_COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip

_ID = re.compile(r"[A-Za-z0-9._-]+")


def write_records(cube: Cube, folder: Storage, name: str | None = None) -> list[str]:
    """Write `collection.json`, `<item>.json` for each zone and period, `items.parquet`, and `model.json` if the cube
    names its weights; returns their URLs.

    The same cube gives the same bytes. Existing documents are replaced.

    Args:
        folder: to write to; links between the documents are relative.
        name: the collection's id; the last part of the cube's URL by default.

    Raises:
        ConfigError: the name is not a valid id.
        StoreError: the cube cannot be read, or the folder cannot be written to.
    """
    name = name or re.sub(r"\.zarr$", "", cube.storage.url.rsplit("/", 1)[-1])
    if not _ID.fullmatch(name):
        raise ConfigError(f"--id: found {name!r}, expected letters, digits, '.', '_' and '-'")
    items = list(items_of(cube, name))
    documents = {
        **{f"{item['id']}.json": _json(item) for item in items},
        "items.parquet": _parquet(items),
        **({"model.json": _json(model_of(cube, name, items))} if _weights(cube) else {}),
        "collection.json": _json(collection_of(cube, name, items)),  # last, as it links to all others
    }
    for file, data in documents.items():
        folder.write(file, data)
    return [f"{folder.url}/{file}" for file in documents]


def collection_of(cube: Cube, name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The collection's document.

    Args:
        items: those of `items_of`.
    """
    boxes = [list(box) for box in dict.fromkeys(tuple(item["bbox"]) for item in items)]
    whole = list(box_around(tuple(item["bbox"]) for item in items))
    starts = [item["properties"]["start_datetime"] for item in items]
    ends = [item["properties"]["end_datetime"] for item in items]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": name,
        "title": cube.attributes["title"],
        "description": (
            f"{cube.attributes['title']}. {cube.attributes['source']}. {_groups(cube)}, one step of time for each "
            "period."
        ),
        "keywords": ["Sentinel-2", "super-resolution", "surface reflectance", "Zarr"],
        "license": "other",
        "providers": [{"name": "ESA", "roles": ["producer", "licensor"], "url": "https://sentinels.copernicus.eu"}],
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
            "bands": _bands(),
        },
        "assets": {
            "zarr": {"href": _address(cube), "type": _ZARR, "title": "the whole cube", "roles": ["data"]},
            "items": {
                "href": "./items.parquet", "type": _PARQUET, "title": "all items as stac-geoparquet",
                "roles": ["stac-items"],
            },
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": _JSON},
            {"rel": "license", "href": _LEGAL_NOTICE, "type": "application/pdf", "title": "Sentinel data legal notice"},
            *({"rel": "item", "href": f"./{item['id']}.json", "type": _GEOJSON} for item in items),
            *_link_to_model(cube),
        ],
    }  # fmt: skip


def model_of(cube: Cube, name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of the model: networks, weights and sampling, by the MLM extension.

    Place and time are the cube's. Weights that ship with the package are addressed
    within the package, other files as in the run's configuration.

    Args:
        name: the collection's id.
        items: those of `items_of`.
    """
    made = cube.made_with
    whole = box_around(tuple(item["bbox"]) for item in items)
    chip, own = made["config"]["grid"]["chip_px"], made["config"]["model"]
    properties = {
        "title": f"DiffFuSR, weights {own['preset']}",
        "description": (
            "Super-resolution of all 12 Sentinel-2 L2A bands to 2.5 m: a blind diffusion model for red, green and blue "
            "and a fusion network for all bands (arXiv 2506.11764)"
        ),
        "datetime": None,
        "start_datetime": min(item["properties"]["start_datetime"] for item in items),
        "end_datetime": max(item["properties"]["end_datetime"] for item in items),
        "mlm:name": "DiffFuSR",
        "mlm:architecture": "DDPM and fusion network",
        "mlm:tasks": ["super-resolution"],
        "mlm:framework": "pytorch",
        "mlm:framework_version": made["software"]["torch"],
        "mlm:pretrained": True,
        "mlm:hyperparameters": {"seed": own["seed"], **made["sampling"]},
        "mlm:input": [_tensor(f"{gsd} m", list(bands), chip * 10 // gsd, "input") for gsd, bands in GROUPS.items()],
        "mlm:output": [
            {
                **_tensor("2.5 m", list(BANDS), chip * SCALE, "result"),
                "tasks": ["super-resolution"],
                "classification:classes": [],
            }
        ],
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _MODEL_EXTENSIONS,
        "id": f"{name}_model",
        "geometry": mapping(shape_of(whole)),
        "bbox": list(whole),
        "properties": properties,
        "assets": {stage: _weights_asset(made, stage, sha256) for stage, sha256 in _weights(cube).items()},
        "links": [{"rel": "about", "href": "https://arxiv.org/abs/2506.11764", "type": "text/html"}],
    }


def _tensor(name: str, bands: list[str], size: int, kind: str) -> dict[str, Any]:
    structure = {
        "shape": [-1, len(bands), size, size],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    return {"name": name, "description": "surface reflectance", "bands": bands, kind: structure}


def _weights_asset(made: Mapping[str, Any], stage: str, sha256: str) -> dict[str, Any]:
    given = made["config"]["model"].get(stage)
    shipped = f"pkg:pypi/difffusr@{made['software']['difffusr']}#kernels/weights/{made['config']['model']['preset']}"
    href = bare_href(given) if given else f"{shipped}-{stage}.safetensors"
    kind = "safetensors" if href.endswith(".safetensors") else "torch.save"
    return {
        "href": href,
        "type": "application/octet-stream",
        "title": {"stage1": "diffusion model of red, green and blue", "fusion": "fusion network"}[stage],
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": kind,
        "file:checksum": f"{_SHA256}{sha256}",
    }


def _weights(cube: Cube) -> dict[str, str]:
    """sha256 of both stages' weights; empty if the cube does not name them."""
    weights: dict[str, str] = cube.made_with.get("weights", {})
    return weights


def _link_to_model(cube: Cube) -> list[dict[str, Any]]:
    title = "the model that made it"
    model = {"rel": "derived_from", "href": "./model.json", "type": _GEOJSON, "title": title}
    return [{**model, "mlm:name": "DiffFuSR"}] if _weights(cube) else []


def items_of(cube: Cube, name: str) -> Iterator[dict[str, Any]]:
    """The documents of all items, zone by zone, period by period.

    Args:
        name: the collection's id.
    """
    for epsg in cube.zones:
        for label, (step, days) in sorted(cube.periods(epsg).items()):
            yield _item(cube, name, epsg, label, days, footprint(cube, epsg, step))


def _item(cube: Cube, name: str, epsg: int, label: str, days: tuple[date, date], shape: BaseGeometry) -> dict[str, Any]:
    window, lattice = cube.window(epsg), cube.lattice(epsg)
    left, bottom, right, top = lattice.bounds(window)
    gsd = lattice.ground_m(window)
    made = cube.made_with
    facts = _facts(cube, epsg, days)
    balanced = balance_property(made, facts)
    dimensions = {
        "time": {
            "type": "temporal",
            "values": [f"{start.isoformat()}T00:00:00Z" for _, (start, _) in sorted(cube.periods(epsg).values())],
        },
        "band": {"type": "bands", "values": list(BANDS)},
        "y": _axis("y", lattice, top - lattice.pixel * (window.height - 0.5), top - lattice.pixel * 0.5),
        "x": _axis("x", lattice, left + lattice.pixel * 0.5, left + lattice.pixel * (window.width - 0.5)),
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _EXTENSIONS,
        "id": f"{name}_{epsg}_{label}",
        "collection": name,
        "geometry": mapping(shape),
        "bbox": list(box_of(shape)),
        "properties": {
            "title": f"{label}, {lattice.name}",
            "datetime": None,
            "start_datetime": f"{days[0].isoformat()}T00:00:00Z",
            "end_datetime": f"{days[1].isoformat()}T23:59:59Z",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "gsd": gsd,
            "proj:code": lattice.code,
            **({"proj:wkt2": lattice.known.to_wkt()} if lattice.code is None else {}),
            "proj:bbox": [left, bottom, right, top],
            "proj:shape": [window.height, window.width],
            "proj:transform": [lattice.pixel, 0.0, left, 0.0, -lattice.pixel, top],
            "processing:level": "L3",
            "processing:lineage": (
                "Sentinel-2 Level-2A, super-resolved with DiffFuSR (arXiv 2506.11764), weights "
                f"{made.get('model', 'unknown')}, and blended{balance_lineage(balanced)}{_warped(cube, lattice)}"
            ),
            "processing:software": made.get("software", {}),
            "difffusr:balance": balanced,
            "cube:dimensions": dimensions,
            "cube:variables": {variable: _variable(cube, epsg, variable) for variable in cube.variables(epsg)},
        },
        "assets": {
            "zarr": {
                "href": f"{_address(cube)}/{epsg}/{BASE_LEVEL}",
                "type": _ZARR,
                "title": f"the {'zone' if cube.of_crs(epsg) is None else 'CRS'}'s group, all periods",
                "roles": ["data", "reflectance"],
                "data_type": "uint16",
                "nodata": 0,
                "raster:spatial_resolution": gsd,
                "raster:scale": cube.array(epsg, "reflectance").attrs["scale_factor"],
                "bands": _bands(),
            }
        },
        "links": [
            # Every link has a title; in the table a link without one would get an empty one.
            *(
                {"rel": rel, "href": "./collection.json", "type": _JSON, "title": cube.attributes["title"]}
                for rel in ("root", "parent", "collection")
            ),
            *({"rel": "derived_from", "type": _GEOJSON, **scene} for scene in _links(cube, facts)),
            *({key: link[key] for key in ("rel", "href", "type", "title")} for link in _link_to_model(cube)),
        ],
    }


def _facts(cube: Cube, epsg: int, days: tuple[date, date]) -> list[Mapping[str, Any]]:
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


def _groups(cube: Cube) -> str:
    """How the cube is divided."""
    if cube.in_one_crs:
        return f"One Zarr group, in {cube.lattice(next(iter(cube.zones))).name}"
    return "One Zarr group for each UTM zone"


def _warped(cube: Cube, lattice: Lattice) -> str:
    """What the lineage says of a cube that is made of another; "" of others."""
    source = cube.derived_from
    return "" if source is None else f"; warped into {lattice.name} from the UTM zones of {bare_href(source)}"


def _summary(name: str, items: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The values of a property that items have; empty if none has it."""
    found = {item["properties"].get(name) for item in items} - {None}
    return {name: sorted(found)} if found else {}


def _variable(cube: Cube, epsg: int, name: str) -> dict[str, Any]:
    array = cube.array(epsg, name)
    names = ["time", "band", "y", "x"] if array.ndim == 4 else ["time", "y", "x"]
    unit = {"unit": "1"} if array.ndim == 4 else {}
    return {"type": "data", "description": array.attrs["long_name"], "dimensions": names, **unit}


def _bands() -> list[dict[str, Any]]:
    return [
        {
            "name": band,
            "eo:common_name": _COMMON_NAMES[band],
            "eo:center_wavelength": round(WAVELENGTH_NM[band] / 1e3, 4),
            "description": f"super-resolved from {GSD_M[band]} m",
        }
        for band in BANDS
    ]


def _address(cube: Cube) -> str:
    """The cube's URL, or its absolute path."""
    return cube.storage.filesystem()[1] if cube.storage.is_local else cube.storage.url


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _parquet(items: Sequence[dict[str, Any]]) -> bytes:
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet  # imports geopandas

    with tempfile.TemporaryDirectory(prefix="difffusr-stac-") as place:
        file = Path(place) / "items.parquet"
        to_parquet(parse_stac_items_to_arrow(items), file)
        return file.read_bytes()
