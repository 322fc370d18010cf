"""Real STAC items of every provider, and configurations that search them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from beside import SHARED

from difffusr.pipeline.config.sections import RunConfig

ITEMS = SHARED / "data" / "stac_items"
ARCHIVE = SHARED / "data" / "archive"

needs_items = pytest.mark.skipif(not ITEMS.is_dir(), reason=f"the real STAC items are not at {ITEMS}")

#: Items of Earth Search, of its Collection 1 and of Planetary Computer.
ES = "earthsearch_v1_sentinel-2-l2a_S2A_31UDQ"
ES_C1 = "earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV"
PC = "planetarycomputer_S2B_T06VVN"


def config(area: dict[str, Any] | None = None, days: str = "2015-06-23/2030-12-31", **source: Any) -> RunConfig:
    """A configuration that asks a source for an area, the world unless given, in a period "first/last day"."""
    start, end = days.split("/")
    return RunConfig.model_validate(
        {
            "name": "test",
            "area": area or {"bbox": [-180, -90, 180, 90]},
            "period": {"start": start, "end": end},
            "source": source,
            "store": {"url": "/nowhere/cube.zarr"},
        }
    )


def item(name: str, index: int = 0) -> dict[str, Any]:
    """The item of the file whose name begins so; of a collection the one at a place."""
    document = json.loads(next(ITEMS.glob(f"{name}*")).read_text())
    found = document["features"][index] if document["type"] == "FeatureCollection" else document
    assert isinstance(found, dict)
    return found


def every_item() -> list[dict[str, Any]]:
    """The items of all files."""
    documents = [json.loads(file.read_text()) for file in sorted(ITEMS.iterdir())]
    return [one for d in documents for one in (d["features"] if d["type"] == "FeatureCollection" else [d])]


def collection_file(folder: Path, items: list[dict[str, Any]]) -> str:
    """The path of a new file of these items."""
    file = folder / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(file)
