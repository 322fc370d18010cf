"""Which scenes a chip takes, under each policy."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest
import shapely

from difffusr.pipeline.config.sections import ScenesSection
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.plan.looks import Cells, Look
from difffusr.pipeline.plan.ranking import Candidates, Strip, rank_strip
from difffusr.pipeline.scenes.item import Scene

GRID = Grid()
CELLS = Cells.of(GRID)


def scene(day: int, cloud: float = 10.0, tile: str = "32UNA") -> Scene:
    when = dt.datetime(2023, 6, day, 10, tzinfo=dt.UTC)
    return Scene(
        id=f"{tile}-{day:02d}", collection="c", datetime=when, tile=tile, epsg=32632, baseline="05.09",
        cloud_cover=cloud, provider="local", footprint=shapely.box(9, 50, 10, 51), assets={}, scl=None,
        product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip


def cell_sets(masks: np.ndarray) -> np.ndarray:
    """(n, 16, 16) bool as sets of cells."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1, bitorder="little").view(np.uint64)


def look(clear: np.ndarray, valid: np.ndarray | None = None) -> Look:
    """What a scene shows of a row of chips: (n, 16, 16) bool each."""
    valid = np.ones_like(clear) if valid is None else valid
    count = len(clear)
    return Look(
        np.zeros(count, np.int32), np.arange(count, dtype=np.int32), cell_sets(valid), cell_sets(clear & valid), True
    )


def columns(*shares: float) -> np.ndarray:
    """Chips of which the first so many sixteenths are clear."""
    return np.stack([np.broadcast_to(np.arange(16) < 16 * share, (16, 16)) for share in shares])


def ranked(scenes: list[Scene], seen: list[Look], count: int, aside=None, **wishes):
    wishes = ScenesSection(**wishes)
    strip = Strip.of(0, 1, np.zeros(count, np.int64), np.arange(count, dtype=np.int64))
    candidates = Candidates.of(scenes, wishes.policy)
    return rank_strip(wishes, CELLS, candidates, strip, dict(enumerate(seen)), aside=aside)


def first(found) -> list[int]:
    return found.scenes[:, 0].tolist()


def test_the_clearest_comes_first_and_the_next_fills_what_it_masks():
    looks = [look(columns(0.5)), look(columns(0.75)), look(~columns(0.75))]
    found = ranked([scene(1), scene(2), scene(3)], looks, 1, policy="clearest")
    assert found.scenes.tolist() == [[1, 2, -1]]
    assert found.clear.tolist() == [1.0]


def test_no_further_scene_once_the_chip_is_clear_enough():
    looks = [look(columns(0.75)), look(~columns(0.75))]
    scenes = [scene(1), scene(2)]
    assert ranked(scenes, looks, 1, policy="clearest", fill_until=0.7).scenes.tolist() == [[0, -1, -1]]
    assert ranked(scenes, looks, 1, policy="clearest", fill_until=0.8).scenes.tolist() == [[0, 1, -1]]
    assert ranked(scenes, looks, 1, policy="clearest", max_scenes=1).scenes.tolist() == [[0]]


def test_a_scene_that_adds_nothing_is_not_read():
    looks = [look(columns(0.75)), look(columns(0.5))]
    assert ranked([scene(1), scene(2)], looks, 1, policy="clearest").scenes.tolist() == [[0, -1, -1]]


def test_the_newest_comes_first_and_older_ones_fill():
    looks = [look(columns(1.0)), look(columns(0.25)), look(columns(0.5))]
    found = ranked([scene(1), scene(9), scene(5)], looks, 1, policy="newest")
    assert found.scenes.tolist() == [[1, 2, 0]]


def test_the_scene_closest_to_a_date_comes_first():
    looks = [look(columns(0.5)), look(columns(0.5)), look(columns(0.5))]
    scenes = [scene(1), scene(9), scene(20)]
    assert first(ranked(scenes, looks, 1, policy="closest_to(2023-06-11)")) == [1]
    assert first(ranked(scenes, looks, 1, policy="closest_to(2023-06-30)")) == [2]
    assert first(ranked(scenes, looks, 1, policy="closest_to(2020-01-01)")) == [0]


def test_neighbours_share_a_date_where_the_clearest_differ_by_little():
    one = look(columns(1.0, 1.0, 0.9375, 1.0, 1.0, 0.25))
    other = look(columns(0.5, 0.5, 1.0, 0.5, 0.5, 1.0))
    scenes = [scene(1), scene(2)]
    assert first(ranked(scenes, [one, other], 6, policy="clearest")) == [0, 0, 1, 0, 0, 1]
    assert first(ranked(scenes, [one, other], 6, policy="neighbours")) == [0, 0, 0, 0, 0, 1]


