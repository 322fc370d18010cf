"""Composites on their way from readers to the staging folder: one column more, whatever becomes of a chip."""

from __future__ import annotations

import numpy as np
import pytest
from remembered_scenes import clouded, flat, remember, remembered_scene
from repeating_model import actor, read

from difffusr.pipeline.chips.batch import stacked
from difffusr.pipeline.chips.table import read_row
from difffusr.pipeline.geo.grid import ChipIndex, Grid
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.scenes import ChipRules, scene_window

GRID = Grid(96, 24, 512, 256)
COMPOSITE = ChipRules(composite="geomedian")


def rows_of(monkeypatch, pixels, rules, skip=()):
    row = read_row(GRID, ChipIndex(0, 0), remember(monkeypatch, pixels), rules, skip)
    return {name: np.asarray(value) for name, value in row.items()}


def test_a_row_of_a_composite_has_looks_and_one_of_single_scenes_has_not(monkeypatch):
    looks = [flat(96), clouded(flat(96), (0, 480), (0, 960))]
    made = rows_of(monkeypatch, looks, COMPOSITE)
    assert set(made) - set(rows_of(monkeypatch, looks, ChipRules())) == {"looks"}
    assert made["looks"].dtype == np.uint8
    assert (made["looks"][:48] == 1).all()
    assert (made["looks"][48:] == 2).all()


def test_a_chip_that_fails_has_the_same_columns(monkeypatch):
    good = rows_of(monkeypatch, [flat(96)] * 2, COMPOSITE)

    def fails(*_):
        raise ReadError("no such file")

    monkeypatch.setattr(scene_window, "read_window", fails)
    scenes = [remembered_scene("S2A", 1), remembered_scene("S2B", 2)]
    failed = {name: np.asarray(v) for name, v in read_row(GRID, ChipIndex(0, 0), scenes, COMPOSITE).items()}
    assert str(failed["error"]) == "no such file"
    assert not failed["looks"].any()
    batch = stacked([good, failed])
    assert batch["looks"].shape == (2, 96, 96)


def test_a_composite_of_water_alone_skips_the_networks_and_keeps_its_looks(monkeypatch):
    made = rows_of(monkeypatch, [flat(96, scl=6)] * 3, COMPOSITE, skip=(6,))
    assert made["skipped"]
    assert (made["quality"] == Quality.INTERPOLATED).all()
    assert (made["looks"] == 3).all()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_networks_are_asked_once_a_chip_however_many_looks_it_has(count):
    resolver, batch = actor(2), read(4)
    batch["looks"] = np.full(batch["quality"].shape, count, np.uint8)
    out = resolver(batch)
    assert [len(bands[10]) for bands in resolver.model.given] == [2, 2]
    assert np.array_equal(out["looks"], batch["looks"])
