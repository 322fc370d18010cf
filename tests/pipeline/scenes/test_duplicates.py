"""Of the products of one acquisition the best is taken, and why is logged."""

from __future__ import annotations

import copy
import datetime as dt
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from stac_items import ES, collection_file, config, every_item, item, needs_items

from difffusr.pipeline.scenes.search import find_scenes

pytestmark = needs_items


def other_product(one: dict[str, Any], **properties: str) -> dict[str, Any]:
    other = copy.deepcopy(one)
    other["id"] += "_other"
    other["properties"].update({key.replace("_", ":", 1): value for key, value in properties.items()})
    return other


def without_cogs(one: dict[str, Any]) -> dict[str, Any]:
    """The item with only the originals in the bucket whose readers pay."""
    one["assets"] = {key: value for key, value in one["assets"].items() if key.endswith("-jp2")}
    return one


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """A better product, a worse one, and why."""
    one = item(ES)
    newer = other_product(one, s2_processing_baseline="05.10")
    lacking = other_product(newer, s2_processing_baseline="05.10")
    for key in ("scl", "scl-jp2"):
        lacking["assets"].pop(key, None)
    later = other_product(one)
    later["properties"]["updated"] = "2024-01-01T00:00:00Z"
    return {
        "bands before baseline": (one, lacking, "which has more bands"),
        "baseline": (newer, one, "which has the newer baseline 05.10"),
        "baseline before cost": (without_cogs(copy.deepcopy(newer)), one, "which has the newer baseline 05.10"),
        "cost": (one, without_cogs(copy.deepcopy(later)), "which is cheaper to read (COG)"),
        "last updated": (later, one, "which was updated later"),
    }


@pytest.mark.parametrize("case", ["bands before baseline", "baseline", "baseline before cost", "cost", "last updated"])
@pytest.mark.parametrize("turned", [False, True])
def test_of_an_acquisition_the_best_product_is_taken_and_why_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str, turned: bool
) -> None:
    better, worse, why = cases()[case]
    file = collection_file(tmp_path, [worse, better] if turned else [better, worse])
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        (kept,) = find_scenes(config(items=file))
    assert kept.id == better["id"]
    (line,) = [record.getMessage() for record in caplog.records if "same acquisition" in record.getMessage()]
    assert line.startswith(f"left out: {worse['id']}: ")
    assert why in line


def test_an_acquisition_at_midnight_is_one(tmp_path: Path) -> None:
    before, after = item(ES), other_product(item(ES))
    for one, when in ((before, "2023-06-16T23:59:58Z"), (after, "2023-06-17T00:00:05Z")):
        one["properties"]["datetime"] = when
        one["properties"]["s2:product_uri"] = None
    assert len(find_scenes(config(items=collection_file(tmp_path, [before, after])))) == 1


def test_a_thousand_acquisitions_of_one_tile_are_told_apart_quickly(tmp_path: Path) -> None:
    one = item(ES)
    one["assets"] = {key: value for key, value in one["assets"].items() if not key.endswith("-jp2")}
    items = []
    for day in range(1000):
        items.append(other_product(one, s2_product_uri=None))  # type: ignore[arg-type]
        items[-1]["id"] = f"one_31UDQ_{day}"
        items[-1]["properties"]["datetime"] = f"{dt.date(2017, 1, 1) + dt.timedelta(day)}T10:46:31Z"
    file = collection_file(tmp_path, items)
    began = time.perf_counter()
    assert len(find_scenes(config(items=file))) == 1000
    assert time.perf_counter() - began < 10


def test_of_an_acquisition_in_two_collections_one_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": every_item()}))
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        scenes = find_scenes(config(items=str(file), collection=None))
    twice = [scene for scene in scenes if scene.tile == "24MXV"]
    assert [scene.collection for scene in twice] == ["sentinel-2-l2a"]
    assert "left out: S2B_T24MXV_20250731T130245_L2A" in caplog.text
    assert len({(scene.tile, scene.datetime) for scene in scenes}) == len(scenes)
    shuffled = list(reversed(every_item()))
    file.write_text(json.dumps({"type": "FeatureCollection", "features": shuffled}))
    assert [s.id for s in find_scenes(config(items=str(file), collection=None))] == [s.id for s in scenes]


def test_a_reprocessed_product_replaces_the_first(tmp_path: Path) -> None:
    first, again = item(ES), item(ES)
    again["id"] += "_again"
    again["properties"]["s2:processing_baseline"] = "05.10"
    again["properties"]["updated"] = "2020-01-01T00:00:00Z"
    half = item(ES)
    half["id"] = "S2A_31UDQ_20230617_1_L2A"
    half["geometry"] = {"type": "Polygon", "coordinates": [[[2.6, 49], [2.9, 49], [2.9, 48.7], [2.6, 49]]]}
    first["geometry"] = again["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[2, 49], [2.5, 49], [2.5, 48.7], [2, 49]]],
    }
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [first, again, half]}))
    # The other half of the tile, received elsewhere, is no duplicate.
    assert [scene.id for scene in find_scenes(config(items=str(file)))] == [again["id"], half["id"]]
