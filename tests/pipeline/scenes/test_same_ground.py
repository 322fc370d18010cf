"""Which products of one acquisition may add ground: what their items say of coverage, not their outlines, tells."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import shapely
from small_rasters import scene_of

from difffusr.pipeline.scenes.duplicates import order_in_acquisition, without_duplicates
from difffusr.pipeline.scenes.item import Scene

SQUARE = shapely.box(104, 13, 105, 14)
HALF = shapely.box(104, 13, 104.5, 14)


def product(name: str, **changes: Any) -> Scene:
    known = {"footprint": SQUARE, "datatake": "S2A_20230605T102031", "baseline": "05.09"}
    return replace(scene_of("/nowhere/B04.tif", name), **{**known, **changes})


STAY = {
    "two halves, nothing said": ({}, {}),
    "two halves, said": ({"nodata": 50.0, "datastrip": "A"}, {"nodata": 50.0, "datastrip": "B"}),
    "a newer third": (
        {"nodata": 67.0, "datastrip": "A", "baseline": "05.11"},
        {"nodata": 0.0, "datastrip": "A"},
    ),
    "only one says": ({"nodata": 40.0, "datastrip": "A", "baseline": "05.10"}, {"datastrip": "A"}),
    "other outlines": (
        {"nodata": 50.0, "datastrip": "A", "footprint": HALF},
        {"nodata": 50.0, "datastrip": "A", "footprint": shapely.box(104.45, 13, 105, 14)},
    ),
    "other passes": ({"nodata": 0.0}, {"nodata": 0.0, "datatake": "S2B_20230605T102559"}),
}

GO = {
    "reprocessed": ({"nodata": 48.2, "datastrip": "A", "baseline": "05.10"}, {"nodata": 48.3, "datastrip": "A"}),
    "the whole tile": ({"nodata": 0.0, "baseline": "05.10"}, {}),
    "the whole tile beside a part": ({"nodata": 0.02, "baseline": "05.10"}, {"nodata": 70.0, "datastrip": "B"}),
    "a smaller part": (
        {"nodata": 20.0, "datastrip": "A", "baseline": "05.10"},
        {"nodata": 80.0, "datastrip": "A"},
    ),
    "updated later": (
        {"nodata": 30.0, "datastrip": "A", "updated": "2024-01-02"},
        {"nodata": 30.0, "datastrip": "A", "updated": "2024-01-01"},
    ),
}


@pytest.mark.parametrize("case", STAY)
def test_what_may_add_ground_stays(case: str) -> None:
    both = [product("a", **STAY[case][0]), product("b", **STAY[case][1])]
    for order in permutations(both):
        assert {scene.id for scene in without_duplicates(order)} == {"a", "b"}


@pytest.mark.parametrize("case", GO)
def test_what_certainly_adds_none_goes(case: str) -> None:
    both = [product("better", **GO[case][0]), product("worse", **GO[case][1])]
    for order in permutations(both):
        assert [scene.id for scene in without_duplicates(order)] == ["better"]


def test_the_better_products_of_an_acquisition_and_tile_come_first() -> None:
    scenes = [
        product("old"),
        product("elsewhere", tile="48QUD"),
        product("new", baseline="05.11"),
        product("newer", baseline="05.12"),
        product("next day", datatake=None),
    ]
    assert order_in_acquisition(scenes) == [2, 0, 1, 0, 0]
