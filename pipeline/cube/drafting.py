"""The store: one Zarr group a UTM zone; shards written whole, metadata drafted in memory.

What a reader sees is decided by the groups' consolidated ``zarr.json`` alone. A run drafts them in memory, writes
shards to where the new metadata will look for them, and has them published (`publication`) once every shard is there.

Where that is, is a matter of the zone's revision. In Zarr v3 an array's path and a chunk's index lead to one object,
unless the array's chunk key encoding changes: the core specification has four, whose keys have nothing in common. A
period that is published already is therefore written again under the keys of the next revision, where no reader looks
before its publication.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pyproj import CRS
from zarr.codecs import BloscCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from difffusr.kernels.bands import BANDS, GSD_M, TARGET_GSD_M, WAVELENGTH_NM
from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.layout import BASE_LEVEL, ENCODINGS, Zone, overviews_over
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.geo.grid import Grid, PixelWindow
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.pixels import DN_SCALE, STD_FILL, STD_SCALE, Quality
from difffusr.pipeline.storage.objects import Storage

_EPOCH = date(1970, 1, 1)


_CONVENTIONS: list[dict[str, str]] = [
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "schema_url": "https://raw.githubusercontent.com/zarr-experimental/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-experimental/geo-proj/blob/v1/README.md",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    },
    {
        "uuid": "d35379db-88df-4056-af3a-620245f8e347",
        "name": "multiscales",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    },
]


def draft_cube(
    storage: Storage,
    grid: Grid,
    extents: Mapping[int, PixelWindow],
    period: tuple[date, date],
    scenes: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    uncertainty_samples: int = 0,
    *,
    revise: Mapping[int, int] | None = None,
) -> CubeDraft:
    """Plan the next state of a cube, new or existing. Nothing is written.

    Args:
        extents: by EPSG code, the shards' window of the run in that zone.
        period: first and last day.
        scenes: facts of the run's scenes, each with its `id`; those the cube knows already keep their number.
        provenance: what the root group says of how the cube was made.
        uncertainty_samples: how many samples `reflectance_std` is made of; 0 for a cube without that variable.
        revise: the new revision of each zone that needs one.

    Raises:
        ConfigError: the cube at this URL covers other ground, has another grid, or another number of samples.
        StoreError: the store cannot be read.
    """
    known = _read_root(storage)
    numbered = {int(n): dict(facts) for n, facts in known.get("difffusr:scenes", {}).items()}
    ids = {facts["id"]: number for number, facts in numbered.items()}
    for facts in scenes:
        number = ids.setdefault(facts["id"], len(ids) + 1)
        numbered[number] = dict(facts)
    zones = {
        epsg: _next_zone(storage, grid, epsg, window, period, uncertainty_samples, (revise or {}).get(epsg))
        for epsg, window in sorted(extents.items())
    }
    memory = MemoryStore()
    others = {int(z) for z in known.get("difffusr:zones", [])} - set(zones)
    root = zarr.create_group(
        memory,
        attributes={
            "Conventions": "CF-1.11",
            "title": "Super-resolved Sentinel-2 Level-2A surface reflectance, 12 bands at 2.5 m",
            "source": "Contains modified Copernicus Sentinel data, super-resolved with DiffFuSR (arXiv 2506.11764)",
            "difffusr:zones": sorted({*zones, *others}),
            "difffusr:scenes": {str(n): numbered[n] for n in sorted(numbered)},
            "difffusr:provenance": dict(provenance),
        },
    )
    for zone in zones.values():
        _draft_zone(root, grid, zone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the Zarr v3 core specification
        for zone in zones.values():
            for level in zone.levels:
                zarr.consolidate_metadata(memory, path=zone.level_path(level))
            zarr.consolidate_metadata(memory, path=str(zone.epsg))
        own = _contents(memory)
        for path, document in store_of(storage).consolidated().items():
            if path.split("/")[0] in map(str, others):
                # A group's own empty copy would keep the root's from holding what is in it.
                document.pop("consolidated_metadata", None)
                data = default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())
                sync(memory.set(f"{path}/zarr.json", data))
        zarr.consolidate_metadata(memory)
    return CubeDraft(storage, grid, zones, numbered, {**own, "zarr.json": _contents(memory)["zarr.json"]})


def _next_zone(
    storage: Storage,
    grid: Grid,
    epsg: int,
    window: PixelWindow,
    period: tuple[date, date],
    samples: int,
    revision: int | None,
) -> Zone:
    """A zone with the run's period on its time axis, after whatever the store holds already."""
    path = f"{epsg}/{BASE_LEVEL}"
    existing = store_of(storage).group(path)
    if existing is None:
        overviews = overviews_over(window, grid)
        return Zone(epsg, window, (period,), 0, overviews, samples, (revision or 0,), (), revision is not None)
    attributes = existing["attributes"]
    holds = PixelWindow(*attributes["difffusr:window"])
    if holds != window or attributes["difffusr:grid"] != [grid.shard_px, grid.chunk_px]:
        raise ConfigError(
            f"store.url: {storage.url} already holds zone {epsg} over {holds.bounds_m(epsg)} m with shards of "
            f"{attributes['difffusr:grid'][0]} px, this run covers {window.bounds_m(epsg)} m with {grid.shard_px} px; "
            "choose another store.url, or the same area and grid"
        )
    made_of = attributes.get("difffusr:uncertainty_samples", 0)
    if made_of != samples:
        raise ConfigError(
            f"model.uncertainty_samples: found {samples}, but zone {epsg} of the cube at {storage.url} "
            f"{f'has a reflectance_std of {made_of} samples' if made_of else 'has no reflectance_std'}; set the key to "
            f"{made_of}, or choose another store.url"
        )
    periods = [(date.fromisoformat(a), date.fromisoformat(b)) for a, b in attributes["difffusr:periods"]]
    lineage = tuple(attributes.get("difffusr:lineage", [0]))
    seen = lineage if period in periods else ()
    if period not in periods:
        periods.append(period)
    if revision is not None:
        lineage = (*lineage, revision)
    # A cube keeps the levels that it began with.
    overviews = attributes.get("difffusr:overviews", 0)
    step, revised = periods.index(period), revision is not None
    return Zone(epsg, window, tuple(periods), step, overviews, samples, lineage, seen, revised)


