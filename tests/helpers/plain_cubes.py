"""Cubes in plain Zarr stores, month by month, as runs write them and as anybody opens them."""

from __future__ import annotations

from typing import Any

import xarray as xr
from small_cubes import EPSG, drafted, published, raw

from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.publish.revisions import next_revision, was_seen
from difffusr.pipeline.storage.objects import Storage

#: What readers see where January holds 11, and February 12 besides.
JANUARY, BOTH = {"2023-01": {11}}, {"2023-01": {11}, "2023-02": {12}}


def opened(storage: Storage) -> xr.Dataset:
    """As anybody opens a cube: nothing but xarray."""
    options = dict(storage.options) or None
    return raw(xr.open_zarr, storage.url, storage_options=options)


def revised(storage: Storage, staging: Storage, number: int, value: int, **more: Any) -> Publication:
    """A published month again, with other pixels, in the revision that a run would choose."""
    zone = drafted(storage, number).zones[EPSG]
    return published(storage, staging, number, value, revise=next_revision(staging, EPSG, zone.lineage), **more)


def appended(storage: Storage, staging: Storage, number: int, value: int, **more: Any) -> Publication:
    """A new month, in a new revision where a run would choose one."""
    zone = drafted(storage, number).zones[EPSG]
    if was_seen(staging, EPSG, zone.revision, zone.step):
        return revised(storage, staging, number, value, **more)
    return published(storage, staging, number, value, **more)


class DyingStorage(Storage):
    """A store whose driver dies after so many writes."""

    left = 0

    def write(self, name: str, data: bytes) -> None:
        if type(self).left == 0:
            raise KeyboardInterrupt
        type(self).left -= 1
        super().write(name, data)

    def exchange(self, name: str, data: bytes, tag: str) -> bool:
        if type(self).left == 0:
            raise KeyboardInterrupt
        type(self).left -= 1
        return super().exchange(name, data, tag)
