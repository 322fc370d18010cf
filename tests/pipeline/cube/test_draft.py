"""Shards are written whole and read back."""

from __future__ import annotations

import hashlib

from small_cubes import EPSG, GROUP, SHARDS, drafted, label, pixels

from difffusr.pipeline.cube.documents import metadata, object_bytes
from difffusr.pipeline.publish.door import open_target


def test_an_object_is_read_back_as_it_was_written(on_disk):
    storage, staging = on_disk
    target = open_target(storage, staging, drafted(storage, 1), label(1))
    target.begin()
    receipt = target.writer().write(EPSG, SHARDS[0], pixels(5))
    for path, checksum in receipt.objects.items():
        assert hashlib.sha256(object_bytes(storage, path) or b"").hexdigest() == checksum
    assert object_bytes(storage, f"{GROUP}/nothing") is None
    assert metadata(storage, "zarr.json") is None
