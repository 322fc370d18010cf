"""Items of area, period, collection and limits are taken; the rest is counted with its reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from stac_items import ARCHIVE, collection_file, config, every_item, item, needs_items

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.search import find_scenes

pytestmark = needs_items


@pytest.mark.parametrize(
    ("limit", "dropped"),
    [
        ({"max_nodata": 50}, {"20EPT", "24MXV", "60VUK", "07HFE", "33XWJ"}),
        ({"max_snow_cover": 5}, {"01WCR", "55WFR", "32TPS", "06VVN"}),
        ({"min_sun_elevation": 15}, {"20EPT", "60VUK", "33XWJ"}),
    ],
)
def test_a_limit_drops_what_is_beyond_it_and_keeps_what_does_not_say(
    tmp_path: Path, limit: dict[str, Any], dropped: set[str]
) -> None:
    file = collection_file(tmp_path, every_item())
    before = {scene.tile for scene in find_scenes(config(items=file, collection=None))}
    after = {scene.tile for scene in find_scenes(config(items=file, collection=None, **limit))}
    assert before - after == dropped
    assert "28QCH" in after  # Earth Search v0 says nothing of nodata, snow and sun


def test_dropped_items_are_counted_with_their_reason(tmp_path: Path) -> None:
    one = item("planetarycomputer_S2A_T60VUK")
    file = collection_file(tmp_path, [one])
    for limit, reason in (
        ({"max_nodata": 80}, "1 above 80 % nodata"),
        ({"min_sun_elevation": 10.5}, "1 below 10.5° of sun elevation"),
        ({"max_cloud_cover": 50}, "1 above 50 % cloud"),
    ):
        with pytest.raises(CatalogError, match=re.escape(f"1 items seen: {reason}")):
            find_scenes(config(items=file, **limit))
    one["properties"]["s2:snow_ice_percentage"] = 71
    with pytest.raises(CatalogError, match="1 items seen: 1 above 70 % snow"):
        find_scenes(config(items=collection_file(tmp_path, [one]), max_snow_cover=70))


@pytest.mark.parametrize(
    ("area", "days", "found"),
    [
        ({"tiles": ["48QUE"]}, "2020-02-01/2020-02-29", {"48QUE"}),
        ({"bbox": [103.6, 17.8, 103.8, 17.9]}, "2020-02-01/2020-02-29", {"48QUD"}),
        ({"bbox": [103.6, 17.8, 103.8, 18.0]}, "2020-02-23/2020-02-23", {"48QUD", "48QUE"}),
        (None, "2020-03-01/2020-08-12", {"43RCP"}),
    ],
)
def test_scenes_are_those_of_area_and_period(area: dict[str, Any] | None, days: str, found: set[str]) -> None:
    scenes = find_scenes(config(area, days, static_catalog=str(ARCHIVE)))
    assert {scene.tile for scene in scenes} == found


def test_nothing_found_says_what_was_searched_and_why_items_were_dropped() -> None:
    source = {"static_catalog": str(ARCHIVE), "max_cloud_cover": 1}
    with pytest.raises(CatalogError) as caught:
        find_scenes(config({"bbox": [70, 30, 75, 31]}, "2020-06-01/2022-07-31", **source))
    assert str(caught.value) == (
        f"no scene found: static_catalog {ARCHIVE}, collection sentinel-2-l2a, period 2020-06-01 to 2022-07-31, "
        "area 70.0000, 30.0000 to 75.0000, 31.0000: 5 items seen: 2 above 1 % cloud, 2 outside the period, "
        "1 outside the area"
    )
    with pytest.raises(CatalogError, match=r"tiles 01CAA.*5 items seen: 5 of other tiles"):
        find_scenes(config({"tiles": ["01CAA"]}, static_catalog=str(ARCHIVE)))
    with pytest.raises(CatalogError, match=r"collection other, .*5 in collection 'sentinel-2-l2a'"):
        find_scenes(config(static_catalog=str(ARCHIVE), collection="other"))
