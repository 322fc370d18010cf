"""One sweep over all scenes: who is compared with whom, how far apart points are, and what is in memory."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
import shapely

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.plan.balance import survey as module
from difffusr.pipeline.plan.balance.samples import Sampled, Samples
from difffusr.pipeline.plan.balance.survey import _Reach, spacing_of, survey
from difffusr.pipeline.scenes import ChipRules, Nadir, Scene

FIRST = dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC)


def scene(name: str, west: float, south: float, day: int = 1, tile: str = "33TWM", size: float = 1.0) -> Scene:
    footprint = shapely.box(west, south, west + size, south + size)
    return Scene(
        id=name, collection="c1", datetime=FIRST + dt.timedelta(days=day), tile=tile,
        epsg=32633, baseline="05.10", cloud_cover=0.0, provider="p", footprint=footprint, assets={}, scl=None,
        product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip


def read(one: Scene, *_: Any) -> Sampled:
    """Points every 0.05°: DN of one scene are 10 higher than another's for each day."""
    west, south, east, north = one.footprint.bounds
    row, col = np.meshgrid(
        np.arange(round(south / 0.05), round(north / 0.05)), np.arange(round(west / 0.05), round(east / 0.05))
    )
    number = np.sort(((row.ravel() + 2000) << 32) + col.ravel() % 7200)
    day = (one.datetime - FIRST).total_seconds() / 86_400
    place = np.stack([(number % (1 << 32)) * 0.05 - west, north - ((number >> 32) - 2000) * 0.05], axis=1) / (
        east - west
    )
    dn = np.full((len(BANDS), len(number)), 1000 + round(10 * day), np.uint16)
    nadir = Nadir(0.0, 0.0, 1.0, np.ones((len(BANDS), 1, 1), np.float32), "granule", "")
    return Sampled(Samples(number, place.astype(np.float32), dn, day), nadir, (0.0, 0.0, 1.0))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sample", read)


def compared(scenes: list[Scene]) -> set[tuple[str, str]]:
    found = survey(scenes, "scene", ChipRules())
    return {
        tuple(sorted((scenes[a].id, scenes[b].id))) for a, b in zip(found.pairs.one, found.pairs.other, strict=True)
    }


def test_scenes_that_overlap_are_compared_once() -> None:
    scenes = [
        scene("a", 10, 46),
        scene("b", 10.7, 46, 3),
        scene("c", 10, 45.2, 5),
        scene("far", 20, 46),
        scene("beside", 11.8, 46),
    ]
    assert compared(scenes) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert compared(scenes[::-1]) == compared(scenes)


def test_differences_have_the_sign_of_other_less_one() -> None:
    scenes = [scene("a", 10, 46, 0), scene("b", 10.2, 46.1, 7)]
    found = survey(scenes, "scene", ChipRules())
    for one, difference in zip(found.pairs.one, found.pairs.difference, strict=True):
        np.testing.assert_allclose(difference, 70 if one == 0 else -70)
    np.testing.assert_allclose(found.mean, [[1000] * 12, [1070] * 12])


@pytest.mark.parametrize("turn", [0, 360])
def test_across_180_degrees(turn: float) -> None:
    halves = shapely.MultiPolygon([shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.5, -16)])
    whole = _Reach.of(Scene(**{**vars(scene("a", 0, 0)), "footprint": halves}))
    assert (whole.west, whole.east) == (179.5, 180.5)
    assert whole.meets(_Reach(-179.8 + turn, -16.5, -179.0 + turn, -16))
    assert whole.meets(_Reach(179.0 + turn, -16.5, 179.6 + turn, -16))
    assert not whole.meets(_Reach(-179.0 + turn, -16.5, -178.0 + turn, -16))
    assert not whole.meets(_Reach(179.0 + turn, -10, 179.6 + turn, -9))


def test_of_many_scenes_the_nearest_in_time_are_compared() -> None:
    scenes = [
        scene(f"{tile}{day:02}", west, 46, day, tile)
        for tile, west in (("33TWM", 10), ("33TXM", 10.8))
        for day in range(30)
    ]
    pairs = compared(scenes)
    of_tile = [pair for pair in pairs if pair[0][:5] == pair[1][:5]]
    assert len(pairs) <= len(scenes) * 10
    assert {("33TWM10", "33TWM11"), ("33TWM10", "33TXM10")} <= pairs
    apart = [abs(int(a[5:]) - int(b[5:])) for a, b in of_tile]
    assert max(apart) <= 8


def test_a_scene_that_cannot_be_read_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(one: Scene, *options: Any) -> Sampled:
        if one.id == "b":
            raise ReadError("b: B02 is not there")
        return read(one, *options)

    monkeypatch.setattr(module, "sample", broken)
    scenes = [scene("a", 10, 46), scene("b", 10.1, 46), scene("c", 10.2, 46)]
    found = survey(scenes, "scene", ChipRules())
    assert {number: str(error) for number, error in found.unread.items()} == {1: "b: B02 is not there"}
    assert set(found.nadir) == {0, 2}
    assert set(found.pairs.one) | set(found.pairs.other) == {0, 2}


@pytest.mark.parametrize(("scenes", "dates"), [(1, 1), (6, 1), (100, 4), (1250, 12), (5000, 30)])
def test_points_that_a_sweep_holds_fit_in_a_gigabyte(scenes: int, dates: int) -> None:
    side = int(np.ceil(np.sqrt(scenes)))
    reach = [
        _Reach(i % side, 40 - i // side, i % side + 1.1, 41.1 - i // side) for i in range(scenes) for _ in range(dates)
    ]
    reach.sort(key=lambda one: -one.north)
    spacing = spacing_of(reach)
    held = max(sum(other.south <= one.north <= other.north for other in reach[: 4 * side * dates]) for one in reach[:3])
    points = held * (1.1 * 111_320) ** 2 / spacing**2
    assert spacing >= 120
    assert points * 60 < 1.5e9
    assert spacing == 120 or points * 60 * 4 > 0.3e9


def test_a_further_scene_seldom_moves_the_points() -> None:
    reach = [_Reach(i % 20, 40 - i // 20, i % 20 + 1.1, 41.1 - i // 20) for i in range(400) for _ in range(3)]
    spacings = {spacing_of(reach[: -1 - extra]) for extra in range(40)}
    assert len(spacings) == 1
