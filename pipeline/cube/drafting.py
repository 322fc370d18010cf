"""The next state of a cube: one Zarr group a UTM zone, its metadata drafted in memory.

Readers see what the groups' consolidated ``zarr.json`` describes. A run drafts these documents in memory, writes shards
to the keys that the new metadata will use, and publishes the documents once every shard is written.

The zone's revision chooses the keys. In Zarr v3 an array's path and a chunk's index give one object key, unless the
array's chunk key encoding changes: the core specification has four encodings, which never produce the same key. A
published period is therefore written again under the keys of the next revision, where no reader looks before it is
published.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

import zarr
from zarr.codecs import BloscCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.cube.conventions import multiscales
from difffusr.pipeline.cube.described import check_root, check_zone, understood
from difffusr.pipeline.cube.documents import is_document, node_of, page_of, text_in, texts_of, without_members
from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.layout import (
    BASE_LEVEL,
    ENCODINGS,
    Zone,
    lattice_of,
    lattice_text,
    overviews_over,
    periods_of,
    periods_text,
)
from difffusr.pipeline.cube.protocol import CubeStore
from difffusr.pipeline.cube.scenes import PAGES, SceneTable
from difffusr.pipeline.cube.store import store_of
from difffusr.pipeline.cube.variables import COORDINATES, time_chunk, variables
from difffusr.pipeline.geo import Grid, Lattice, PixelWindow
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.storage import Storage

#: How every array with pixels is compressed.
_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


def draft_cube(
    storage: Storage,
    grid: Grid,
    extents: Mapping[int, PixelWindow],
    period: tuple[date, date],
    scenes: Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]],
    provenance: Mapping[str, Any],
    uncertainty_samples: int = 0,
    *,
    composite: str = "none",
    revise: Mapping[int, int] | None = None,
    begun: Collection[int] = (),
    of_crs: Lattice | None = None,
    collar_m: float | None = None,
) -> CubeDraft:
    """Plan the next state of a cube, new or existing. Nothing is written.

    Args:
        extents: by EPSG code, the shards' window of the run in that zone.
        period: first and last day.
        scenes: facts of the run's scenes, each with its `id`; scenes already in the cube keep their number. By number
            where another cube has numbered them.
        provenance: how the cube was made, for the root group's attributes.
        uncertainty_samples: number of samples behind `reflectance_std`; 0 for a cube without that variable.
        composite: what several looks of a chip become; "none" for a cube without `looks`.
        revise: new revision by zone, for the zones that need one.
        begun: those of them whose first shards are written already, as revision 0, though readers see no zone yet.
        of_crs: the pixels of a cube of one CRS, whose number stands for the only zone; None for UTM zones.
        collar_m: how far beyond their borders zones show the ground, in metres, for new ones.

    Raises:
        ConfigError: the cube at this URL covers other ground, has another grid, another number of samples, or another
            composite.
        StoreError: the store cannot be read.
    """
    store = store_of(storage)
    known = _root_attributes(store)
    revised, made_of, place = revise or {}, (uncertainty_samples, composite), (of_crs, collar_m)
    zones = {
        epsg: _next_zone(store, grid, epsg, window, period, *made_of, revised.get(epsg), epsg in begun, *place)
        for epsg, window in sorted(extents.items())
    }
    memory = MemoryStore()
    root = zarr.create_group(memory)
    for zone in zones.values():
        _draft_zone(root, grid, zone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # texts of variable length are not in the Zarr v3 core specification
        table, facts = SceneTable.of(known).with_scenes(root, partial(page_of, store), period, scenes)
    others = {int(zone) for zone in known.get("difffusr:zones", [])} - set(zones)
    _check_one_crs(storage, store, of_crs, others)
    root.attrs.put(
        {
            "Conventions": "CF-1.11",
            "title": f"Super-resolved Sentinel-2 Level-2A surface reflectance, 12 bands at {_pixel_words(zones)}",
            "source": "Contains modified Copernicus Sentinel data, super-resolved with DiffFuSR (arXiv 2506.11764)",
            "difffusr:zones": sorted({*zones, *others}),
            **table.attributes(),
            "difffusr:provenance": dict(provenance),
        }
    )
    contents = _contents(memory)
    own = {node_of(path): json.loads(data) for path, data in contents.items() if is_document(path)}
    kept = {*map(str, others), *table.pages.values()}
    documents = {
        path: without_members(document)
        for path, document in store.consolidated().items()
        if path in kept or path.split("/")[0] in kept
    }
    documents |= own
    with understood(storage):
        texts = texts_of(documents)
    objects = {path: texts.get(path, data) for path, data in contents.items()}
    pages = {path: text_in(document, memory, path) for path, document in own.items() if path.startswith(f"{PAGES}/")}
    return CubeDraft(storage, grid, zones, facts, objects, documents, table, pages)


def _pixel_words(zones: Mapping[int, Zone]) -> str:
    """Side of the finest pixels, on the ground, for the title; with the CRS where it is that of the whole cube."""
    zone = next(iter(zones.values()))
    if zone.of_crs is None:
        return f"{TARGET_GSD_M:g} m"
    return f"{zone.of_crs.ground_m(zone.window):g} m in {zone.of_crs.name}"


def _next_zone(
    store: CubeStore,
    grid: Grid,
    epsg: int,
    window: PixelWindow,
    period: tuple[date, date],
    samples: int,
    composite: str,
    revision: int | None,
    begun: bool,
    of_crs: Lattice | None,
    collar_m: float | None,
) -> Zone:
    """A zone with the run's period added to the time axis that the store has already."""
    storage, path = store.storage, f"{epsg}/{BASE_LEVEL}"
    existing = store.group(path)
    if existing is None:
        overviews = overviews_over(window, grid)
        lineage = (0,) if revision is None else (0, revision) if begun else (revision,)
        return Zone(
            epsg, window, (period,), 0, overviews, samples, lineage, (), revision is not None, composite,
            of_crs=of_crs, collar_m=collar_m,
        )  # fmt: skip
    attributes = existing.get("attributes") or {}
    check_zone(attributes, storage, epsg)
    holds, counted = PixelWindow(*attributes["difffusr:window"]), lattice_of(attributes)
    if counted != of_crs:
        raise ConfigError(
            f"{storage.url}: already holds pixels of {(counted or Lattice.of_zone(epsg)).pixel:g} in "
            f"{(counted or Lattice.of_zone(epsg)).known.name}, not of {(of_crs or Lattice.of_zone(epsg)).pixel:g} in "
            f"{(of_crs or Lattice.of_zone(epsg)).known.name}; choose another place, or the same CRS and resolution"
        )
    if holds != window or attributes["difffusr:grid"] != [grid.shard_px, grid.chunk_px]:
        lattice = of_crs or Lattice.of_zone(epsg)
        unit = "degrees" if lattice.is_geographic else "m"
        raise ConfigError(
            f"store.url: {storage.url} already holds zone {epsg} over {lattice.bounds(holds)} {unit} with shards of "
            f"{attributes['difffusr:grid'][0]} px, this run covers {lattice.bounds(window)} {unit} with "
            f"{grid.shard_px} px; choose another store.url, or the same area and grid"
        )
    made_of = attributes.get("difffusr:uncertainty_samples", 0)
    if made_of != samples:
        raise ConfigError(
            f"model.uncertainty_samples: found {samples}, but zone {epsg} of the cube at {storage.url} "
            f"{f'has a reflectance_std of {made_of} samples' if made_of else 'has no reflectance_std'}; set the key to "
            f"{made_of}, or choose another store.url"
        )
    began_as = attributes.get("difffusr:composite", "none")
    if began_as != composite:
        raise ConfigError(
            f"scenes.composite: found '{composite}', but zone {epsg} of the cube at {storage.url} "
            f"{'is no composite' if began_as == 'none' else f'is a composite by {began_as}'}; set the key to "
            f"'{began_as}', or choose another store.url"
        )
    periods = periods_of(attributes)
    lineage = tuple(attributes.get("difffusr:lineage", [0]))
    seen = lineage if period in periods else ()
    if period not in periods:
        periods.append(period)
    if revision is not None:
        lineage = (*lineage, revision)
    # A cube keeps the levels that it began with, and the chunks of its time.
    overviews = attributes.get("difffusr:overviews", 0)
    step, revised = periods.index(period), revision is not None
    chunk = time_chunk(store.group(f"{path}/time"))
    return Zone(
        epsg, window, tuple(periods), step, overviews, samples, lineage, seen, revised, composite, chunk, of_crs,
        attributes.get("difffusr:collar_m"),
    )  # fmt: skip


