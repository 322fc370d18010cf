"""Areas to plan: over real classifications and over made scenes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from beside import SHARED
from pyproj import Transformer

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.globe import in_degrees
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.scenes.item import Asset, Scene

OVERVIEWS = SHARED / "data" / "overviews_120m" / "catalog.json"
SEEN = ("B02", "B03", "B04", "B08")


def config(folder: Path, **sections: Any) -> RunConfig:
    content: dict[str, Any] = {
        "name": "test",
        "area": {"bbox": [14.9, 45.0, 16.5, 47.0]},
        "period": {"start": "2023-08-01", "end": "2023-08-31"},
        "source": {"static_catalog": str(OVERVIEWS)},
        "store": {"url": str(folder / "cube.zarr")},
    }
    return RunConfig.model_validate(content | sections, context={"folder": folder})


def plan_under(policy: str, scenes: list[Scene], folder: Path, **wishes: Any) -> Plan:
    return make_plan(config(folder, scenes={"policy": policy, **wishes}), scenes, "model")


def chip_shapes(plan: Plan) -> np.ndarray:
    bounds = Grid().chip_cores_m(plan.chips.epsg, plan.chips.row.astype(np.int64), plan.chips.col.astype(np.int64))
    return in_degrees(bounds, plan.chips.epsg)


def made_scene(folder: Path, name: str, epsg: int, left: int, top: int, classes: np.ndarray, day: int = 1) -> Scene:
    """A scene whose classification of 20 m pixels is written to a file."""
    path = folder / f"{name}.tif"
    transform = rasterio.Affine(20, 0, left, 0, -20, top)
    height, width = classes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", crs=f"EPSG:{epsg}",
        transform=transform,
    ) as file:  # fmt: skip
        file.write(classes.astype(np.uint8), 1)
    scl = Asset(str(path), 20, 0, 0, classes.shape, tuple(transform)[:6], "GTiff")
    square = shapely.box(left, top - 20 * height, left + 20 * width, top)
    return Scene(
        id=name, collection="c", datetime=dt.datetime(2023, 8, day, 10, tzinfo=dt.UTC), tile="33TWL", epsg=epsg,
        baseline="05.09", cloud_cover=0.0, provider="local", footprint=in_degrees_of(square, epsg), assets={}, scl=scl,
        product_uri=None, datatake=None, created=None, updated=None, sequence=None,
    )  # fmt: skip


def in_degrees_of(shape: shapely.Geometry, epsg: int) -> shapely.Geometry:
    transformer = Transformer.from_crs(f"EPSG:{epsg}", "EPSG:4326", always_xy=True)
    return shapely.transform(shapely.segmentize(shape, 500), transformer.transform, interleaved=False)


CLEAR = np.full((600, 600), 4)