def test_of_two_tiles_of_one_pass_the_fuller_is_enough():
    edge = np.ones((1, 16, 16), bool)
    edge[:, :, 10:] = False
    full, half = look(columns(1.0)), look(columns(1.0), edge)
    for policy in ("clearest", "neighbours", "newest"):
        found = ranked([scene(1, tile="32UNA"), scene(1, tile="32UPA")], [half, full], 1, policy=policy)
        assert found.scenes.tolist() == [[1, -1, -1]]


def test_two_halves_of_a_pass_make_a_whole():
    west = np.ones((1, 16, 16), bool)
    west[:, :, 9:] = False
    looks = [look(columns(1.0), west), look(columns(1.0), ~west)]
    found = ranked([scene(1, tile="32UNA"), scene(1, tile="32UPA")], looks, 1, policy="neighbours")
    assert found.scenes.tolist() == [[0, 1, -1]]
    assert found.covered.tolist() == [1.0]


def test_cloud_is_a_last_resort_and_can_be_refused():
    looks = [look(columns(0.0, 0.5))]
    assert len(ranked([scene(1)], looks, 2).row) == 2
    assert ranked([scene(1)], looks, 2, allow_cloudy=False).col.tolist() == [1]
    assert ranked([scene(1)], looks, 2, min_clear_share=0.6).col.tolist() == []


def test_less_cloud_in_the_whole_product_breaks_a_tie():
    looks = [look(columns(1.0)), look(columns(1.0))]
    for policy in ("clearest", "neighbours"):
        assert first(ranked([scene(1, cloud=5), scene(2, cloud=60)], looks, 1, policy=policy)) == [0]


def test_chips_that_no_scene_shows_are_left_out():
    nothing = Look(*(np.zeros(0, np.int32),) * 2, *(np.zeros((0, 4), np.uint64),) * 2, True)
    for policy in ("clearest", "neighbours"):
        assert len(ranked([scene(1)], [nothing], 3, policy=policy).row) == 0
        assert len(ranked([scene(1)], [look(columns(1.0))], 3, policy=policy).row) == 1


def test_of_products_of_one_acquisition_the_better_comes_first_and_the_other_fills():
    """Two datastrips of one tile, and a reprocessed third of it: a later baseline is better where it shows as much."""
    both = [
        replace(scene(1), id=name, datatake="S2A_1", baseline=baseline)
        for name, baseline in (("a", "05.00"), ("b", "05.10"))
    ]
    west, east, third = columns(0.5), ~columns(0.5), columns(1 / 3)
    ones = np.ones_like(west)
    halves = ranked(both, [look(ones, west), look(ones, east)], 1)
    assert sorted(halves.scenes[0, :2].tolist()) == [0, 1]
    assert halves.covered[0] == 1
    again = ranked(both, [look(ones), look(ones)], 1)
    assert again.scenes[0].tolist() == [1, -1, -1]
    part = ranked(both, [look(ones), look(ones, third)], 1)
    assert part.scenes[0].tolist() == [0, -1, -1]
    more = ranked(both, [look(ones, ~third), look(ones, columns(0.5))], 1)
    assert sorted(more.scenes[0, :2].tolist()) == [0, 1]


@pytest.mark.parametrize("policy", ["neighbours", "clearest", "newest"])
def test_a_scene_set_aside_is_replaced_in_its_chips_alone(policy: str):
    scenes, looks = (
        [scene(1), scene(2), scene(3)],
        [look(columns(1, 1, 1, 1)), look(columns(0.5, 0.75, 0.5, 0.5)), look(columns(0.9, 1, 1, 0.9))],
    )
    plain = ranked(scenes, looks, 4, policy=policy)
    number = first(plain)[1]
    for chips, changed in ((None, [0, 1, 2, 3]), ({(0, 1), (0, 3)}, [1, 3]), ({(7, 7)}, [])):
        found = ranked(scenes, looks, 4, {number: chips}, policy=policy)
        for chip in range(4):
            if chip in changed:
                assert number not in found.scenes[chip]
            else:
                assert found.scenes[chip].tolist() == plain.scenes[chip].tolist()
        assert found.label.tolist() == plain.label.tolist()


def test_a_chip_without_another_scene_keeps_the_one_set_aside():
    looks = [look(columns(1, 1)), look(columns(1, 1), columns(0, 1))]
    assert first(ranked([scene(1), scene(2)], looks, 2, {0: None})) == [0, 1]
    assert first(ranked([scene(1)], [look(columns(1, 0.5))], 2, {0: None})) == [0, 0]