def _draft_zone(root: zarr.Group, grid: Grid, zone: Zone) -> None:
    """Create a zone's groups, arrays and coordinates."""
    levels = [_spatial(zone, level) for level in zone.levels]
    layout = [
        {
            "asset": str(level),
            **({"derived_from": str(level - 1)} if level else {}),
            # A scale would be one of all axes of an array, and arrays have three or four: shape and place say it all.
            "transform": {},
            **{key: spatial[key] for key in ("spatial:shape", "spatial:transform")},
        }
        for level, spatial in enumerate(levels)
    ]
    multiscales = {"layout": layout, "resampling_method": "average"}
    root.create_group(
        str(zone.epsg), attributes={**levels[0], "zarr_conventions": _CONVENTIONS, "multiscales": multiscales}
    )
    for level, spatial in enumerate(levels):
        _draft_level(root, grid, zone, level, spatial)


def _spatial(zone: Zone, level: int) -> dict[str, Any]:
    """Where a level lies, by the `proj:` and `spatial:` conventions."""
    left, _, _, top = zone.window.bounds_m(zone.epsg)
    height, width = zone.level_shape(level)
    gsd = TARGET_GSD_M * 2**level
    return {
        "zarr_conventions": _CONVENTIONS[:2],
        "proj:code": f"EPSG:{zone.epsg}",
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [left, top - height * gsd, left + width * gsd, top],
        "spatial:transform": [gsd, 0.0, left, 0.0, -gsd, top],
        "spatial:shape": [height, width],
        "spatial:registration": "pixel",
    }


def _draft_level(root: zarr.Group, grid: Grid, zone: Zone, level: int, spatial: Mapping[str, Any]) -> None:
    """Create the group of a level, its arrays and coordinates.

    Where it lies is an attribute of each array with pixels, not of the group: time's bounds are in it, too, and GDAL
    3.13 looks for y and x in whatever the group holds.
    """
    own = {
        "difffusr:window": list(zone.window),
        "difffusr:grid": [grid.shard_px, grid.chunk_px],
        "difffusr:periods": [[a.isoformat(), b.isoformat()] for a, b in zone.periods],
        "difffusr:lineage": list(zone.lineage),
        "difffusr:overviews": zone.overviews,
        **({"difffusr:uncertainty_samples": zone.uncertainty_samples} if zone.uncertainty_samples else {}),
    }
    group = root.create_group(zone.level_path(level), attributes={"Conventions": "CF-1.11", **({} if level else own)})
    height, width = zone.level_shape(level)
    steps = len(zone.periods)
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
    shard, chunk = grid.shard_px, grid.chunk_px
    encoding = _encoding(zone.revision)
    averaged = {"cell_methods": "area: mean"} if level else {}

    def spectral(name: str, scale: int, fill: int, long_name: str, attributes: Mapping[str, Any]) -> None:
        group.create_array(
            name,
            shape=(steps, len(BANDS), height, width),
            shards=(1, len(BANDS), shard, shard),
            chunks=(1, len(BANDS), chunk, chunk),
            dtype="uint16",
            fill_value=fill,
            compressors=codec,
            chunk_key_encoding=encoding,
            dimension_names=("time", "band", "y", "x"),
            attributes={
                "standard_name": "surface_bidirectional_reflectance",
                "long_name": long_name,
                "units": "1",
                "scale_factor": 1 / scale,
                "_FillValue": fill,
                "grid_mapping": "spatial_ref",
                "coordinates": "wavelength",
                **attributes,
                **spatial,
            },
        )

    beside = "quality source reflectance_std" if zone.uncertainty_samples else "quality source"
    spectral("reflectance", DN_SCALE, 0, "surface reflectance", {"ancillary_variables": beside, **averaged})
    if zone.uncertainty_samples:
        spectral(
            "reflectance_std",
            STD_SCALE,
            STD_FILL,
            f"standard deviation of surface reflectance among {zone.uncertainty_samples} samples of super-resolution",
            {"cell_methods": "realization: standard_deviation" + (" area: mean" if level else "")},
        )
    flags = list(Quality)
    labels: dict[str, tuple[str, dict[str, Any]]] = {
        "quality": (
            "uint8",
            {
                "long_name": "what a pixel is made of",
                "standard_name": "quality_flag",
                "flag_values": [int(flag) for flag in flags],
                "flag_meanings": " ".join(flag.name.lower() for flag in flags),
            },
        ),
        "source": (
            "uint16",
            {
                "long_name": "number of the scene in the root group's attribute difffusr:scenes, 0 for none",
                "grid_mapping": "spatial_ref",
            },
        ),
    }
    for name, (dtype, attributes) in labels.items():
        group.create_array(
            name,
            shape=(steps, height, width),
            shards=(1, shard, shard),
            chunks=(1, chunk, chunk),
            dtype=dtype,
            fill_value=0,
            compressors=codec,
            chunk_key_encoding=encoding,
            dimension_names=("time", "y", "x"),
            attributes={
                **attributes,
                "grid_mapping": "spatial_ref",
                **({"cell_methods": "area: mode"} if level else {}),
                **spatial,
            },
        )
    _draft_coordinates(group, zone, level)


