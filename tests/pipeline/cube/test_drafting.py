"""The next state of a cube: what an existing one holds already stays, and must fit."""

from __future__ import annotations

import pytest
from plain_cubes import appended, revised
from small_cubes import EPSG, GRID, label, month

from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.ground.errors import DifffusrError


def test_scenes_keep_their_numbers(on_disk):
    storage, staging = on_disk
    for number in (1, 2, 3):
        appended(storage, staging, number, 10 + number)
    revised(storage, staging, 2, 22)
    root = metadata(storage, "zarr.json")
    assert root is not None
    ids = {n: facts["id"] for n, facts in root["attributes"]["difffusr:scenes"].items()}
    assert ids == {str(n): f"scene of {label(n)}" for n in (1, 2, 3)}


def test_other_ground_is_refused(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    with pytest.raises(DifffusrError, match="already holds zone"):
        draft_cube(storage, GRID, {EPSG: PixelWindow(0, 0, 128, 128)}, month(2), [], {})
