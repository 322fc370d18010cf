"""A grid in a cube's bands is seen, and held against a cube only once weights leave none."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo.grid import ChipIndex
from difffusr.pipeline.plan.tables import ChipPlan
from difffusr.pipeline.readers.gridness import GridCheck
from difffusr.pipeline.readers.verdicts import BandReport, shows_grid
from difffusr.pipeline.readers.verify import Report

#: A pattern with a standard deviation of 1.
GRID = np.kron(np.ones((192, 192)), np.array([[1, -1, 1, 1], [-1, 1, 1, -1], [1, -1, -1, 1], [-1, -1, 1, -1]]))

CLEAN = [BandReport(band, 1.0, 0.01, 0.001, True) for band in BANDS]


def pixels(grid: dict[str, float], texture: float = 40, side: int = 768, seed: int = 0) -> NDArray[np.uint16]:
    """(bands, side, side) DN: noise of some standard deviation, and a grid in some bands."""
    rng = np.random.default_rng(seed)
    planes = [2000 + rng.normal(0, texture, (side, side)) + grid.get(b, 0) * GRID[:side, :side] for b in BANDS]
    return np.round(planes).astype(np.uint16)


def plans(count: int) -> list[ChipPlan]:
    return [ChipPlan(32632, ChipIndex(0, i), ("A",), 1.0, 1.0, f"{i:064}") for i in range(count)]


def judged(*chips: tuple[NDArray[np.uint16], NDArray[np.uint16]]) -> dict[str, BandReport]:
    planned = plans(len(chips))
    check = GridCheck(planned)
    for plan, chip in zip(planned, chips, strict=True):
        check.look(plan, *chip)
    return {band.band: band for band in check.judged(CLEAN)}


def of_scene(side: int, number: int = 1) -> NDArray[np.uint16]:
    return np.full((side, side), number, np.uint16)


@pytest.mark.parametrize("side", [768, 384, 256, 192, 96])
def test_a_grid_is_seen_in_the_bands_that_have_it(side):
    found = judged((pixels({"B01": 20, "B8A": 12}, side=side), of_scene(side, 7)))
    near = 0.15 if side > 96 else 0.4
    for band, strength in (("B01", 20), ("B8A", 12)):
        assert found[band].gridness == pytest.approx(strength**2 / (strength**2 + 0.951 * 1600), rel=near)
        assert found[band].grid_amplitude == pytest.approx(2**0.5 * strength / 1e4, rel=near)
    assert {band for band, report in found.items() if report.grid} >= {"B01", "B8A"}
    if side >= 256:
        assert {band for band, report in found.items() if report.grid} == {"B01", "B8A"}
        assert all(report.gridness < 0.003 for band, report in found.items() if band not in ("B01", "B8A"))


@pytest.mark.parametrize("texture", [0.3, 0.6, 1.0])
def test_on_flat_water_a_grid_that_nobody_sees_is_none(texture):
    found = judged((pixels({"B02": 0.6, "B03": 3}, texture=texture), of_scene(768)))
    assert found["B02"].gridness > 0.1
    assert found["B02"].grid_amplitude < 1e-4
    assert not found["B02"].grid
    assert found["B03"].grid


@pytest.mark.parametrize(
    ("gridness", "amplitude", "grid"),
    [(0.006, 2e-4, True), (0.004, 1e-2, False), (0.9, 9e-5, False), (0.0, 0.0, False), (0.0051, 1.1e-4, True)],
)
def test_a_grid_has_both_a_share_and_an_amplitude(gridness, amplitude, grid):
    assert shows_grid(gridness, amplitude) is grid


def test_tiles_of_several_scenes_or_without_data_say_nothing():
    woven = pixels({"B04": 30})
    mixed, none = of_scene(768), of_scene(768, 0)
    mixed[::2] = 2
    for source in (mixed, none):
        assert all(report.gridness is None for report in judged((woven, source)).values())
        assert list(judged((woven, source)).values()) == CLEAN
    partly = of_scene(768)
    partly[:300] = 2
    partly[:40] = 0
    assert judged((woven, partly))["B04"].grid


def test_chips_are_added_by_power_in_whatever_order():
    planned = plans(3)
    looks = [(pixels({"B05": 10}, seed=i), of_scene(768)) for i in range(3)]
    shares = []
    for order in ((0, 1, 2), (2, 0, 1)):
        check = GridCheck(planned)
        for i in order:
            check.look(planned[i], *looks[i])
        shares.append([asdict(report) for report in check.judged(CLEAN)])
    assert shares[0] == shares[1]


@pytest.mark.parametrize(("count", "tiles"), [(1, 9), (5, 20), (12, 12), (24, 24), (40, 24), (200, 24)])
def test_the_number_of_tiles_is_bounded(count, tiles, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "difffusr.pipeline.readers.gridness.grid_power", lambda x, valid, periods: looked.append(x.shape[-1] // 256)
    )
    check, (image, source) = GridCheck(plans(count)), (np.zeros((12, 768, 768), np.uint16), of_scene(768))
    for plan in plans(count):
        check.look(plan, image, source)
    assert sum(n * n for n in looked) == tiles


def test_without_chips_nothing_is_known():
    assert GridCheck([]).judged(CLEAN) == CLEAN


def test_a_grid_makes_a_cube_unclean():
    bands = list(judged((pixels({"B01": 20}), of_scene(768))).values())
    found = Report(1, 0, [], [], [], 1.0, {}, bands)
    assert not found.clean
    assert [band.band for band in bands if not band.ok] == ["B01"]
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [band["band"] for band in told["bands"] if band["grid"]] == ["B01"]
    assert told["bands"][0]["gridness"] > 0.1
    assert told["shifted"] == []
