"""The files of one item made and stored, or kept where they are of the same state of the cube.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import rasterio

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.items import asset_of, ground_in, item_of, placed
from difffusr.pipeline.readers.export.sources import array_of
from difffusr.pipeline.readers.export.states import is_ours, state_of
from difffusr.pipeline.readers.export.writing import cogs_in, names_beside
from difffusr.pipeline.readers.stac import as_json
from difffusr.pipeline.storage import Storage, read_document

#: Bytes that GDAL keeps of drafts at most.
_CACHE: Final = 256 * 1024 * 1024

#: Bytes that are read of a file at a time to compare its checksum.
_PIECE: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class Work:
    """What all items of an export have in common, sent to the workers once.

    Attributes:
        cube: where it is.
        state: what it was when the export began: a worker that has opened another opens it anew.
        folder: to write to.
        collection: id of the items' collection.
        overwrite: whether files are made again that are of the same state, and others' files replaced.
        scratch: a folder with room for drafts.
        threads: that compress a file; None for all cores.
    """

    cube: Storage
    state: str
    folder: Storage
    collection: str
    overwrite: bool = False
    scratch: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One item to make.

    Attributes:
        exports: files of one place, period and tile.
        sizes: bytes of what lies in the folder under its names.
    """

    exports: Sequence[Export]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, exports: Sequence[Export], variables: Iterable[str], sizes: Mapping[str, int]) -> Job:
        """Of a folder's sizes by name those that belong to it, and to its files of any variable."""
        there = {name: sizes[name] for name in names_of(exports[0], variables) if name in sizes}
        return cls(exports, there)


@dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Attributes:
        name: of the item.
        item: the document; None of a tile without data, and of one that failed.
        made, kept: names of its files.
        failure: why it could not be made; empty if it could.
    """

    name: str
    item: dict[str, Any] | None = None
    made: Sequence[str] = ()
    kept: Sequence[str] = ()
    failure: str = ""


#: The cube that this worker read last, with what it was.
_opened: dict[tuple[str, str, str], Cube] = {}


def _cube(work: Work) -> Cube:
    key = work.cube.url, work.cube.snapshot, work.state
    if key not in _opened:
        _opened.clear()
        _opened[key] = Cube(work.cube)
    return _opened[key]


def make_item(work: Work, job: Job) -> Outcome:
    """Make the files of an item, and the item. What cannot be read or written is the item's failure, not the
    export's."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE):
            return _made(work, job.exports, job.sizes)
    except DifffusrError as error:
        return Outcome(job.exports[0].item, failure=str(error))


def _made(work: Work, exports: Sequence[Export], sizes: Mapping[str, int]) -> Outcome:
    cube, folder, first = _cube(work), work.folder, exports[0]
    before = item_in(folder, first.item, sizes)
    states = {export.variable: state_of(cube, export) for export in exports}
    kept = [one for one in exports if not work.overwrite and _is_whole(before, one, states, folder, sizes)]
    todo = [one for one in exports if one not in kept]
    if not todo:
        return Outcome(first.item, before, kept=[one.name for one in kept])
    _check_free(work, todo, before, sizes)
    with tempfile.TemporaryDirectory(prefix="difffusr-export-", dir=work.scratch) as place:
        cogs = cogs_in(Path(place), cube, todo, work.threads, states)
        if not cogs.paths:
            _forget(folder, exports, sizes)
            return Outcome(first.item)
        assets = dict(_still_there(cube, before, exports, sizes))
        for export, path in cogs.paths.items():
            assets[export.variable] = asset_of(cube, export, path, states[export.variable])
            folder.put(export.name, path)
            attributes = dict(array_of(cube, export).attrs)
            if "flag_values" in attributes:
                folder.write(f"{export.name}.aux.xml", names_beside(attributes))
        item = item_of(cube, work.collection, first, placed(ground_in(cogs, first)), assets)
    # Last: files without an item, or with one of another state, are made again.
    folder.write(f"{first.item}.json", as_json(item))
    return Outcome(first.item, item, [one.name for one in todo], [one.name for one in kept])


def item_in(folder: Storage, name: str, sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """The document of an item that lies in a folder; None if there is none, or none that can be read."""
    if f"{name}.json" not in sizes:
        return None
    try:
        item: dict[str, Any] = read_document(folder, f"{name}.json", dict[str, Any], "")
    except DifffusrError:
        return None
    return item if isinstance(item.get("assets"), dict) and isinstance(item.get("properties"), dict) else None


def _is_whole(
    item: Mapping[str, Any] | None,
    export: Export,
    states: Mapping[str, str],
    folder: Storage,
    sizes: Mapping[str, int],
) -> bool:
    """Whether a file is there, whole, and of the same state."""
    asset = ((item or {}).get("assets") or {}).get(export.variable) or {}
    if asset.get("difffusr:state") != states[export.variable] or asset.get("file:size") != sizes.get(export.name, -1):
        return False
    return not folder.is_local or str(asset.get("file:checksum", "")).endswith(_checksum(folder, export.name))


def _checksum(folder: Storage, name: str) -> str:
    digest = hashlib.sha256()
    with Path(folder.filesystem()[1], name).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _check_free(work: Work, todo: Sequence[Export], before: Mapping[str, Any] | None, sizes: Mapping[str, int]) -> None:
    """Raise DifffusrError if one of the names belongs to somebody else's file."""
    known = (before or {}).get("assets") or {}
    for export in todo:
        is_there = export.name in sizes and not work.overwrite and export.variable not in known
        if is_there and not is_ours(work.folder, export.name):
            raise DifffusrError(taken(work.folder, export.name))


def taken(folder: Storage, name: str) -> str:
    """What to say of a name that belongs to somebody else's file."""
    return f"{folder.url}/{name}: exists already; add --overwrite, or choose another folder"


def _still_there(
    cube: Cube, before: Mapping[str, Any] | None, exports: Sequence[Export], sizes: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Assets of an item's other variables that an earlier export has made of the same state."""
    for variable, asset in ((before or {}).get("assets") or {}).items():
        if variable not in cube_variables(cube):
            continue
        like = exports[0].of(variable)
        if like.name in sizes and asset.get("difffusr:state") == state_of(cube, like):
            yield variable, asset


def cube_variables(cube: Cube) -> set[str]:
    """Names of the variables of any zone."""
    return {name for epsg in cube.zones for name in cube.variables(epsg)}


def _forget(folder: Storage, exports: Sequence[Export], sizes: Mapping[str, int]) -> None:
    """Delete what an earlier export has made of a tile that has no data any more."""
    for name in names_of(exports[0], [one.variable for one in exports]):
        if name in sizes:
            folder.delete(name)


def names_of(export: Export, variables: Iterable[str]) -> Iterator[str]:
    """Names of all that can lie in a folder of the item of a file, its document last: without it the rest is made
    again."""
    for variable in variables:
        yield from (f"{export.of(variable).name}{end}" for end in ("", ".aux.xml"))
    yield f"{export.item}.json"
