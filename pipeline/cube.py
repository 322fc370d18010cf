"""The store: one Zarr group a UTM zone; shards written whole, metadata drafted in memory.

What a reader sees is decided by the groups' consolidated ``zarr.json`` alone. A run drafts them in memory, writes
shards to where the new metadata will look for them, and has them published (`publication`) once every shard is there.

Where that is, is a matter of the zone's revision. In Zarr v3 an array's path and a chunk's index lead to one object,
unless the array's chunk key encoding changes: the core specification has four, whose keys have nothing in common. A
period that is published already is therefore written again under the keys of the next revision, where no reader looks
before its publication.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pyproj import CRS
from zarr.abc.store import RangeByteRequest, Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath

from kernels.bands import BANDS, GSD_M, TARGET_GSD_M, WAVELENGTH_NM
from pipeline.actor import DN_SCALE, STD_FILL, STD_SCALE
from pipeline.assemble import ShardData
from pipeline.errors import ConfigError, StoreError
from pipeline.grid import Grid, OverviewIndex, PixelWindow, ShardIndex
from pipeline.reader import Quality
from pipeline.repository import MAIN, failures_of, is_repository, open_repository
from pipeline.storage import STORE_FAILURES, Storage, first_line

#: Path of the 2.5 m level inside a zone's group.
BASE_LEVEL = "0"

#: A zone is halved until its longer side has no more chunks than this.
_SMALLEST_CHUNKS = 2

#: Bytes of a shard that are read back at a time.
_READ_BACK = 16 << 20

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


#: A shard of the 2.5 m level or of an overview.
AnyShard = ShardIndex | OverviewIndex


@dataclass(frozen=True)
class Zone:
    """One zone's part of a cube, as a run is about to publish it.

    Attributes:
        epsg: the zone.
        window: what its arrays cover, whole shards, in absolute 2.5 m pixels.
        periods: (start, end) of each step of the time axis, both days inclusive.
        step: position of the run's period on that axis.
        overviews: levels above 2.5 m, each half as fine as the one before.
        uncertainty_samples: how many samples `reflectance_std` is made of; 0 in a zone without that variable.
        lineage: revisions that led to this state, this one last: what was not written anew in one is as in those
            before.
        seen: those of them of which readers see the run's period; empty where they do not see it.
        revised: whether its revision is one that readers do not see yet.
    """

    epsg: int
    window: PixelWindow
    periods: tuple[tuple[date, date], ...]
    step: int
    overviews: int = 0
    uncertainty_samples: int = 0
    lineage: tuple[int, ...] = (0,)
    seen: tuple[int, ...] = ()
    revised: bool = False

    @property
    def period_days(self) -> tuple[date, date]:
        """First and last day of the run's period."""
        return self.periods[self.step]

    @property
    def revision(self) -> int:
        """Its revision: which keys its chunks have."""
        return self.lineage[-1]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that have shards."""
        return ("reflectance", "quality", "source", *(("reflectance_std",) if self.uncertainty_samples else ()))

    @property
    def path(self) -> str:
        """Path of the 2.5 m level's group."""
        return self.level_path(0)

    @property
    def levels(self) -> range:
        """All levels, the 2.5 m one first."""
        return range(1 + self.overviews)

    def level_path(self, level: int) -> str:
        """Path of a level's group."""
        return f"{self.epsg}/{level}"

    def level_shape(self, level: int) -> tuple[int, int]:
        """(height, width) of a level's arrays in its own pixels."""
        return -(-self.window.height >> level), -(-self.window.width >> level)

    def position(self, shard: AnyShard, grid: Grid) -> OverviewIndex:
        """Level of a shard, and its row and column in that level's arrays, in shards."""
        if isinstance(shard, OverviewIndex):
            return shard
        return OverviewIndex(
            0, shard.row - self.window.row // grid.shard_px, shard.col - self.window.col // grid.shard_px
        )


