"""Plans to draw: over two zones, across 180°, over both hemispheres."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import zlib
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.geo.zones import territory, to_zone, zones_over
from difffusr.pipeline.plan.tables import Chips, Plan, Shards, StoredPlan
from difffusr.pipeline.scenes.item import Scene

GRID = Grid()
TWO_ZONES = box(11.8, 48.0, 12.2, 48.3)
FIJI = MultiPolygon([box(179.8, -17.2, 180, -17.0), box(-180, -17.2, -179.8, -17.0)])
EQUATOR = box(29.9, -0.1, 30.1, 0.1)


def plan(area: BaseGeometry, dates: int = 3, name: str = "look") -> Plan:
    """All chips of an area; their dates go from west to east, every seventh chip has nothing clear."""
    scenes = [
        Scene(
            id=f"S{k:03d}", collection="c1", datetime=dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC) + dt.timedelta(days=k),
            tile="32ULV", epsg=32632, baseline="05.10", cloud_cover=3.0, provider="p", footprint=area, assets={},
            scl=None, product_uri=None, datatake=None, created=None, updated=None, sequence=None,
        )
        for k in range(dates)
    ]  # fmt: skip
    places = []
    for epsg in zones_over(area):
        rows, cols = GRID.chips_over(epsg, to_zone(area.intersection(territory(epsg)), epsg))
        places.append(np.stack([np.full(len(rows), epsg), rows, cols]))
    epsg, row, col = np.concatenate(places, axis=1).astype(np.int32)
    n = len(row)
    first = np.arange(n, dtype=np.int32) % dates
    chosen = np.stack([first, np.where(np.arange(n) % 2, (first + 1) % dates, -1)], axis=1).astype(np.int32)
    clear = np.where(np.arange(n) % 7, 0.9, 0.0).astype(np.float32)
    key = np.arange(n * 32, dtype=np.int64).astype(np.uint8).reshape(n, 32)
    chips = Chips(epsg, row, col, chosen, np.ones(n, np.float32), clear, key, tuple(s.id for s in scenes))
    config = {"name": name, "period": {"start": "2024-06-01", "end": "2024-06-30"}}
    manifest = {"config": config, "borders": 5, "model": "weights", "algorithm": 1}
    return Plan(tuple(scenes), chips, Shards.of(chips, GRID), manifest)


def stored(made: Plan) -> StoredPlan:
    names = ("id", "tile", "baseline", "cloud_cover")
    rows = [{k: getattr(s, k) for k in names} | {"datetime": s.datetime.isoformat()} for s in made.scenes]
    frame = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=[s.footprint for s in made.scenes], crs="EPSG:4326")
    return StoredPlan(made.manifest, frame, made.chips, made.shards)


def data_of(page: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the columns that a page carries."""
    packed = re.search(r'id="data">([^<]*)<', page.read_text(encoding="utf-8"))
    assert packed
    data = zlib.decompress(base64.b64decode(packed[1]))
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    return header, {
        name: np.frombuffer(data, np.dtype(kind).newbyteorder("<"), count, 4 + length + at)
        for name, kind, at, count in header["columns"]
    }