def _encoding(revision: int) -> Any:
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    return {"name": name, "configuration": {"separator": separator}}


def _draft_coordinates(group: zarr.Group, zone: Zone, level: int) -> None:
    left, _, _, top = zone.window.bounds_m(zone.epsg)
    height, width = zone.level_shape(level)
    gsd = TARGET_GSD_M * 2**level
    crs = CRS.from_epsg(zone.epsg)
    days = [((a - _EPOCH).days, (b - _EPOCH).days + 1) for a, b in zone.periods]

    def coordinate(name: str, values: NDArray[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]) -> None:
        by_step = dims[:1] == ("time",)
        chunks = (1, *values.shape[1:]) if by_step else tuple(max(1, n) for n in values.shape)
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=chunks,
            dtype=values.dtype,
            # One dimension has two kinds of keys, not four: v2 has no separator to tell them apart.
            chunk_key_encoding=_encoding(zone.revision % 2 * 2 if by_step else 0),
            dimension_names=dims,
            attributes=dict(attributes),
        )
        array[...] = values

    calendar = {"units": "days since 1970-01-01", "calendar": "standard"}
    coordinate(
        "time",
        np.array([a for a, _ in days], np.int64),
        ("time",),
        {
            **calendar,
            "standard_name": "time",
            "axis": "T",
            "bounds": "time_bnds",
            "long_name": "first day of the period",
        },
    )
    coordinate("time_bnds", np.array(days, np.int64).reshape(-1, 2), ("time", "bnds"), calendar)
    coordinate(
        "x",
        left + gsd * (np.arange(width) + 0.5),
        ("x",),
        {
            "standard_name": "projection_x_coordinate",
            "units": "m",
            "axis": "X",
            "long_name": "easting of pixel centres",
        },
    )
    coordinate(
        "y",
        top - gsd * (np.arange(height) + 0.5),
        ("y",),
        {
            "standard_name": "projection_y_coordinate",
            "units": "m",
            "axis": "Y",
            "long_name": "northing of pixel centres",
        },
    )
    coordinate(
        "wavelength",
        np.array([WAVELENGTH_NM[band] for band in BANDS]),
        ("band",),
        {"standard_name": "radiation_wavelength", "units": "nm", "long_name": "central wavelength of Sentinel-2A"},
    )
    coordinate(
        "band",
        np.array(BANDS, dtype=np.dtypes.StringDType()),
        ("band",),
        {"long_name": "Sentinel-2 band", "difffusr:native_gsd_m": [GSD_M[band] for band in BANDS]},
    )
    geo_transform = f"{left} {gsd} 0 {top} 0 {-gsd}"
    coordinate(
        "spatial_ref",
        np.array(0, np.int64),
        (),
        {**crs.to_cf(), "crs_wkt": crs.to_wkt(), "spatial_ref": crs.to_wkt(), "GeoTransform": geo_transform},
    )


def _contents(memory: MemoryStore) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        out = {}
        async for key in memory.list():
            value = await memory.get(key, default_buffer_prototype())
            assert value is not None
            out[key] = value.to_bytes()
        return out

    contents: dict[str, bytes] = sync(read())
    return contents


def _read_root(storage: Storage) -> dict[str, Any]:
    document = metadata(storage, "zarr.json")
    if document is None:
        return {}
    attributes: dict[str, Any] = document.get("attributes", {})
    if "difffusr:zones" not in attributes:
        raise ConfigError(
            f"store.url: {storage.url} holds a Zarr store that is not a cube of this kind; choose another store.url"
        )
    return attributes