def test_another_tile_of_the_pass_takes_the_place_of_one_set_aside():
    """It adds nothing to the first as long as that can be read."""
    two = [scene(1, tile="32UNA"), scene(1, tile="32UPA"), scene(2)]
    looks = [look(columns(1, 1)), look(columns(1, 0.75)), look(columns(0.9, 0.9))]
    assert ranked(two, looks, 2).scenes[:, :2].tolist() == [[0, -1], [0, -1]]
    assert first(ranked(two, looks, 2, {0: None})) == [1, 1]


def test_a_composite_takes_further_looks_by_what_they_show_and_then_by_the_policy():
    looks = [look(columns(share)) for share in (0.5, 1.0, 0.25, 0.0, 1.0, 0.75)]
    scenes = [scene(day) for day in range(1, 7)]
    made = ranked(scenes, looks, 1, policy="clearest", composite="geomedian", looks=8)
    assert made.scenes.tolist() == [[4, 1, 5, 0, 2, -1, -1, -1]]  # the cloudy one is no look
    assert ranked(scenes, looks, 1, policy="clearest").scenes.tolist() == [[4, -1, -1]]


@pytest.mark.parametrize("kind", ["medoid", "geomedian"])
@pytest.mark.parametrize("limit", [2, 3, 5, 16])
@pytest.mark.parametrize("policy", ["neighbours", "clearest", "newest", "closest_to(2023-06-04)"])
def test_a_composite_has_as_many_looks_as_it_may_the_policy_s_first(kind, limit, policy):
    rng = np.random.default_rng(limit)
    shares = rng.uniform(0.1, 1, (9, 4))
    looks = [look(np.stack([rng.random((16, 16)) < share for share in row])) for row in shares]
    scenes = [scene(day) for day in range(1, 10)]
    made = ranked(scenes, looks, 4, policy=policy, composite=kind, looks=limit, max_scenes=1)
    alone = ranked(scenes, looks, 4, policy=policy)
    assert made.scenes.shape == (4, limit)
    assert ((made.scenes >= 0).sum(axis=1) == min(limit, 9)).all()
    assert first(made) == first(alone)
    for row in made.scenes:
        assert len(set(row[row >= 0].tolist())) == (row >= 0).sum()
    assert (made.clear >= alone.clear if limit > 2 else made.clear >= 0).all()


def test_newest_looks_of_a_composite_come_first_whatever_they_show():
    looks = [look(columns(share)) for share in (1.0, 0.9, 0.5, 0.2)]
    made = ranked([scene(day) for day in (1, 4, 9, 7)], looks, 1, policy="newest", composite="medoid", fill_until=0.1)
    assert made.scenes[0].tolist()[:4] == [2, 3, 1, 0]


def test_what_only_one_look_shows_is_shown_before_the_rest_is_shown_again():
    hidden = columns(15 / 16)
    looks = [look(hidden)] * 4 + [look(~hidden)]
    made = ranked([scene(day) for day in range(1, 6)], looks, 1, policy="clearest", composite="geomedian", looks=3)
    assert made.scenes.tolist() == [[3, 4, 2]]
    assert made.clear.tolist() == [1.0]


def test_tiles_of_one_pass_that_add_nothing_are_no_further_look_of_a_composite():
    looks = [look(columns(1.0)), look(columns(1.0)), look(columns(0.5))]
    scenes = [scene(1, tile="32UNA"), scene(1, tile="32UPA"), scene(2)]
    made = ranked(scenes, looks, 1, policy="clearest", composite="geomedian")
    assert (made.scenes >= 0).sum() == 2
    assert made.scenes[0, 1] == 2 or made.scenes[0, 0] == 2


@pytest.mark.parametrize("allowed", [True, False])
def test_a_composite_of_cloud_alone_has_one_scene_if_that_is_allowed(allowed):
    looks = [look(columns(0.0)), look(columns(0.0))]
    made = ranked([scene(1), scene(2)], looks, 1, policy="clearest", composite="geomedian", allow_cloudy=allowed)
    assert made.scenes.tolist() == ([[1, -1, -1, -1, -1, -1, -1, -1]] if allowed else [])


def test_scenes_set_aside_are_no_looks():
    looks = [look(columns(1.0, 1.0))] * 3
    made = ranked(
        [scene(day) for day in (1, 2, 3)], looks, 2, aside={1: [(0, 1)]}, policy="clearest", composite="medoid"
    )
    assert [sorted(n for n in row if n >= 0) for row in made.scenes.tolist()] == [[0, 1, 2], [0, 2]]