def _check_one_crs(storage: Storage, store: CubeStore, of_crs: Lattice | None, others: Collection[int]) -> None:
    """Raise ConfigError where a cube of one CRS would get another one beside it, or UTM zones."""
    for epsg in sorted(others):
        attributes = (store.group(f"{epsg}/{BASE_LEVEL}") or {}).get("attributes") or {}
        if of_crs is not None or lattice_of(attributes) is not None:
            held = (lattice_of(attributes) or Lattice.of_zone(epsg)).known.name
            raise ConfigError(
                f"store.url: {storage.url} already holds {held}; a cube of one CRS has no other beside it: choose "
                "another place"
            )


def _draft_zone(root: zarr.Group, grid: Grid, zone: Zone) -> None:
    """Create a zone's groups, arrays and coordinates."""
    root.create_group(str(zone.epsg), attributes=multiscales(zone))
    own = {
        "difffusr:window": list(zone.window),
        "difffusr:grid": [grid.shard_px, grid.chunk_px],
        "difffusr:periods": periods_text(zone.periods),
        "difffusr:lineage": list(zone.lineage),
        "difffusr:overviews": zone.overviews,
        **({"difffusr:uncertainty_samples": zone.uncertainty_samples} if zone.uncertainty_samples else {}),
        **({"difffusr:composite": zone.composite} if zone.composite != "none" else {}),
        **({"difffusr:lattice": lattice_text(zone.of_crs)} if zone.of_crs else {}),
        **({"difffusr:collar_m": zone.collar_m} if zone.collar_m is not None else {}),
    }
    for level in zone.levels:
        attributes = {"Conventions": "CF-1.11", **({} if level else own)}
        group = root.create_group(zone.level_path(level), attributes=attributes)
        _draft_variables(group, grid, zone, level)
        _draft_coordinates(group, zone, level)


