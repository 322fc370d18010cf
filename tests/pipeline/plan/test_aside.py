"""Scenes that cannot be read: remembered by their version, tried again, forgotten once they can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_rasters import SQUARE, raster, scene_of

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.aside import Aside
from difffusr.pipeline.scenes.chip import Unread, unreadable
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.storage.objects import Storage

GRID = Grid(chip_px=48, overlap_px=12)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return scene_of(str(raster(tmp_path / "B04.tif", 7)))


def chip_in_the_square() -> str:
    step = GRID.stride_px * 4
    return f"32648/{SQUARE.row // step}_{SQUARE.col // step}"


def damaged(scene: Scene) -> Aside:
    """As a run notes it after the scene's file was taken away."""
    Path(scene.assets["B04"].href).unlink()
    found = unreadable(SQUARE, [scene], ChipRules())
    assert [(one.scene, one.band) for one in found] == [(scene.id, "B04")]
    return Aside({}).with_unread({chip_in_the_square(): found}, [scene])


def test_what_was_found_is_read_back(tmp_path: Path, scene: Scene) -> None:
    storage = Storage(str(tmp_path / "staging"))
    assert Aside.read(storage) == Aside({})
    aside = damaged(scene)
    aside.write(storage)
    assert Aside.read(storage) == aside
    assert "No such file" in aside.scenes[scene.id].why
    kept = (tmp_path / "staging/aside.json").read_bytes()
    chips = re.compile(rb'"chips": \[[^]]*\]')
    for odd in (b'[{"scene": 1}]', b"", b"{}", chips.sub(b'"chips": []', kept), chips.sub(b'"chips": ["x"]', kept)):
        storage.write("aside.json", odd)
        with pytest.raises(StoreError, match=r"aside.json: cannot be understood .*; delete it"):
            Aside.read(storage)


def test_a_scene_stays_aside_until_its_file_can_be_read(scene: Scene) -> None:
    aside = damaged(scene)
    assert aside.still_unreadable([scene], GRID) == aside
    raster(Path(scene.assets["B04"].href), 8)
    assert aside.still_unreadable([scene], GRID) == Aside({})


def test_another_version_of_a_scene_is_tried_and_an_absent_scene_is_remembered(scene: Scene) -> None:
    aside = damaged(scene)
    assert aside.still_unreadable([replace(scene, updated="2024-01-01")], GRID) == Aside({})
    assert aside.still_unreadable([], GRID) == aside
    assert aside.still_unreadable([replace(scene, id="other")], GRID) == aside


@pytest.mark.parametrize(
    ("chips", "places"), [(1, {(0, 0)}), (8, {(0, col) for col in range(8)}), (9, None), (40, None)]
)
def test_a_scene_that_fails_in_many_chips_is_set_aside_for_all(
    scene: Scene, chips: int, places: set[tuple[int, int]] | None
) -> None:
    failed = {f"32648/0_{col}": [Unread(scene.id, "B04", "cut short")] for col in range(chips)}
    aside = Aside({}).with_unread(failed, [scene])
    assert aside.by_number([replace(scene, id="first"), scene]) == {1: places}
    assert aside.with_unread(failed, [scene]) == aside


def test_rounds_add_up(scene: Scene) -> None:
    aside = Aside({})
    for col in range(9):
        assert (aside.by_number([scene]).get(0) is None) == (col == 0)
        aside = aside.with_unread({f"32648/0_{col}": [Unread(scene.id, "B04", "cut short")]}, [scene])
    assert aside.by_number([scene]) == {0: None}
