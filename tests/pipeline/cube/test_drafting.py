"""The next state of a cube: what an existing one holds already stays, and must fit."""

from __future__ import annotations

import pytest
from plain_cubes import appended, revised
from small_cubes import EPSG, GRID, WINDOW, label, month

from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.storage.objects import Storage


def test_scenes_keep_their_numbers(on_disk):
    storage, staging = on_disk
    for number in (1, 2, 3):
        appended(storage, staging, number, 10 + number)
    revised(storage, staging, 2, 22)
    assert {n: facts["id"] for n, facts in Cube(storage).scenes.items()} == {
        n: f"scene of {label(n)}" for n in (1, 2, 3)
    }


@pytest.mark.parametrize(("began", "found"), [("none", "medoid"), ("geomedian", "none"), ("medoid", "geomedian")])
def test_a_cube_keeps_the_composite_that_it_began_with(tmp_path, began, found):
    storage = Storage(str(tmp_path / "cube.zarr"))
    draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(1), [], {}, composite=began)
    for path, content in draft.objects.items():
        storage.write(path, content)
    assert draft_cube(storage, GRID, {EPSG: WINDOW}, month(2), [], {}, composite=began).zones[EPSG].composite == began
    with pytest.raises(ConfigError) as caught:
        draft_cube(storage, GRID, {EPSG: WINDOW}, month(2), [], {}, composite=found)
    said = str(caught.value)
    assert said.startswith(f"scenes.composite: found '{found}', but zone {EPSG} of the cube at {storage.url} is ")
    assert said.endswith(f"; set the key to '{began}', or choose another store.url")
    assert "\n" not in said


def test_other_ground_is_refused(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    with pytest.raises(DifffusrError, match="already holds zone"):
        draft_cube(storage, GRID, {EPSG: PixelWindow(0, 0, 128, 128)}, month(2), [], {})