@dataclass(frozen=True)
class CubeDraft:
    """A cube's next state: its metadata in memory, its shards going to where that metadata will look for them.

    Attributes:
        storage: where the cube is.
        grid: its shards and chunks.
        zones: by EPSG code.
        scenes: number → facts of every scene a `source` pixel can name.
        objects: path → bytes of all metadata and coordinates.
    """

    storage: Storage
    grid: Grid
    zones: Mapping[int, Zone]
    scenes: Mapping[int, Mapping[str, Any]]
    objects: Mapping[str, bytes]

    @cached_property
    def store(self) -> Store:
        """The cube's Zarr store; of an Icechunk repository use a session's."""
        return open_store(self.storage, read_only=False)

    def write_shard(self, epsg: int, shard: AnyShard, data: ShardData, store: Store | None = None) -> dict[str, str]:
        """Write one whole shard of every variable and read it back.

        A shard is encoded in memory, so that its object is put in place by one request that asks nothing of what was
        there before, and compared byte for byte with what the store then returns.

        Args:
            store: another than the cube's own: an Icechunk session's.

        Returns:
            the sha256 of each object written, by its path in the store.

        Raises:
            StoreError: the store refuses, or returns other bytes than were written.
        """
        zone = self.zones[epsg]
        level, *place = zone.position(shard, self.grid)
        store = store or self.store
        keys = dict(zip(zone.variables, self.shard_objects(epsg, shard), strict=True))
        variables: dict[str, NDArray[Any]] = {
            "reflectance": data.reflectance,
            "quality": data.quality,
            "source": data.source,
        }
        if data.std is not None:
            variables["reflectance_std"] = data.std
        checksums = {}
        for name, values in variables.items():
            key = keys[name]
            encoded = self._encoded(f"{zone.level_path(level)}/{name}", key, (zone.step, *place), values)
            try:
                sync(store.set(key, encoded))
                whole = _holds(store, key, encoded)
            except STORE_FAILURES as error:
                raise StoreError(f"{self.storage.url}/{key}: cannot be written ({first_line(error)})") from None
            if not whole:
                raise StoreError(
                    f"{self.storage.url}/{key}: the store returns other bytes than were written; run again"
                )
            checksums[key] = hashlib.sha256(encoded.as_buffer_like()).hexdigest()
        return checksums

    def _encoded(self, path: str, key: str, place: Sequence[int], values: NDArray[Any]) -> Buffer:
        """A shard's object as the array at `path` has it at `key`; `place` is (time, row, col), in shards. What lies
        past the array's edge is left out."""
        time, row, col = place
        size = self.grid.shard_px
        here = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
        bands = (slice(None),) * (values.ndim - 2)
        objects: dict[str, Buffer] = {}
        array = self.array(MemoryStore(objects), path)
        height, width = (min(size, length - at * size) for length, at in zip(array.shape[-2:], (row, col), strict=True))
        array[(slice(time, time + 1), *bands, *here)] = values[None, ..., :height, :width]
        return objects[key]

    def shard_objects(self, epsg: int, shard: AnyShard) -> list[str]:
        """Paths of a shard's objects, one a variable, in the order of `Zone.variables`."""
        zone = self.zones[epsg]
        level, row, col = zone.position(shard, self.grid)
        return [
            f"{zone.level_path(level)}/{name}/{chunk_key(zone.revision, (zone.step, *index, row, col))}"
            for name, index in zip(zone.variables, ((0,), (), (), (0,)), strict=False)
        ]

    def in_order(self) -> list[str]:
        """Paths of all objects in the order in which they may be put in place: see `in_order`."""
        return in_order(self.objects)

    def array(self, store: Store, path: str) -> zarr.Array:
        """An array as it will be, in a store that need not know of it yet."""
        document = json.loads(self.objects[f"{path}/zarr.json"])
        inner = zarr.AsyncArray(document, StorePath(store, path), config={"write_empty_chunks": True})
        return zarr.Array(inner)


def in_order(objects: Mapping[str, bytes]) -> list[str]:
    """Paths of a cube's objects in the order in which they may be put in place: coordinates, arrays, then groups from
    the inside out. The root comes last: xarray finds every group by its consolidated metadata, so that this one object
    switches all zones at once."""

    def order(path: str) -> tuple[int, int, str]:
        if not path.endswith("zarr.json"):
            return 0, 0, path
        return (1 if json.loads(objects[path])["node_type"] == "array" else 2), -path.count("/"), path

    return sorted(objects, key=order)


class CubeReader:
    """Windows of a published cube in absolute pixels, at the step of time that a draft describes."""

    def __init__(self, storage: Storage, draft: CubeDraft) -> None:
        self._root = zarr.open_group(open_store(storage), mode="r")
        self._draft = draft

    def read(self, epsg: int, name: str, window: PixelWindow) -> NDArray[Any]:
        """(bands, h, w) or (h, w) of a variable, as stored; its fill value where the window reaches past the cube."""
        zone = self._draft.zones[epsg]
        row, col = window.row - zone.window.row, window.col - zone.window.col
        array = self._root[f"{zone.path}/{name}"]
        assert isinstance(array, zarr.Array)
        r0, r1 = max(row, 0), min(row + window.height, zone.window.height)
        c0, c1 = max(col, 0), min(col + window.width, zone.window.width)
        inside = np.asarray(array[(zone.step, ..., slice(r0, r1), slice(c0, c1))])
        missing = [(0, 0)] * (inside.ndim - 2)
        missing += [(r0 - row, row + window.height - r1), (c0 - col, col + window.width - c1)]
        return np.pad(inside, missing, constant_values=array.fill_value)