def _draft_variables(group: zarr.Group, grid: Grid, zone: Zone, level: int) -> None:
    """Create a level's arrays with pixels."""
    for variable in variables(zone.uncertainty_samples, zone.composite):
        group.create_array(
            variable.name,
            shape=variable.sizes(len(zone.periods), *zone.level_shape(level)),
            shards=variable.sizes(1, grid.shard_px, grid.shard_px),
            chunks=variable.sizes(1, grid.chunk_px, grid.chunk_px),
            dtype=variable.dtype,
            fill_value=variable.fill,
            compressors=_CODEC,
            chunk_key_encoding=_encoding(zone.revision),
            dimension_names=variable.dims,
            attributes={**variable.attributes, **(variable.of_overview if level else {})},
        )


def _draft_coordinates(group: zarr.Group, zone: Zone, level: int) -> None:
    """Create and fill a level's coordinates, each in one chunk."""
    for coordinate in COORDINATES:
        values, by_step = coordinate.values(zone, level), coordinate.dims[:1] == ("time",)
        array = group.create_array(
            coordinate.name,
            shape=values.shape,
            chunks=(zone.time_chunk, *values.shape[1:]) if by_step else tuple(max(1, n) for n in values.shape),
            dtype=values.dtype,
            # One dimension has two kinds of keys, not four: v2 has no separator to tell them apart.
            chunk_key_encoding=_encoding(zone.revision % 2 * 2 if by_step else 0),
            dimension_names=coordinate.dims,
            attributes={**coordinate.attributes, **coordinate.of_level(zone, level)},
        )
        array[...] = values


def _encoding(revision: int) -> Any:
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    return {"name": name, "configuration": {"separator": separator}}


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


def _root_attributes(store: CubeStore) -> dict[str, Any]:
    document = store.group("")
    if document is None:
        return {}
    attributes: dict[str, Any] = document.get("attributes") or {}
    if not isinstance(attributes, dict) or "difffusr:zones" not in attributes:
        raise ConfigError(
            f"store.url: {store.storage.url} holds a Zarr store that is not a cube of this kind; choose another "
            "store.url"
        )
    check_root(attributes, store.storage)
    return attributes
