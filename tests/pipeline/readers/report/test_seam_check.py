"""Seams are found where they are."""

from __future__ import annotations

import numpy as np
from reported_cubes import EVIL, REFLECTANCE, SOURCE, WINDOW, publish, staging_of
from small_cubes import label

from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.page import to_page


def test_a_step_along_the_borders_of_shards_or_chips_is_found_where_it_is(told, tmp_path):
    seams = {"none": told.periods[0].seams}
    for name, offset, step in (("shards", 0, 192), ("chips", 12, 72)):
        cols = WINDOW.col + np.arange(WINDOW.width)
        raised = ((cols - offset) // step % 2 * 3000).astype(np.uint16)
        cube = publish(tmp_path / name, REFLECTANCE + raised)
        seams[name] = collect_report(cube, staging_of(cube), None, [label(1)]).periods[0].seams
    chips = {name: np.array([band.seam_ratio for band in found.bands]) for name, found in seams.items()}
    assert np.abs(chips["none"] - 1).max() < 0.1
    assert np.abs(seams["none"].shard_ratio - 1).max() < 0.2
    assert seams["shards"].shard_ratio.min() > 1.3
    assert chips["chips"].min() > 1.2


def test_borders_between_dates_are_told_by_band_with_the_place_of_the_most_visible(told, tmp_path):
    balanced = told.periods[0].seams
    dates, granules, every = balanced.sources
    assert (dates.kind, dates.ok, granules.borders, every.borders) == ("dates", True, 0, dates.borders)
    assert dates.borders > 8
    raised = np.zeros_like(REFLECTANCE)
    raised[1] = np.where(SOURCE == 2, 900, 0)
    cube = publish(tmp_path, REFLECTANCE + raised)
    report = collect_report(cube, staging_of(cube), None, [label(1)])
    found = report.periods[0].seams
    assert [band.band for band in found.sources[0].bands if not band.ok] == ["B02"]
    assert found.worst_border.band == "B02"
    assert 0.06 < found.worst_border.step < 0.12
    page = to_page(report)
    table = page.partition("<h3>Borders between scenes</h3>")[2].partition("</table>")[0]
    assert f'<th scope="col">dates, {dates.borders} borders</th>' in table
    assert table.count("<span class=off>off</span>") == 1
    assert "Most visible: a step of" in page
    assert EVIL not in page


def test_without_its_grid_a_cube_still_has_seams_of_shards(tmp_path):
    cube = publish(tmp_path, REFLECTANCE, made="by a test")
    seams = collect_report(cube, staging_of(cube), None).periods[0].seams
    assert seams.bands == []
    assert seams.borders == 7
    assert np.isfinite(seams.shard_ratio).all()
    page = to_page(collect_report(cube, staging_of(cube), None))
    assert "The cube does not say where its chips are" in page
    assert "too few to judge" in page
