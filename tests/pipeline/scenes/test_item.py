"""What an item says of sun, snow, nodata and time is found wherever its provider puts it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from beside import SHARED

from difffusr.pipeline.scenes.item import cloud_cover_of, nodata_of, scene_from_item, snow_cover_of, sun_elevation_of

ITEMS = SHARED / "data" / "stac_items"

pytestmark = pytest.mark.skipif(not ITEMS.is_dir(), reason=f"the real STAC items are not at {ITEMS}")


def item(name: str) -> dict[str, Any]:
    found = json.loads(next(ITEMS.glob(f"{name}*")).read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "cloud", "nodata", "snow", "sun"),
    [
        ("antimeridian_", 61.174244, 0.490543, 34.175643, 44.1254666279097),
        ("cdse_v1_S2C_T55WFR", 36.08, 0, 8.936413, 43.2860100225997),
        ("earthsearch_v0_sentinel-s2-l2a-cogs_S2A_28QCH", 2.36, None, None, None),
        ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", 26.02542, 98.002911, 0, 4.164002081708503),
        ("earthsearch_v1_sentinel-2-l2a_S2A_32TPS", 31.735489, 0, 10.053248, 63.2305935349323),
        ("planetarycomputer_S2A_T60VUK", 56.297088, 87.684971, 0, 90 - 81.3310068623942),
        ("stactools_S2B_T33XWJ", 98.944211, 98.441625, 1.039183, 13.471380977263905),
    ],
)
def test_each_providers_properties_are_found(
    name: str, cloud: float, nodata: float | None, snow: float | None, sun: float | None
) -> None:
    one = item(name)
    assert (cloud_cover_of(one), nodata_of(one), snow_cover_of(one), sun_elevation_of(one)) == (
        cloud,
        nodata,
        snow,
        sun,
    )


def test_the_same_moment_is_spelt_the_same() -> None:
    one = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    keys = set()
    for text in ("2023-06-17T21:03:52.4Z", "2023-06-17T21:03:52.400Z", "2023-06-17T21:03:52.400000+00:00"):
        one["properties"]["updated"] = text
        keys.add(scene_from_item(one, "/data/item.json").version_key())
    assert len(keys) == 1
