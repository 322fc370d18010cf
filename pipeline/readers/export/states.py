"""What files are made of, as a digest: a file of the same is kept, one of an earlier state of the cube made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import rasterio
from rasterio.errors import RasterioError

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish import states_seen
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.mosaic import Mosaic
from difffusr.pipeline.readers.export.sources import array_of
from difffusr.pipeline.readers.export.writing import MADE_OF
from difffusr.pipeline.storage import Storage, store_failures

#: Part of every digest: another number makes all files again.
_VERSION: Final = 1

#: What of a run's configuration decides its pixels.
_DECIDING: Final = ("grid", "model", "scenes")


def state_of(cube: Cube, export: Export) -> str:
    """A digest of all that a file's pixels depend on: its window and lattice, and what the cube shows of its zones and
    period. The cube says by its revisions what it shows: another month of a zone that is published again changes it,
    too.

    Raises:
        StoreError: the store refuses.
    """
    lattice = export.lattice
    pages = cube.attributes.get("difffusr:scene_pages") or {}
    period = f"{export.days[0].isoformat()}/{export.days[1].isoformat()}"
    told: dict[str, Any] = {
        "version": _VERSION,
        "variable": export.variable,
        "numbers": {name: str(value) for name, value in sorted(dict(array_of(cube, export).attrs).items())},
        "window": list(export.window),
        "lattice": [lattice.crs, lattice.pixel, lattice.origin, lattice.west],
        "period": period,
        "scenes": pages.get(period),
        "zones": {str(epsg): _shown(cube, epsg) for epsg in _zones_of(cube, export)},
        "made": _made(cube),
    }
    if export.mosaic:
        mosaic = Mosaic(cube, lattice)
        told["mosaic"] = [mosaic.resolution.level, mosaic.resolution.coarse, mosaic.half_m]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _made(cube: Cube) -> Mapping[str, Any]:
    made = cube.made_with
    config = made.get("config") or {}
    return {
        **{name: made.get(name) for name in ("model", "weights", "sampling")},
        **{name: config.get(name) for name in _DECIDING},
    }


def _shown(cube: Cube, epsg: int) -> list[Any]:
    """What readers see of a zone: the states that led to it, and its extent."""
    states = states_seen(cube.storage)(cube.lineage(epsg))
    return [sorted(states), list(cube.window(epsg)), list(cube.lineage(epsg))]


def _zones_of(cube: Cube, export: Export) -> Iterator[int]:
    """The zones that a file shows."""
    if not export.mosaic:
        yield export.epsg
        return
    yield from (view.epsg for view in Mosaic(cube, export.lattice).views(export.label, export.window))


def is_ours(folder: Storage, name: str) -> bool:
    """Whether a file says that it was exported from a cube: another one must not be replaced unasked."""
    fs, root = folder.filesystem()
    try:
        with fs.open(f"{root}/{name}", "rb") as file, rasterio.open(file) as read:
            return MADE_OF in read.tags()
    except RasterioError:
        return False
    except store_failures() as error:
        raise StoreError(f"{folder.url}/{name}: cannot be read ({type(error).__name__})") from None
