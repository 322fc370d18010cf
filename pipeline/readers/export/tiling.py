"""Exports of many files: on Ray where that is worth it, resumable, with a table of what there is beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from difffusr.pipeline.config import ComputeSection, RunConfig
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.making import Job, Outcome, Work, cube_variables, item_in, make_item, taken
from difffusr.pipeline.readers.export.states import is_ours
from difffusr.pipeline.readers.export.vrt import Part, vrt_of
from difffusr.pipeline.readers.stac import as_json, as_parquet, collection_of
from difffusr.pipeline.storage import Storage, read_document, store_failures

#: So many items are made in this process: sooner than workers have started.
_FEW: Final = 8

#: Bytes of a worker that makes an item: the process, what GDAL keeps, a shard as stored and as read, a draft's blocks.
_WORKER_BYTES: Final = 2 * 1024**3

#: Requests to the folder at a time.
_REQUESTS: Final = 16

_COLLECTION: Final = "collection.json"


@dataclass(frozen=True)
class How:
    """How items are made.

    Attributes:
        overwrite: make all again, and replace what is there.
        scratch: a folder with room for drafts; the system's by default.
        workers: at most so many at a time; 1 for this process alone, None for as many as there are cores.
        address: of a Ray cluster; None for this machine.
    """

    overwrite: bool = False
    scratch: Path | None = None
    workers: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class Done:
    """What became of an export.

    Attributes:
        made, kept: names of files.
        failures: by name of the item, why.
        beside: names of the documents beside them.
    """

    made: Sequence[str]
    kept: Sequence[str]
    failures: dict[str, str]
    beside: Sequence[str]


def export_items(
    cube: Cube,
    exports: Sequence[Export],
    folder: Storage,
    collection: str,
    how: How,
    on_item: Callable[[Outcome], None] | None = None,
) -> Done:
    """Make files, an item for each place, period and tile, a VRT over the tiles of each variable and period, and the
    collection and table of all items that lie in the folder. Files that are there, whole, and of the same state of the
    cube are kept.

    Args:
        exports: see `exports_of`.
        folder: to write to.
        collection: its id.
        on_item: called after each item.

    Raises:
        ConfigError: something else lies in the folder under a name that is needed.
        StoreError: the folder cannot be read or written to.
    """
    sizes = _sizes_in(folder)
    by_item: dict[str, list[Export]] = {}
    for export in exports:
        by_item.setdefault(export.item, []).append(export)
    jobs = [Job.of(files, cube_variables(cube), sizes) for files in by_item.values()]
    earlier = _earlier(folder, collection, sizes, how.overwrite)
    _check_names(folder, exports, sizes, how.overwrite)
    work = Work(cube.storage, uuid4().hex, folder, collection, how.overwrite, how.scratch)
    found = []
    for outcome in _outcomes(work, jobs, how):
        found.append(outcome)
        if on_item is not None:
            on_item(outcome)
    items = {one.name: one.item for one in found if one.item is not None}
    failures = {one.name: one.failure for one in found if one.failure}
    others = _others(folder, [name for name in earlier if name not in by_item or name in failures], sizes)
    beside = _write_beside(cube, exports, folder, collection, items, others)
    made, kept = ([name for one in found for name in getattr(one, kind)] for kind in ("made", "kept"))
    return Done(made, kept, failures, beside)


def _sizes_in(folder: Storage) -> dict[str, int]:
    """Bytes of the files in a folder by name, without what lies in folders below: that may be much.

    Raises:
        StoreError: the store refuses.
    """
    fs, root = folder.filesystem()
    try:
        fs.invalidate_cache()
        found = fs.ls(root, detail=True)
    except FileNotFoundError:
        return {}
    except store_failures() as error:
        raise StoreError(f"{folder.url}: cannot be listed ({first_line(error)})") from None
    return {str(one["name"]).rpartition("/")[2]: int(one["size"]) for one in found if one["type"] == "file"}


def _earlier(folder: Storage, collection: str, sizes: Mapping[str, int], overwrite: bool) -> list[str]:
    """Names of the items that the folder's collection has already.

    Raises:
        ConfigError: it is another collection's folder.
    """
    if _COLLECTION not in sizes:
        return []
    document = _collection_in(folder)
    if document.get("id") != collection and not overwrite:
        raise ConfigError(taken(folder, _COLLECTION))
    links = document.get("links") or []
    names = (str(link.get("href", "")) for link in links if link.get("rel") == "item")
    return [name.removeprefix("./").removesuffix(".json") for name in names]


def _collection_in(folder: Storage) -> dict[str, Any]:
    """The folder's collection, as far as it can be read."""
    try:
        document: dict[str, Any] = read_document(folder, _COLLECTION, dict[str, Any], "")
    except DifffusrError:
        return {}
    return document


