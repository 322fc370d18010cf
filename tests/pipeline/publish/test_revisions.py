"""Revisions of a zone: none takes what readers look at, and so many stay."""

from __future__ import annotations

import pytest
from plain_cubes import JANUARY, appended, opened, revised
from small_cubes import GROUP, SHARDS, seen

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish.door import rollback


def test_no_revision_takes_the_keys_that_readers_look_at(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    for value in range(12, 20):
        before = opened(storage)
        revised(storage, staging, 1, value)
        assert seen(before) == JANUARY
        rollback(storage, staging, to=1)
        assert seen(opened(storage)) == JANUARY


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_so_many_earlier_revisions_are_kept(on_disk, keep):
    storage, staging = on_disk
    appended(storage, staging, 1, 1)
    cubes = [opened(storage)]
    for value in range(2, 8):
        revised(storage, staging, 1, value, keep=keep)
        cubes.append(opened(storage))
        for back in range(min(keep, value - 1)):
            assert seen(cubes[-2 - back]) == {"2023-01": {value - 1 - back}}
    names = {name.split("/")[0] for name in storage.names(f"{GROUP}/reflectance")} - {"zarr.json"}
    shards = [name for name in storage.names(f"{GROUP}/reflectance") if name != "zarr.json"]
    assert len(shards) == (keep + 1) * len(SHARDS), names
    for number in range(7 - keep, 7):
        rollback(storage, staging, to=number)
        assert seen(opened(storage)) == {"2023-01": {number}}
    with pytest.raises(DifffusrError, match="have been deleted") as caught:
        rollback(storage, staging, to=7 - keep - 1)
    assert "keep_revisions" in str(caught.value)
