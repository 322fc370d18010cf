"""An area of a million corners is planned within seconds, or refused in one line."""

from __future__ import annotations

import json
import logging
import time

import numpy as np
import pytest
from shapely.geometry import Polygon, mapping

from difffusr.pipeline.config.sections import AreaSection
from difffusr.pipeline.geo import simplifying
from difffusr.pipeline.geo.area import geometry_of
from difffusr.pipeline.ground.errors import ConfigError

ANGLES = np.linspace(0, 2 * np.pi, 300_001)[:-1]


def area_of(tmp_path, *polygons) -> AreaSection:
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps({"type": "GeometryCollection", "geometries": [mapping(one) for one in polygons]}))
    return AreaSection(geojson=str(file))


def ring(radius, middle=(6.1, 49.6)) -> Polygon:
    return Polygon(np.column_stack([middle[0] + radius * np.cos(ANGLES), middle[1] + radius * np.sin(ANGLES)]))


def test_a_coast_of_many_corners_becomes_simpler_and_that_is_said(tmp_path, caplog):
    coast = ring(0.5 + 0.05 * np.sin(40 * ANGLES) + 2e-5 * np.random.default_rng(1).standard_normal(len(ANGLES)))
    area, began = area_of(tmp_path, coast), time.process_time()
    with caplog.at_level(logging.WARNING):
        found = geometry_of(area)
    assert time.process_time() - began < 20
    assert abs(found.symmetric_difference(Polygon(coast.exterior.coords[::50])).area / found.area) < 0.001
    assert "300,001 corners: simplified to within 10 m" in caplog.text


@pytest.mark.parametrize("kind", ["scribble", "star", "saw"])
def test_an_outline_that_crosses_itself_a_million_times_is_refused(tmp_path, kind):
    random = np.random.default_rng(2)
    points = {
        "scribble": random.uniform((6, 49), (7, 50), (6000, 2)),
        "star": np.column_stack([6 + np.cos(ANGLES[::100] * 1001), 49 + np.sin(ANGLES[::100] * 1001)]),
        "saw": np.concatenate([np.column_stack([6 + random.uniform(0, 1, 4000), 49 + np.tile([0, 1], 2000)])]),
    }[kind]
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"crosses itself in some [\d,]+ places, at most 200,000 are repaired"):
        geometry_of(area_of(tmp_path, Polygon(points)))
    assert time.process_time() - began < 10


def test_an_outline_that_crosses_itself_here_and_there_is_repaired(tmp_path):
    bow = Polygon([(6, 49), (7, 50), (7, 49), (6, 50)])
    assert geometry_of(area_of(tmp_path, bow)).area == pytest.approx(0.5)


@pytest.mark.parametrize("corners", [1000, 20_000, pytest.param(150_000, marks=pytest.mark.slow)])
def test_one_crossing_among_many_corners_is_repaired(tmp_path, corners):
    points = np.asarray(ring(0.5).exterior.coords)[:: len(ANGLES) // corners]
    points[[1, 2]] = points[[2, 1]]  # at the first edge that is looked at
    crossed = Polygon(points)
    assert not crossed.is_valid
    assert geometry_of(area_of(tmp_path, crossed)).area == pytest.approx(np.pi / 4, rel=0.001)


def test_what_stays_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(simplifying, "AS_DRAWN", 1000)
    monkeypatch.setattr(simplifying, "_MOST", 2000)
    rough = Polygon(np.random.default_rng(3).uniform((6, 49), (7, 50), (3000, 2)))
    with pytest.raises(ConfigError, match="at most 2,000 are planned for"):
        geometry_of(area_of(tmp_path, rough))


@pytest.mark.parametrize("corners", [4, 1000, 100_000])
def test_an_area_of_usual_size_stays_as_it_is_drawn(tmp_path, caplog, corners):
    drawn = Polygon(np.asarray(ring(0.5).exterior.coords)[:: len(ANGLES) // corners])
    assert geometry_of(area_of(tmp_path, drawn)).symmetric_difference(drawn).area < 1e-12
    assert "simplified" not in caplog.text


def test_fields_smaller_than_the_tolerance_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(simplifying, "AS_DRAWN", 10)
    fields = [
        Polygon([(6 + d, 49), (6 + d + 5e-5, 49), (6 + d + 5e-5, 49.00005), (6 + d, 49.00005)]) for d in (0, 1, 2)
    ]
    found = geometry_of(area_of(tmp_path, *fields))
    assert found.area == pytest.approx(3 * 25e-10, rel=0.01)