def _check_names(folder: Storage, exports: Sequence[Export], sizes: Mapping[str, int], overwrite: bool) -> None:
    """Raise ConfigError, before anything is written, if a name belongs to somebody else's file."""
    if overwrite:
        return
    for export in exports:
        if export.name in sizes and f"{export.item}.json" not in sizes and not is_ours(folder, export.name):
            raise ConfigError(taken(folder, export.name))


def _others(folder: Storage, names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Items that lie in the folder with all their files: those of earlier exports, and those that could not be made
    again now."""
    with ThreadPoolExecutor(_REQUESTS, "items") as pool:
        found = list(pool.map(lambda name: item_in(folder, name, sizes), names))
    return {
        name: item
        for name, item in zip(names, found, strict=True)
        if item is not None and all(str(asset["href"]).removeprefix("./") in sizes for asset in item["assets"].values())
    }


def _write_beside(
    cube: Cube,
    exports: Sequence[Export],
    folder: Storage,
    collection: str,
    made: dict[str, dict[str, Any]],
    others: dict[str, dict[str, Any]],
) -> list[str]:
    """Write VRTs, table and collection; returns their names."""
    items = [item for _, item in sorted({**others, **made}.items())]
    if not items:
        return []
    documents, assets = {}, {}
    for series, (export, parts) in _series(exports, {**others, **made}).items():
        documents[f"{series}.vrt"] = vrt_of(cube, export, parts)
        assets[series] = {
            "href": f"./{series}.vrt",
            "type": "application/xml; application=vrt",
            "title": f"{export.variable} of {export.label}, all tiles",
            "roles": ["data", "virtual"],
        }
    what = "Cloud Optimized GeoTIFFs exported from it"
    documents["items.parquet"] = as_parquet(items)
    documents[_COLLECTION] = as_json(collection_of(cube, collection, items, assets, what))
    for name, data in documents.items():
        folder.write(name, data)
    return list(documents)


def _series(exports: Sequence[Export], items: Mapping[str, dict[str, Any]]) -> dict[str, tuple[Export, list[Part]]]:
    """By name, the tiles of a variable and period that there are, with one of the files that were asked for."""
    wanted = {export.series: export for export in exports if export.tile is not None}
    found: dict[str, tuple[Export, list[Part]]] = {}
    for item in items.values():
        for asset in item["assets"].values():
            export = wanted.get(str(asset.get("difffusr:series")))
            part = None if export is None else _part(export, asset)
            if export is not None and part is not None:
                found.setdefault(export.series, (export, []))[1].append(part)
    return found


def _part(export: Export, asset: dict[str, Any]) -> Part | None:
    """A tile in the lattice of others; None if it is of another one."""
    lattice, window = export.lattice, export.window
    size, _, left, _, _, top = asset["proj:transform"]
    if (size, asset["proj:code"]) != (lattice.pixel, lattice.code) or asset["proj:shape"] != [*window[2:]]:
        return None
    row, col = round((lattice.origin - top) / size), round(left / size)
    if row % window.height or col % window.width:
        return None
    return Part(asset["href"].removeprefix("./"), PixelWindow(row, col, window.height, window.width))


def _outcomes(work: Work, jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    """What becomes of each item, as they end."""
    here = how.address is None and (how.workers == 1 or len(jobs) <= _FEW or find_spec("ray") is None)
    if here:
        for job in jobs:
            yield make_item(work, job)
        return
    yield from _on_ray(work, jobs, how)


def _on_ray(work: Work, jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    """Each item a task.

    Raises:
        DifffusrError: workers die again and again.
    """
    from difffusr.pipeline.engine import cluster, dispatch, resources, task_options

    with cluster(RunConfig.model_construct(compute=ComputeSection(address=how.address))):
        import ray

        shared = ray.put(replace(work, threads=1))
        task = ray.remote(make_item).options(**task_options(1, _WORKER_BYTES))
        ready = deque(range(len(jobs)))

        def begin(number: int) -> Any:
            return task.remote(shared, jobs[number])

        def most() -> int:
            return how.workers or max(1, int(resources().cpus))

        try:
            for ended in dispatch(ready, begin, most, lambda: False):
                yield from (outcome for _, outcome in ended)
        except ray.exceptions.RayError as error:
            raise DifffusrError(
                f"a worker of the export died again and again ({first_line(error)}); give it more memory or fewer "
                "--workers, and run it again: what is whole is kept"
            ) from None
