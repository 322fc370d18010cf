"""Items of other projects end in scenes or in a table of reasons."""

from __future__ import annotations

import json
import logging
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from beside import SHARED
from stac_items import collection_file, config

from difffusr.pipeline.scenes.search import search_scenes

#: Where items may be: in the installed packages, and beside the checkout.
PLACES = [Path(sysconfig.get_paths()["purelib"]), SHARED / "data"]


def items_below(folder: Path) -> Iterator[dict[str, Any]]:
    """The STAC items of all JSON files below a folder."""
    for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.geojson")]):
        if file.stat().st_size > 3_000_000 or b'"stac_version"' not in (text := file.read_bytes()):
            continue
        document = json.loads(text)
        features = document.get("features") if document.get("type") == "FeatureCollection" else [document]
        yield from (one for one in features or [] if isinstance(one, dict) and one.get("type") == "Feature")


def test_every_item_that_is_found_is_a_scene_or_has_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    items = [item for place in PLACES if place.is_dir() for item in items_below(place)]
    if not SHARED.is_dir():
        pytest.skip(f"there are no real STAC items at {SHARED}")
    file = collection_file(tmp_path, items)
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        found = search_scenes(config(items=file, collection=None, max_left_out="100%"))
    record_property("left out by reason", json.dumps(found.left_out.to_json()))
    assert found.seen == len({(item.get("collection"), item.get("id")) for item in items})
    assert 0 < len(found.scenes) <= found.seen - found.left_out.count - sum(found.filtered.values())
    # Those beside the checkout lack bands where they are overviews of a few; nothing else is wrong with them.
    names = {item["id"] for item in items_below(SHARED / "data")}
    for reason in found.left_out.to_json():
        assert reason["reason"] == "without a band" or not names & set(reason["named"]), reason
    assert all("\n" not in record.getMessage() for record in caplog.records)
