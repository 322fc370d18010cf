"""A survey counts what the cube contains, however large the cube is."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from reported_cubes import HOLDS, QUALITY, SOURCE, WINDOW
from small_cubes import EPSG, label

from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.report import survey
from difffusr.pipeline.readers.report.survey import survey_period


def test_each_shard_has_its_own_shares_and_its_scene(told):
    seen = told.periods[0].survey
    assert len(seen.cells) == 6
    assert told.periods[0].whole_shards
    for cell in seen.cells:
        rows = slice(cell.window.row - WINDOW.row, cell.window.row_stop - WINDOW.row)
        cols = slice(cell.window.col - WINDOW.col, cell.window.col_stop - WINDOW.col)
        assert cell.flags == tuple((QUALITY[rows, cols] == flag).sum() for flag in Quality)
        assert cell.with_data == HOLDS[rows, cols].sum()
        assert cell.scene == np.bincount(SOURCE[rows, cols].ravel(), minlength=3)[1:].argmax() + 1
    assert seen.scenes == {1: (SOURCE == 1).sum(), 2: (SOURCE == 2).sum()}
    assert seen.flags[Quality.CLOUDY] == pytest.approx((QUALITY == Quality.CLOUDY).mean())


def test_of_a_large_cube_a_bounded_part_is_read_spread_over_every_shard(cube, monkeypatch):
    monkeypatch.setattr(survey, "MOST_CHUNKS", 12)
    monkeypatch.setattr(survey, "MOST_SAMPLED", 5)
    monkeypatch.setattr(survey, "_levels", lambda *_: [])  # a cube without overviews
    seen = survey_period(cube, label(1), 100, None)
    assert sum(cell.looked_at for cell in seen.cells) == 12 * 96**2
    assert {cell.looked_at for cell in seen.cells} == {2 * 96**2}
    assert seen.bands.chunks == 5


def test_an_overview_is_read_instead_where_there_is_one(cube, monkeypatch):
    overview = cube.zones[EPSG].store
    quality = np.asarray(zarr.open_array(overview, path=f"{EPSG}/1/quality", mode="r")[0])
    monkeypatch.setattr(survey, "MOST_CHUNKS", 12)
    seen = survey_period(cube, label(1), 100, None)
    assert seen.seen_m == 5
    assert sum(cell.looked_at for cell in seen.cells) == quality.size
    assert seen.flags == {flag: pytest.approx((quality == flag).mean()) for flag in Quality}
    assert seen.bands.pixels == HOLDS.sum()  # reflectance is that of 2.5 m all the same


def test_many_shards_share_a_cell(cube):
    seen = survey_period(cube, label(1), 3, None)
    assert [cell.shards for cell in seen.cells] == [2, 4]  # squares of two, cut at whole numbers of them
    assert sum(cell.looked_at for cell in seen.cells) == QUALITY.size