def open_store(storage: Storage, read_only: bool = True) -> Store:
    """A Zarr store at a URL: paths and ``file://`` through LocalStore, whose files appear whole or not at all; of an
    Icechunk repository what readers see."""
    if is_repository(storage):
        repository = open_repository(storage)
        if repository is None:
            raise StoreError(f"{storage.url}: there is no Icechunk repository; check store.url")
        with failures_of(storage):
            return repository.readonly_session(MAIN).store
    _, path = storage.filesystem()
    if storage.is_local:
        return LocalStore(path, read_only=read_only)
    try:
        return FsspecStore.from_url(storage.url, storage_options=dict(storage.options), read_only=read_only)
    except STORE_FAILURES as error:
        raise StoreError(f"{storage.url}: cannot be opened ({first_line(error)}); check store.url") from None


def objects_of(storage: Storage) -> Callable[[str], bytes | None]:
    """Opens a cube once and gives its objects by path, as readers see them; None for one that is not there.

    Raises:
        StoreError: the store refuses.
    """
    if not is_repository(storage):
        return lambda path: storage.read(path) if storage.exists(path) else None
    if open_repository(storage) is None:
        return lambda path: None
    store = open_store(storage)

    def found(path: str) -> bytes | None:
        with failures_of(storage):
            return _bytes_at(store, path)

    return found


def object_bytes(storage: Storage, path: str) -> bytes | None:
    """One object of a cube as readers see it; None where there is none. Of many: `objects_of`.

    Raises:
        StoreError: the store refuses.
    """
    return objects_of(storage)(path)


def metadata(storage: Storage, path: str) -> dict[str, Any] | None:
    """A JSON document of a cube as readers see it; None where there is none."""
    data = object_bytes(storage, path)
    document: dict[str, Any] | None = None if data is None else json.loads(data)
    return document


def _holds(store: Store, path: str, expected: Buffer) -> bool:
    """Whether a store returns these bytes. They are asked for in pieces, which all take the same memory."""
    for start in range(0, len(expected), _READ_BACK):
        piece = expected[start : start + _READ_BACK].as_numpy_array()
        asked = RangeByteRequest(start, start + len(piece))
        returned = sync(store.get(path, default_buffer_prototype(), asked))
        if returned is None or not np.array_equal(returned.as_numpy_array(), piece):
            return False
    return True


def _bytes_at(store: Store, path: str) -> bytes | None:
    value = sync(store.get(path, default_buffer_prototype()))
    return None if value is None else bytes(value.to_bytes())


#: The chunk key encodings of the Zarr v3 core specification, in the order of revisions: name, separator.
ENCODINGS = (("default", "/"), ("v2", "/"), ("default", "."), ("v2", "."))


def chunk_key(revision: int, index: Sequence[int]) -> str:
    """Key of a chunk below its array, for a zone's revision."""
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    return separator.join((*(("c",) if name == "default" else ()), *map(str, index)))


def chunk_index(revision: int, key: str) -> tuple[int, ...] | None:
    """Index of the chunk that a key below an array of two or more dimensions belongs to; None for a key of another
    revision."""
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    parts = key.split(separator)
    if name == "default" and parts.pop(0) != "c":
        return None
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        return None
    return tuple(map(int, parts))


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
        for path, document in published_documents(storage).items():
            if path.split("/")[0] in map(str, others):
                # A group's own empty copy would keep the root's from holding what is in it.
                document.pop("consolidated_metadata", None)
                data = default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())
                sync(memory.set(f"{path}/zarr.json", data))
        zarr.consolidate_metadata(memory)
    return CubeDraft(storage, grid, zones, numbered, {**own, "zarr.json": _contents(memory)["zarr.json"]})


def published_documents(storage: Storage) -> dict[str, dict[str, Any]]:
    """Metadata of every group and array below the root, by path, as readers see it: of the root's consolidated
    metadata.
    Of an Icechunk repository nothing: what its snapshots hold is of one piece by itself."""
    root = metadata(storage, "zarr.json") or {}
    found: dict[str, dict[str, Any]] = (root.get("consolidated_metadata") or {}).get("metadata", {})
    return found


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
    existing = (
        metadata(storage, f"{path}/zarr.json") if is_repository(storage) else published_documents(storage).get(path)
    )
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


def overviews_over(window: PixelWindow, grid: Grid) -> int:
    """How many overviews a zone has: as many as it takes until its longer side is two chunks or less."""
    if grid.shard_px % 2:
        return 0  # no shard would be a whole part of another
    longer, levels = max(window.height, window.width), 0
    while -(-longer >> levels) > _SMALLEST_CHUNKS * grid.chunk_px:
        levels += 1
    return levels


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
